"""The seam: every use case has a measure, and every consumer finds in it what it shows."""

from pathlib import Path

import pytest
from evaluated import episode, errand, run_errand, task

from apprentice.config import load_pipeline, pipeline_names
from apprentice.evaluation.comparison import AGENTS, DIFFERENCES, SAMPLED
from apprentice.evaluation.measures import measure_of
from apprentice.usecases.assistant.metrics.goals import MEASURE as ASSISTANT
from apprentice.usecases.deepsearch.metrics.measure import MEASURE as DEEPSEARCH

PARAMS = Path(__file__).parents[2] / "params.yaml"
MEASURES = {"deepsearch": DEEPSEARCH, "assistant": ASSISTANT}


@pytest.mark.parametrize("pipeline", pipeline_names(PARAMS))
def test_every_pipeline_has_the_measure_of_its_use_case(pipeline):
    config = load_pipeline(pipeline, PARAMS)
    assert measure_of(config) is MEASURES[config.environment.use]


def test_the_words_name_the_algorithm_that_was_used():
    config = load_pipeline("quick", PARAMS)
    assert measure_of(config).conditions["trained"] == "Agent after PPO"
    other = config.model_copy(update={"train": config.train.model_copy(update={"objective": "gspo"})})
    assert measure_of(other).conditions["trained"] == "Agent after GSPO"


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
def test_a_measure_has_what_is_shared_and_its_words(measure):
    compared = {name for pair in DIFFERENCES.values() for name in pair}
    assert {*AGENTS, *SAMPLED, *compared} <= set(measure.conditions)
    assert {*measure.shares, *measure.drawn} <= set(measure.behaviour)
    assert "n" in measure.counts


def test_an_episode_reached_its_goal_where_the_main_figure_is_one():
    assert DEEPSEARCH.solved(task(0), episode("t0", "Oslo")) and not DEEPSEARCH.solved(task(0), episode("t0", "In Oslo"))
    assert ASSISTANT.solved(errand("a"), run_errand(errand("a"), solved=True)) and not ASSISTANT.solved(errand("a"), run_errand(errand("a"), solved=False))


def test_a_task_belongs_to_one_set():
    for split, key in (("variants", "heldout_variants"), ("dev", "heldout_scenarios")):
        assert [held_out.key for held_out in ASSISTANT.sets if held_out.holds(errand("a", split=split))] == [key]
    assert [held_out.key for held_out in DEEPSEARCH.sets if held_out.holds(task(0))] == [""]
