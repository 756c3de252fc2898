"""A variation of a pipeline as a DVC experiment: one line of params.yaml differs."""

import subprocess
from pathlib import Path

import pytest

from apprentice.config import load_pipeline
from tests.fake_project import run


@pytest.mark.slow
def test_an_override_then_an_experiment_changes_one_line_and_leaves_the_other_pipelines_alone(project: Path):
    committed(project)
    assert run(project, "-m", "apprentice", "set", "quick", "data.seed=7").stdout.strip() == "params.yaml: pipelines.quick.data.seed: 0 -> 7"
    done = run(project, "-m", "dvc", "exp", "run", "--name", "seed-7", "prepare@quick")
    assert done.returncode == 0, done.stdout + done.stderr
    assert git(project, "diff", "--numstat", "HEAD", "--", "params.yaml").split()[:2] == ["1", "1"]
    assert load_pipeline("quick", project / "params.yaml").data.seed == 7
    assert "seed-7" in run(project, "-m", "dvc", "exp", "list", "--name-only").stdout


@pytest.mark.slow
def test_what_dvc_was_told_to_write_is_refused_before_the_stage_does_anything(project: Path):
    committed(project)
    done = run(project, "-m", "dvc", "exp", "run", "-S", "pipelines.quick.data.seed=-1", "prepare@quick")
    assert done.returncode != 0 and "pipeline 'quick': data.seed: input should be greater than or equal to 0, not -1" in done.stdout + done.stderr
    assert not (project / "data/quick/raw").exists() and not (project / "dvc.lock").exists()


def committed(project: Path) -> None:
    git(project, "add", "--all")
    git(project, "-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "--quiet", "--message", "start")


def git(project: Path, *command: str) -> str:
    return subprocess.run(["git", *command], cwd=project, check=True, capture_output=True, text=True).stdout
