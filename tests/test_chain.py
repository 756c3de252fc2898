"""The whole chain, stage by stage as DVC runs it, on a tiny random model with the Transformers engine."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny import make_tiny_checkpoint

from apprentice.config import Layout, set_overrides
from apprentice.config.stages import STAGES
from apprentice.records.tables import read_tasks, read_trajectories

ROOT = Path(__file__).parents[1]
OVERRIDES = (
    "policy.engine=transformers policy.max_context=2048 policy.max_sequences=64 "
    "environment.max_tokens=1600 environment.max_turn_tokens=64 environment.max_turns=2 "
    "data.train=24 data.dev=6 distill.traces=4 distill.batch=2 filter.candidates=4 filter.probes=2 filter.keep=4 rollout.tasks=2 rollout.attempts=2 "
    "train.steps=3 train.tasks_per_step=2 train.attempts=2 train.checkpoint_every=1 evaluate.tasks=4"
).split()


def run_stage(stage: str, project: Path) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", f"apprentice.stages.{stage}", "quick"], cwd=project, env=environment(), capture_output=True, text=True)


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A project in which every stage has run."""
    folder = tmp_path_factory.mktemp("project")
    model = make_tiny_checkpoint(folder / "tiny")
    shutil.copy(ROOT / "params.yaml", folder)
    set_overrides("quick", [*OVERRIDES, f"model.name={model}"], folder / "params.yaml")
    for stage in STAGES:
        finished = run_stage(stage, folder)
        assert finished.returncode == 0, f"{stage}: {finished.stderr[-3000:]}"
    return folder


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_stage_writes_its_metrics(project):
    reports = Layout("quick", project).reports
    names = ("validation", "distill", "difficulty", "rollout", "training", "evaluation")
    assert [name for name in names if not json.loads((reports / f"{name}.json").read_text())] == []


@pytest.mark.slow
def test_evaluation_has_the_stable_keys(project):
    metrics = json.loads(Layout("quick", project).metrics("evaluation").read_text())
    for condition in ("base_closed_book", "base_rag", "before", "warm_start", "trained"):
        assert {"em", "cover_em", "f1", "n", "em_ci95"} <= metrics[condition].keys()
        assert metrics[condition]["n"] == 4
    for difference in ("trained_minus_before", "trained_minus_warm_start"):
        assert {"em", "em_ci95", "p", "n", "scenarios"} <= metrics[difference].keys()


@pytest.mark.slow
def test_no_held_out_task_is_trained_on(project):
    layout = Layout("quick", project)
    assert {task.split for task in read_tasks(layout.curriculum)} == {"train"}
    held_out = {task.scenario for task in read_tasks(layout.tasks, "dev")}
    assert held_out.isdisjoint(task.scenario for task in read_tasks(layout.curriculum))
    assert held_out.isdisjoint(trajectory.task_id for trajectory in read_trajectories(layout.rollouts))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_training_killed_in_the_middle_ends_bit_for_bit_as_if_it_had_not_been(project, tmp_path):
    weights = Path("models/quick/policy/model.safetensors")
    undisturbed = (project / weights).read_bytes()
    copy = tmp_path / "killed"
    shutil.copytree(project, copy)
    shutil.rmtree(copy / "models/quick/policy")
    process = subprocess.Popen([sys.executable, "-m", "apprentice.stages.train", "quick"], cwd=copy, env=environment(), stderr=subprocess.DEVNULL)
    while not list(copy.glob(".apprentice/quick/checkpoints/train-*/????????/state.json")):
        assert process.poll() is None, "training ended before its first checkpoint"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (copy / weights).exists()
    finished = run_stage("train", copy)
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert "continues from step" in (copy / ".apprentice/quick/events.jsonl").read_text()
    assert (copy / weights).read_bytes() == undisturbed
