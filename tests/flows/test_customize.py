"""The flow `customize`: what it runs, how it reports failures, and that it leaves no process behind."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from apprentice.config import load_pipeline
from apprentice.config.locks import only_run
from apprentice.processes.children import descendants
from tests.fake_project import environment, run

ROOT = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 150.0


def started(project: Path, log: Path) -> subprocess.Popen:
    """Start the flow and return it while a long stage is running."""
    with log.open("w") as file:
        command = [sys.executable, "-m", "flows", "quick"]
        flow = subprocess.Popen(
            command, cwd=project, env=environment(project, FAKE_SECONDS="100"), stdout=file, stderr=file, start_new_session=True, preexec_fn=hear_interrupts
        )
    deadline = time.monotonic() + START_TIMEOUT_S
    events = project / ".apprentice" / "quick" / "events.jsonl"
    while not events.exists():
        assert time.monotonic() < deadline and flow.poll() is None, log.read_text()
        time.sleep(0.1)
    return flow


def hear_interrupts() -> None:
    """Undo the SIGINT disposition of a shell without job control, whose background processes ignore that signal."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def left(tree: list[int]) -> list[int]:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and any(Path(f"/proc/{pid}").exists() for pid in tree):
        time.sleep(0.1)
    return [pid for pid in tree if Path(f"/proc/{pid}").exists()]


@pytest.mark.slow
def test_a_run_ends_with_the_summary_even_if_tracking_fails_and_the_next_has_nothing_to_do(project: Path):
    first = run(project, "-m", "flows", "quick", "train.seed=5")
    assert first.returncode == 0, first.stdout + first.stderr
    assert "pipelines.quick.train.seed: 0 -> 5" in first.stdout
    assert "(e) after PPO" in first.stdout and "(e) - (d)" in first.stdout and "Prefect run" in first.stdout
    assert "GiB of peak memory" in " ".join(first.stdout.split())
    second = run(project, "-m", "flows", "quick")
    assert second.returncode == 0 and "everything is up to date" in second.stdout
    untracked = run(project, "-m", "flows", "quick", FAKE_TRACKING="user")
    assert untracked.returncode == 2 and "(e) after PPO" in untracked.stdout and "Traceback" not in untracked.stdout + untracked.stderr
    assert untracked.stderr.strip().endswith("error: mlflow.db: the results are complete, but MLflow could not store them\n  What to do: mend it")


@pytest.mark.slow
def test_a_transient_fault_is_retried(project: Path):
    done = run(project, "-m", "flows", "quick", FAKE_ROLLOUT="once")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "fault: the policy server is gone" in done.stdout


@pytest.mark.slow
def test_a_user_error_is_printed_last(project: Path):
    done = run(project, "-m", "flows", "quick", FAKE_PREPARE="user")
    assert done.returncode == 2
    assert done.stderr.strip().endswith("error: data.source: is not set\n  What to do: set data.source=<folder>")
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.slow
def test_an_unusable_model_is_one_error_before_any_stage_starts_and_is_not_retried(project: Path):
    done = run(project, "-m", "flows", "quick", FAKE_MODEL="user")
    assert done.returncode == 2 and "retry" not in (done.stdout + done.stderr).lower()
    assert done.stderr.strip().endswith("error: model.safetensors: is truncated\n  What to do: copy the folder anew")
    assert not (project / "data").exists()


@pytest.mark.slow
def test_ctrl_c_stops_everything_and_says_how_to_continue(project: Path, tmp_path: Path):
    flow = started(project, tmp_path / "flow.log")
    tree = descendants(flow.pid)
    os.killpg(flow.pid, signal.SIGINT)
    assert flow.wait(60) == 130
    assert (tmp_path / "flow.log").read_text().strip().endswith("Stopped. `make run PIPELINE=quick` continues from here.")
    assert not left(tree)


@pytest.mark.slow
def test_sigkill_leaves_nothing_behind_and_the_next_run_tells_prefect(project: Path, tmp_path: Path):
    flow = started(project, tmp_path / "flow.log")
    tree = descendants(flow.pid)
    assert len(tree) >= 5
    refused_without_a_change(project)
    flow.kill()
    flow.wait()
    assert not left(tree)
    assert states(project) == ["RUNNING"]
    assert run(project, "-m", "flows", "quick").returncode == 0
    assert states(project) == ["COMPLETED", "CRASHED"]


def test_a_second_run_in_the_folder_is_refused_before_params_yaml_is_touched(project: Path):
    with only_run(project):
        refused_without_a_change(project)
        by_hand = run(project, "-m", "apprentice", "set", "quick", "train.seed=5")
        assert by_hand.returncode == 2 and "another run works in this folder" in by_hand.stderr


def refused_without_a_change(project: Path) -> None:
    before = (project / "params.yaml").read_bytes()
    second = run(project, "-m", "flows", "quick", "train.seed=5")
    assert second.returncode == 2 and "another run works in this folder; nothing was changed" in second.stderr, second.stderr
    assert "starting Prefect" not in second.stdout and (project / "params.yaml").read_bytes() == before


def states(project: Path) -> list[str]:
    """Return the states of all flow runs in Prefect's database."""
    with sqlite3.connect(project / ".apprentice" / "prefect" / "prefect.db") as database:
        return sorted(state for (state,) in database.execute("select state_type from flow_run"))


@pytest.mark.parametrize("arguments", [["quik"], ["quick", "train.sed=3"]])
def test_bad_arguments_are_refused_before_anything_is_started(project: Path, arguments: list[str]):
    done = run(project, "-m", "flows", *arguments)
    assert done.returncode == 2 and "did you mean" in done.stderr
    assert not (project / ".apprentice").exists()


@pytest.mark.parametrize(
    ("distill", "changed", "needed"),
    [
        ("expert", ("evaluate",), True),
        ("expert", ("prepare", "validate", "distill"), False),
        ("rejection", ("distill",), True),
        ("expert", (), False),
    ],
)
def test_the_policy_server_is_started_only_for_stages_that_use_it(distill: str, changed: tuple[str, ...], needed: bool):
    from flows.customize import needs_policy_server

    config = load_pipeline("quick", ROOT / "params.yaml")
    policy = config.policy.model_copy(update={"engine": "vllm"})
    config = config.model_copy(update={"distill": config.distill.model_copy(update={"source": distill}), "policy": policy})
    assert needs_policy_server(config, changed) is needed
