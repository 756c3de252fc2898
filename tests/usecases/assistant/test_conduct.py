"""Metrics of an agent's behaviour, each computed from hand-written turns."""

from dataclasses import replace

import pytest
from evaluated import episode, turn

from apprentice.records import Trajectory, Turn
from apprentice.usecases.assistant.metrics.conduct import METRICS, SHARES, assumptions, calls_of, conduct, has_placeholder


def code(text: str, *, prose: str = "") -> str:
    return f"{prose}\n```python\n{text}\n```"


def played(*turns: Turn, outcome: str = "failure") -> Trajectory:
    return replace(episode("a", "", [("", "", "")] * len(turns), outcome=outcome), turns=turns)


def of_calls(*of_turns: tuple[str, ...]) -> Trajectory:
    return played(*(turn(code("x"), calls=calls) for calls in of_turns))


def test_every_metric_has_a_description_and_a_kind():
    metrics = conduct([played(turn(code("x")))])
    assert list(metrics) == list(METRICS)
    assert set(SHARES) < set(METRICS)


def test_turns_and_code():
    metrics = conduct([played(turn(code("12345")), turn("only words", "malformed")), played(turn(code("1", prose="first") + code("22")))])
    assert metrics["turns"] == 1.5
    assert metrics["code_characters"] == round((5 + 0 + 3) / 3, 4)
    assert metrics["several_blocks"] == 0.3333
    assert metrics["malformed"] == 0.3333


def test_code_that_raises_and_code_that_is_killed_are_execution_errors():
    metrics = conduct([played(turn(code("1/0"), "error"), turn(code("x")), turn(code("x")), turn(code("while 1: pass"), "killed"))])
    assert metrics["execution_errors"] == 0.5


def test_an_endpoint_is_abandoned_if_it_never_succeeds_after_a_failure():
    failed, ok = "spotify.login 401", "spotify.login 200"
    assert conduct([of_calls((failed,), ("spotify.show_song 200",))])["given_up"] == 1
    assert conduct([of_calls((failed, failed), (ok,))])["given_up"] == 0
    assert conduct([of_calls((ok, failed))])["given_up"] == 1
    assert conduct([of_calls((ok,))])["given_up"] == 0
    # Endpoints count, not calls, and success in one episode does not affect another.
    assert conduct([of_calls((failed, failed, "venmo.login 422")), of_calls((failed, ok))])["given_up"] == 0.6667


def test_look_ups_of_documentation_are_counted_by_episode():
    looked = of_calls(("api_docs.show_app_descriptions 200", "api_docs.show_api_doc(spotify.login) 200"), ("spotify.login 200",))
    assert conduct([looked, of_calls(("spotify.login 200",))])["documentation_lookups"] == 1


@pytest.mark.parametrize(
    ("calls", "share"),
    [
        (("api_docs.show_api_doc(spotify.login) 200", "spotify.login 200", "spotify.login 200"), 1),
        (("spotify.login 200", "api_docs.show_api_doc(spotify.login) 200", "spotify.login 200"), 0),
        (("api_docs.show_api_doc(spotify.login) 422", "spotify.login 200"), 0),
        (("api_docs.show_api_doc(venmo.login) 200", "spotify.login 200"), 0),
        (("api_docs.show_api_descriptions(spotify) 200", "spotify.login 200"), 0),
        (("api_docs.show_api_doc(spotify.login) 200", "spotify.login 200", "venmo.login 200"), 0.5),
        (("supervisor.show_profile 200", "api_docs.show_app_descriptions 200"), 0),
    ],
)
def test_a_first_call_is_documented_if_its_own_documentation_was_shown_before(calls, share):
    assert conduct([of_calls(calls)])["documented_first_calls"] == share


def test_documentation_of_another_episode_does_not_count():
    assert conduct([of_calls(("api_docs.show_api_doc(spotify.login) 200",)), of_calls(("spotify.login 200",))])["documented_first_calls"] == 0


def test_calls_are_read_across_turns():
    (first, second) = calls_of([turn("", calls=("spotify.login 401",)), turn("", calls=("api_docs.show_api_doc(spotify.login) 200",))])
    assert (first.endpoint, first.app, first.ok) == ("spotify.login", "spotify", False)
    assert (second.endpoint, second.documents, second.ok) == ("api_docs.show_api_doc", "spotify.login", True)


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (code("x = 1", prose="I assume, probably rightly, that it might be open."), 3),
        (code("x = 1  # presumably the first\n# Assuming one page"), 2),
        (code("title = 'Probably # likely'"), 0),
        (code("assume = 1"), 0),
        (code("print('x' # most likely\n"), 1),
        ("That is unlikely.", 0),
    ],
)
def test_assumptions_are_counted_in_prose_and_comments_but_not_in_code(action, words):
    assert assumptions(action) == words


def test_assumption_words_are_a_mean_over_turns():
    assert conduct([played(turn("Maybe."), turn(code("x")))])["assumption_words"] == 0.5


@pytest.mark.parametrize(
    ("action", "holds"),
    [
        (code("login('ada@mail.com', 'your_password')"), True),
        (code("login(password=YOUR_PASSWORD)"), True),
        (code("token = '<token>'"), True),
        (code("email = 'ada@example.com'"), True),
        (code("token = 'dummy_token'"), True),
        (code("name = 'Placeholder'"), True),
        (code("if a < b and c > d: print('<', x, '>')"), False),
        (code("x = 1  # no placeholder here"), False),
        ("Fill in your_password.\n" + code("login(password)"), False),
    ],
)
def test_placeholders_are_values_in_code(action, holds):
    assert has_placeholder(action) is holds


def test_placeholders_are_counted_by_episode():
    bad = turn(code("login('your_password')"))
    assert conduct([played(bad, bad), played(turn(code("x")))])["placeholders"] == 0.5


def test_completed_and_truncated_episodes_are_counted():
    done = played(turn(code("x")), turn(code("complete_task()"), "complete"), outcome="success")
    metrics = conduct([done, played(turn(code("x")), outcome="truncated")])
    assert (metrics["completed"], metrics["truncated"]) == (0.5, 0.5)


def test_faults_do_not_count_and_no_episode_gives_zeros():
    assert conduct([played(turn(code("x"))), played(turn("y", "malformed"), outcome="fault")])["malformed"] == 0
    assert set(conduct([]).values()) == {0.0}
