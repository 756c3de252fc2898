"""The stage evaluate on a tiny random model: five conditions, kept over an interruption."""

import json
from pathlib import Path

import pytest
from evaluated import task
from tiny import make_tiny_checkpoint

from apprentice.config import Layout, PipelineConfig, load_pipeline
from apprentice.errors import ApprenticeError
from apprentice.records import Passage
from apprentice.records.events import Progress
from apprentice.records.tables import read_trajectories, write_passages, write_tasks
from apprentice.stages.evaluate import held_out, run
from apprentice.usecases.deepsearch.metrics.measure import CONDITIONS


def small_config(base: Path, source: str) -> PipelineConfig:
    config = load_pipeline("quick", Path(__file__).parents[2] / "params.yaml")
    changes = {
        "model": {"name": str(base)},
        "policy": {"engine": "transformers", "max_context": 2048},
        "environment": {"max_tokens": 1600, "max_turn_tokens": 6, "max_turns": 2},
        "distill": {"source": source},
        "evaluate": {"tasks": 3},
    }
    return config.model_copy(update={name: getattr(config, name).model_copy(update=values) for name, values in changes.items()})


@pytest.fixture
def layout(tmp_path) -> Layout:
    layout = Layout("quick", tmp_path)
    for seed, folder in enumerate((layout.root / "base", layout.warm_start, layout.policy)):
        make_tiny_checkpoint(folder, seed=seed)
    write_tasks(layout.tasks, [task(number) for number in range(5)])
    write_passages(layout.corpus, [Passage(id="p", title="Ada", text="Ada works in Oslo.")])
    return layout


def phases(layout: Layout) -> list[str]:
    """The conditions that were simulated, once for every step of progress."""
    events = map(json.loads, layout.events.read_text().splitlines())
    return [event["phase"] for event in events if event["kind"] == "progress"]


def test_held_out_tasks_are_drawn_with_the_seed_and_keep_their_order():
    tasks = [task(number) for number in range(50)]
    chosen = held_out(tasks, 10, seed=1)
    assert len(chosen) == 10
    assert chosen == sorted(chosen, key=tasks.index) == held_out(tasks, 10, seed=1)
    assert chosen != held_out(tasks, 10, seed=2)
    assert held_out(tasks, 60, seed=1) == tasks


def test_no_held_out_task_is_one_clear_error(tmp_path):
    layout = Layout("quick", tmp_path)
    write_tasks(layout.tasks, [])
    with pytest.raises(ApprenticeError, match="no held-out task"):
        run(small_config(tmp_path, "expert"), layout, Progress(layout.events, "evaluate"))


@pytest.mark.slow
def test_an_interrupted_evaluation_simulates_nothing_twice(layout, monkeypatch):
    config, progress = small_config(layout.root / "base", "expert"), Progress(layout.events, "evaluate")
    with monkeypatch.context() as patch:
        patch.setattr("apprentice.evaluation.report.report_page", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(config, layout, progress)
    simulated = phases(layout)
    assert {phase.partition(",")[0] for phase in simulated} == set(CONDITIONS)
    run(config, layout, progress)
    assert phases(layout) == simulated
    assert sorted(path.name for path in layout.evaluations.iterdir()) == sorted(f"{name}.parquet" for name in CONDITIONS)
    assert layout.report.read_text().startswith("<!doctype html>")
    assert not (layout.runtime / "evaluation").exists()
    assert_seeds_are_shared(layout)


@pytest.mark.slow
def test_without_a_warm_start_the_base_agent_stands_in_for_it(layout):
    config = small_config(layout.root / "base", "none")
    run(config, layout, Progress(layout.events, "evaluate"))
    assert not [phase for phase in phases(layout) if phase.startswith("warm_start")]
    assert read_trajectories(layout.evaluations / "warm_start.parquet") == read_trajectories(layout.evaluations / "before.parquet")


def assert_seeds_are_shared(layout: Layout) -> None:
    """The same sample of the same task has the same seed under every condition, and no other."""
    seeds = {name: {(one.task_id, one.id, one.seed) for one in read_trajectories(layout.evaluations / f"{name}.parquet")} for name in CONDITIONS}
    assert len({seed for _, _, seed in seeds["trained"]}) == len(seeds["trained"]) == 6
    assert seeds["trained"] == seeds["warm_start"]
    assert seeds["before"] == seeds["base_rag"] == seeds["base_closed_book"] == {key for key in seeds["trained"] if key[1].startswith("greedy-")}


def interrupt(*_):
    raise KeyboardInterrupt
