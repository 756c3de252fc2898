"""Behaviour metrics of hand-written episodes."""

from evaluated import episode

from apprentice.records import Turn
from apprentice.usecases.deepsearch.metrics.behaviour import METRICS, behaviour, query_of

SEARCH = ("search", "<think>where</think><search>Ada  Office</search>", "(1) Ada")
AGAIN = ("search", "<search>ada office</search>", "(1) Ada")
ANSWER = ("answer", "<answer>Oslo</answer>", "")
GARBLED = ("malformed", "I think", "write one tag")


def test_metrics_by_hand():
    metrics = behaviour(
        [episode("a", "Oslo", [SEARCH, AGAIN, ANSWER]), episode("b", "Oslo", [ANSWER]), episode("c", "", [GARBLED, SEARCH], outcome="truncated")]
    )
    assert list(metrics) == list(METRICS)
    assert metrics["searched_before_answering"] == 0.3333
    assert metrics["searches"] == 1
    assert metrics["repeated_queries"] == 0.3333
    assert metrics["malformed"] == 0.1667
    assert metrics["thinking"] == 0.3333
    assert metrics["turns"] == 2
    assert metrics["action_tokens"] == 4
    assert metrics["answered"] == 0.6667
    assert metrics["truncated"] == 0.3333


def test_faults_do_not_count():
    assert behaviour([episode("a", "Oslo", [ANSWER]), episode("b", "", [GARBLED], outcome="fault")])["malformed"] == 0


def test_no_episode_gives_zeros():
    assert set(behaviour([]).values()) == {0.0}


def test_an_empty_thought_is_none():
    assert behaviour([episode("a", "x", [("answer", "<think> </think><answer>x</answer>", "")])])["thinking"] == 0


def test_a_query_is_read_with_and_without_its_closing_tag():
    assert query_of(Turn(0, 1, "<search>Ada Office", "", "search", 0)) == "ada office"
    assert query_of(Turn(0, 1, "<search>\nAda </search> x", "", "search", 0)) == "ada"
