"""evaluation.json: its stable keys, and what stands in them."""

import csv
import json

import pytest
from evaluated import evaluated_project

from apprentice.evaluation.comparison import CONDITIONS, DIFFERENCES, SAMPLED, compare
from apprentice.evaluation.measures import DEEPSEARCH

SCORE_KEYS, DIFFERENCE_KEYS = {"em", "cover_em", "f1", "n", "em_ci95"}, {"em", "em_ci95", "p"}


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    return evaluated_project(tmp_path_factory.mktemp("project"))


def test_stable_keys(evaluated):
    figures = evaluated[-1]
    assert all(figures[name].keys() == SCORE_KEYS for name in CONDITIONS)
    assert all(figures[name].keys() == DIFFERENCE_KEYS for name in DIFFERENCES)
    assert figures["sampled"].keys() == {*SAMPLED, "trained_minus_warm_start"}


def test_differences_are_those_of_the_means(evaluated):
    figures = evaluated[-1]
    for name, (after, before) in DIFFERENCES.items():
        assert figures[name]["em"] == pytest.approx(figures[after]["em"] - figures[before]["em"], abs=2e-4)
        assert figures[name]["em_ci95"][0] > 0


def test_the_same_episodes_give_the_same_file(evaluated):
    config, _, tasks, episodes, figures = evaluated
    again = compare(tasks, episodes, config.evaluate, dict.fromkeys(CONDITIONS, 1.0))
    assert json.dumps(again) == json.dumps(figures)


def test_without_sampled_episodes_nothing_is_made_up(evaluated):
    config, _, tasks, episodes, _ = evaluated
    figures = compare(tasks, episodes, config.evaluate.model_copy(update={"samples": 0}), dict.fromkeys(CONDITIONS, 1.0))
    assert figures["sampled"] == {}


def test_the_csv_has_a_row_a_condition(evaluated):
    rows = list(csv.DictReader(DEEPSEARCH.curve_rows(evaluated[-1]).splitlines()))
    assert [row["condition"] for row in rows] == list(CONDITIONS)
    assert float(rows[-1]["low"]) <= float(rows[-1]["score"]) <= float(rows[-1]["high"])
