"""DVC: the changed stages, the run of one stage with its failures, and the recorded hashes."""

import time
from pathlib import Path

import pytest

from apprentice.config import activate, set_overrides
from apprentice.config.stages import STAGES
from apprentice.errors import ApprenticeError
from apprentice.processes.children import signal_of
from apprentice.versioning import StageFailed, StageRun, changed_stages, output_hash, output_hashes
from apprentice.versioning.dvc import failure_message
from tests.fake_project import environment, run

LOG = Path("train.log")


def reproduce(stage: str, project: Path) -> None:
    stage_run = StageRun(stage, "quick", project / "log", root=project).start()
    try:
        wait(stage_run)
    finally:
        stage_run.stop()


@pytest.fixture
def in_project(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in environment(project).items():
        monkeypatch.setenv(name, value)
    return project


@pytest.mark.slow
def test_only_what_changed_is_out_of_date(in_project: Path):
    assert changed_stages("quick", in_project) == tuple(STAGES)
    for stage in STAGES:
        reproduce(stage, in_project)
    assert changed_stages("quick", in_project) == ()
    assert "up to date" in run(in_project, "-m", "dvc", "repro").stdout
    set_overrides("quick", ["policy.port=9000", "policy.kv_cache_gib=3"], in_project / "params.yaml")
    assert changed_stages("quick", in_project) == ()
    set_overrides("quick", ["train.seed=3"], in_project / "params.yaml")
    assert changed_stages("quick", in_project) == ("train", "evaluate")
    activate("nq", in_project / "params.yaml")
    assert changed_stages("nq", in_project) == tuple(STAGES)
    assert changed_stages("quick", in_project) == ("train", "evaluate")


@pytest.mark.parametrize(("before", "after", "recorded"), [("seed: 0, train: 400", "seed: 1, train: 400", False), ("port: 8111", "port: 9000", True)])
def test_a_stage_whose_parameters_changed_while_it_ran_fails_and_is_not_recorded(
    in_project: Path, monkeypatch: pytest.MonkeyPatch, before: str, after: str, recorded: bool
):
    monkeypatch.setenv("FAKE_SECONDS", "1")
    params = in_project / "params.yaml"
    text = params.read_text().replace("format: organisation, train: 400", "format: organisation, seed: 0, train: 400")
    params.write_text(text)
    stage_run = StageRun("prepare", "quick", in_project / "log", root=in_project).start()
    try:
        while not (in_project / ".apprentice/quick/events.jsonl").exists():
            assert stage_run.running()
            time.sleep(0.05)
        with pytest.raises(ApprenticeError, match="a stage is running"):
            set_overrides("quick", ["data.seed=1"], params)
        params.write_text(text.replace(before, after))
        if recorded:
            wait(stage_run)
        else:
            with pytest.raises(StageFailed, match=r"params.yaml: pipelines.quick.data changed while the stage prepare ran") as failure:
                wait(stage_run)
            assert failure.value.code == 2
    finally:
        stage_run.stop()
    assert ("data/quick/raw" in output_hashes("quick", in_project)) is recorded


def wait(stage_run: StageRun) -> None:
    while stage_run.running():
        time.sleep(0.05)


@pytest.mark.slow
def test_hashes_equal_those_in_the_lock_file(in_project: Path):
    reproduce("prepare", in_project)
    assert output_hash(Path("data/quick/raw"), "quick", in_project) == output_hashes("quick", in_project)["data/quick/raw"]
    assert output_hashes("nq", in_project) == {}


def test_a_missing_hash_says_how_to_get_it(tmp_path: Path):
    with pytest.raises(ApprenticeError, match="make run PIPELINE=quick"):
        output_hash(Path("models/quick/policy"), "quick", tmp_path)


@pytest.mark.parametrize(("fault", "code", "message"), [("user", 2, "error: data.source: is not set"), ("crash", 1, "boom")])
def test_a_failing_stage_tells_its_exit_code_and_its_own_message(in_project: Path, monkeypatch: pytest.MonkeyPatch, fault: str, code: int, message: str):
    monkeypatch.setenv("FAKE_PREPARE", fault)
    with pytest.raises(StageFailed, match=message) as failure:
        reproduce("prepare", in_project)
    assert failure.value.code == code


def test_another_dvc_in_the_folder_is_named(tmp_path: Path):
    (tmp_path / "dvc.py").write_text("raise SystemExit('ERROR: Unable to acquire lock. Most likely another DVC process is running')\n")
    stage_run = StageRun("train", "quick", tmp_path / "log", root=tmp_path).start()
    with pytest.raises(ApprenticeError, match="another DVC process is running in this folder"):
        while stage_run.running():
            time.sleep(0.05)


def test_a_stages_own_message_is_shown_without_dvcs():
    text = "Running stage\nloading\nerror: corpus: is empty\n  What to do: add passages\nERROR: failed to reproduce 'train@quick'\n"
    assert failure_message(text, "train", LOG) == "error: corpus: is empty\n  What to do: add passages"


def test_the_last_line_of_a_crash_is_shown():
    text = "Running stage\nTraceback (most recent call last):\nValueError: boom\nERROR: failed to reproduce 'train@quick'\n"
    assert failure_message(text, "train", LOG) == f"error: stage train failed: ValueError: boom\n  What to do: read {LOG}"


@pytest.mark.parametrize("ended_by", ["9", "15"])
def test_a_killed_stage_says_so(in_project: Path, monkeypatch: pytest.MonkeyPatch, ended_by: str):
    """Which code DVC sees depends on its shell: one that stays beside the command answers 128 and the signal, one that becomes it dies of the signal."""
    monkeypatch.setenv("FAKE_PREPARE", f"kill {ended_by}")
    with pytest.raises(StageFailed, match=f"stage prepare was killed by signal {ended_by}") as failure:
        reproduce("prepare", in_project)
    assert signal_of(failure.value.code) == int(ended_by) and ("out of memory?" in str(failure.value)) == (ended_by == "9")


@pytest.mark.parametrize(("code", "signal"), [(-9, 9), (137, 9), (139, 11), (1, 0), (2, 0), (255, 0), (128, 0)])
def test_signals_are_told_from_exit_codes(code: int, signal: int):
    assert signal_of(code) == signal


def test_a_silent_failure_points_to_the_log():
    assert "it printed nothing" in failure_message("", "train", LOG)


def test_dvcs_own_complaint_is_shown_where_no_stage_ran():
    assert "output 'x' already exists" in failure_message("ERROR: output 'x' already exists\n", "train", LOG)


def test_hashes_are_read_by_pipeline(tmp_path: Path):
    (tmp_path / "dvc.lock").write_text("schema: '2.0'\nstages:\n  prepare@quick:\n    outs:\n    - path: data/quick/raw\n      md5: abc.dir\n")
    assert output_hashes("quick", tmp_path) == {"data/quick/raw": "abc.dir"}
