"""A task whose first message is too long: the stages that play episodes finish, and report it."""

import json
from pathlib import Path

import pytest

from apprentice.config import Layout, load_pipeline
from apprentice.records import Passage, Task
from apprentice.records.events import Progress
from apprentice.records.tables import read_tasks, read_trajectories, write_passages, write_tasks
from apprentice.stages import distill, evaluate, filter, rollout
from tests.tiny import make_tiny_checkpoint

PARAMS = Path(__file__).parents[2] / "params.yaml"
PASSAGES = [Passage(id="p", title="Ada", text="Ada works in Oslo."), Passage(id="q", title="Word", text="Oslo " + "y" * 20_000)]


def task(id, split, instruction="Where does Ada work?"):
    return Task(id=id, scenario=id, split=split, instruction=f"{instruction} ({id})", answers=("Oslo",), plan=("Ada Oslo",))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_tiny_checkpoint(tmp_path_factory.mktemp("base"))


@pytest.fixture
def layout(tmp_path, base):
    layout = Layout("quick", tmp_path)
    for folder in (layout.warm_start, layout.policy):
        make_tiny_checkpoint(folder)
    splits = [(split, [task(f"{split}{n}", split) for n in range(2)] + [task(f"{split}-long", split, "x" * 50_000)]) for split in ("train", "dev")]
    write_tasks(layout.tasks, [one for _, tasks in splits for one in tasks])
    write_tasks(layout.curriculum, dict(splits)["train"])
    write_passages(layout.corpus, PASSAGES)
    return layout


@pytest.fixture
def config(base):
    config = load_pipeline("quick", PARAMS)
    changes = {
        "model": {"name": str(base)},
        "policy": {"engine": "transformers", "max_context": 2048},
        "environment": {"max_tokens": 1600, "max_turn_tokens": 40, "max_turns": 3},
        "filter": {"probes": 2},
        "rollout": {"attempts": 2},
        "evaluate": {"tasks": 3, "bootstrap": 50},
    }
    return config.model_copy(update={name: getattr(config, name).model_copy(update=values) for name, values in changes.items()})


def notes(layout):
    return [event.get("text", "") for event in map(json.loads, layout.events.read_text().splitlines())]


def test_distill_skips_it(config, layout):
    distill.run(config, layout, Progress(layout.events, "distill"))
    assert json.loads(layout.metrics("distill").read_text())["traces"] == 2


def test_filter_excludes_it_and_rollout_quarantines_it(config, layout):
    filter.run(config, layout, Progress(layout.events, "filter"))
    assert {kept.id for kept in read_tasks(layout.curriculum)} == {"train0", "train1"}
    assert any("1 tasks are left out, such as 'train-long': the first message takes 50" in note for note in notes(layout))

    write_tasks(layout.curriculum, read_tasks(layout.tasks, "train"))
    rollout.run(config, layout, Progress(layout.events, "rollout"))
    assert {trajectory.task_id for trajectory in read_trajectories(layout.rollouts)} == {"train0", "train1"}
    refused = [json.loads(line) for line in layout.rollout_quarantine.read_text().splitlines()]
    assert {row["task_id"] for row in refused} == {"train-long"} and "the first message takes 50" in refused[0]["problems"][0]


@pytest.mark.slow
def test_evaluate_counts_it_as_unsolved(config, layout):
    evaluate.run(config, layout, Progress(layout.events, "evaluate"))
    trained = read_trajectories(layout.evaluations / "trained.parquet")
    long = [trajectory for trajectory in trained if trajectory.task_id == "dev-long"]
    assert len(trained) == 6 and {(one.outcome, one.reward, one.turns) for one in long} == {("truncated", 0.0, ())}
    assert json.loads(layout.metrics("evaluation").read_text())["trained"]["n"] == 3 and layout.report.exists()
