"""evaluation.json: its stable keys and their values."""

import json

import pytest
from evaluated import evaluated_project

from apprentice.evaluation.comparison import DIFFERENCES, SAMPLED
from apprentice.usecases.deepsearch.metrics.measure import CONDITIONS, MEASURE, compare

SCORE_KEYS, DIFFERENCE_KEYS = {"em", "em_folded", "cover_em", "f1", "n", "em_ci95"}, {"em", "em_ci95", "p", "n", "scenarios"}


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    return evaluated_project(tmp_path_factory.mktemp("project"))


def test_stable_keys(evaluated):
    metrics = evaluated[-1]
    assert all(metrics[name].keys() == SCORE_KEYS for name in CONDITIONS)
    assert all(metrics[name].keys() == DIFFERENCE_KEYS for name in DIFFERENCES)
    assert metrics["sampled"].keys() == {*SAMPLED, "trained_minus_warm_start"}


def test_differences_are_those_of_the_means(evaluated):
    metrics = evaluated[-1]
    for name, (after, before) in DIFFERENCES.items():
        assert metrics[name]["em"] == pytest.approx(metrics[after]["em"] - metrics[before]["em"], abs=2e-4)
        assert metrics[name]["em_ci95"][0] < metrics[name]["em"] < metrics[name]["em_ci95"][1]


def test_the_same_episodes_give_the_same_file(evaluated):
    config, _, tasks, episodes, metrics = evaluated
    again = compare(tasks, episodes, config.evaluate, dict.fromkeys(CONDITIONS, 1.0))
    assert json.dumps(again) == json.dumps(metrics)


def test_without_sampled_episodes_their_metrics_are_absent(evaluated):
    config, _, tasks, episodes, _ = evaluated
    metrics = compare(tasks, episodes, config.evaluate.model_copy(update={"samples": 0}), dict.fromkeys(CONDITIONS, 1.0))
    assert metrics["sampled"] == {}


def test_the_parts_and_their_order(evaluated):
    metrics = evaluated[-1]
    parts = ["sampled", "by_hops", "by_difficulty", "abstention", "behaviour", "tokens", "seconds"]
    assert list(metrics) == [*CONDITIONS, *DIFFERENCES, *parts]
    assert metrics["trained"] == {"em": 0.7917, "em_folded": 0.7917, "cover_em": 0.7917, "f1": 0.7917, "n": 24, "em_ci95": [0.5953, 0.9076]}
    assert metrics["trained_minus_warm_start"] == {"em": 0.4583, "em_ci95": [0.1672, 0.679], "p": 0.00342, "n": 24, "scenarios": 24}
    assert list(metrics["seconds"]) == [*CONDITIONS, "total"]


def test_the_csv_to_the_letter(evaluated):
    assert MEASURE.curve_rows(evaluated[-1]).splitlines() == [
        "condition,score,low,high,cover_em,f1,em_folded",
        "base_closed_book,0.125,0.0434,0.31,0.125,0.125,0.125",
        "base_rag,0.2083,0.0924,0.4047,0.2083,0.2083,0.2083",
        "before,0.125,0.0434,0.31,0.125,0.125,0.125",
        "warm_start,0.3333,0.1797,0.5329,0.3333,0.3333,0.3333",
        "trained,0.7917,0.5953,0.9076,0.7917,0.7917,0.7917",
    ]
