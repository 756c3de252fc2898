"""The assistant's whole chain on a tiny random model, with real worlds and judgements."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import make_tiny_checkpoint

from apprentice.config import Layout, set_overrides
from apprentice.processes.limits import SHARING_CORES
from apprentice.records.tables import read_tasks, read_trajectories

ROOT = Path(__file__).resolve().parents[3]
LEARN = (
    "environment.skills=true environment.max_tokens=9000 environment.max_turn_tokens=1500 policy.max_context=9000 "
    "distill.traces=2 distill.epochs=1 distill.batch=2"
).split()
ACT = (
    "environment.max_turns=2 environment.max_turn_tokens=24 policy.engine=transformers filter.candidates=2 filter.probes=2 filter.keep=2 "
    "rollout.tasks=1 rollout.attempts=2 train.steps=1 train.tasks_per_step=1 train.attempts=2 evaluate.tasks=3 "
    "train.sequential_rollout=true"
).split()

SCRIPT = """
import importlib, sys
from apprentice.config import Layout, load_pipeline
from apprentice.records.events import Progress

for stage in sys.argv[1:]:
    config, layout = load_pipeline("assistant"), Layout("assistant")
    importlib.import_module(f"apprentice.stages.{stage}").run(config, layout, Progress(layout.events, stage))
"""


@pytest.fixture(scope="module")
def project(appworld_root: Path, client, tmp_path_factory) -> Path:
    """A project in which every stage has run. The model never solves a task; its expert does."""
    folder = tmp_path_factory.mktemp("project")
    (folder / ".venv-appworld").symlink_to(ROOT / ".venv-appworld")
    shutil.copy(ROOT / "params.yaml", folder)
    params, model = folder / "params.yaml", make_tiny_checkpoint(folder / "tiny")
    set_overrides("assistant", [*LEARN, f"model.name={model}", f"data.source={appworld_root}"], params)
    run_stages(folder, "prepare", "validate", "distill")
    set_overrides("assistant", ACT, params)
    run_stages(folder, "filter", "rollout", "train", "evaluate")
    return folder


def run_stages(folder: Path, *stages: str) -> None:
    """Run stages in one process, because imports would take most of each stage's time."""
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **SHARING_CORES, "HF_HUB_OFFLINE": "1"}
    finished = subprocess.run([sys.executable, "-c", SCRIPT, *stages], cwd=folder, env=variables, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_experts_traces_were_executed_and_learned_from(project):
    assert json.loads(Layout("assistant", project).metrics("distill").read_text())["traces"] == 2


@pytest.mark.slow
def test_evaluation_tells_held_out_variants_from_held_out_scenarios(project):
    metrics = json.loads(Layout("assistant", project).metrics("evaluation").read_text())
    for condition in ("before", "warm_start", "trained"):
        for held_out in metrics[condition].values():
            assert {"tgc", "sgc", "n", "tgc_ci95"} <= held_out.keys() and held_out["tgc"] == 0.0
    assert sum(held_out["n"] for held_out in metrics["trained"].values()) == 3
    assert Layout("assistant", project).report.read_text().startswith("<!doctype html>")


@pytest.mark.slow
def test_only_training_variants_are_learned_from(project):
    layout = Layout("assistant", project)
    assert {task.split for task in read_tasks(layout.curriculum)} == {"train"}
    assert all(trajectory.outcome in ("failure", "truncated") for trajectory in read_trajectories(layout.rollouts))
