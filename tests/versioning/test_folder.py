"""A folder in which DVC cannot work is one error that names the file and the command that repairs it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from apprentice.errors import ApprenticeError
from apprentice.location import REFUSED, check_location
from apprentice.versioning.dvc import recorded_parameters
from apprentice.versioning.folder import RWLOCK, check_folder, check_rwlock, read_lock
from tests.fake_project import environment, make_project

GONE = 2**22 + 1
"""A process id that Linux never assigns."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").touch()
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    return tmp_path


def rwlock(folder: Path, *pids: int) -> None:
    (folder / RWLOCK).parent.mkdir(parents=True, exist_ok=True)
    infos = [{"pid": pid, "cmd": "dvc repro train@quick"} for pid in pids]
    (folder / RWLOCK).write_text(json.dumps({"write": {"models/x": infos[0]}, "read": {"data/x": infos[1:]}}))


@contextmanager
def sleeping(*arguments: str) -> Iterator[subprocess.Popen]:
    """A process with these arguments, ended with the block."""
    with subprocess.Popen([sys.executable, "-c", "import time; print(flush=True); time.sleep(600)", *arguments], stdout=subprocess.PIPE) as process:
        try:
            process.stdout.readline()  # before it runs, its command line may be empty
            yield process
        finally:
            process.kill()


def test_a_valid_folder_passes(folder: Path):
    (folder / "dvc.lock").write_text("schema: '2.0'\nstages:\n  a@quick:\n    cmd: x\n")
    rwlock(folder, GONE)
    check_folder(folder)  # DVC drops the lock of a process that has ended
    assert read_lock(folder) == {"a@quick": {"cmd": "x"}}


def test_a_folder_below_a_git_repository_passes(folder: Path):
    (folder / ".git").rename(folder.parent / ".git")
    check_folder(folder)
    (folder.parent / ".git").rmdir()


def test_without_git_it_says_which_command_makes_a_repository(tmp_path: Path):
    with pytest.raises(ApprenticeError, match="What to do: git init"):
        check_folder(tmp_path)


MERGE = "schema: '2.0'\nstages:\n<<<<<<< HEAD\n  a: {cmd: x}\n=======\n  a: {cmd: y}\n>>>>>>> other\n"


@pytest.mark.parametrize(
    ("text", "line", "command"),
    [
        (MERGE, ":3", "git checkout --ours "),
        ("schema: '2.0'\nstages:\n  a: {cmd: x\n", ":4", "rm dvc.lock"),
        ("schema: '2.0'\nstages:\n  a: x\n", "", "rm dvc.lock"),
        ("[1, 2]", "", "rm dvc.lock"),
        ("stages:\n", "", "rm dvc.lock"),
        ("\0\0", "", "rm dvc.lock"),
    ],
)
def test_a_damaged_lock_file_is_named_with_its_line_and_the_command(folder: Path, text: str, line: str, command: str):
    (folder / "dvc.lock").write_text(text)
    with pytest.raises(ApprenticeError) as refused:
        check_folder(folder)
    assert str(refused.value).startswith(f"{folder / 'dvc.lock'}{line}: ") and command in str(refused.value)


@pytest.mark.parametrize("name", ["dvc.yaml", ".dvc/config"])
def test_an_unfinished_merge_of_the_other_files_is_named_too(folder: Path, name: str):
    (folder / name).write_text(MERGE)
    with pytest.raises(ApprenticeError, match="unfinished merge") as refused:
        check_folder(folder)
    assert str(refused.value).startswith(f"{folder / name}:3: ") and f"git checkout --ours {folder / name}" in str(refused.value)


@pytest.mark.parametrize("damage", ["", "stages: [", "stages: []"])
def test_a_stage_run_on_its_own_tells_a_damaged_dvc_yaml(folder: Path, damage: str):
    (folder / "dvc.yaml").write_text(damage)
    with pytest.raises(ApprenticeError, match=r"git checkout -- dvc\.yaml"):
        recorded_parameters("train", "quick", folder)


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"write": 3}', '{"read": {"x": [{"pid": 1}]}}', '{"write": {"x": {"pid": "1", "cmd": ""}}}'])
def test_damaged_locks_of_dvc_are_named_with_the_command(folder: Path, damage: str):
    rwlock(folder, GONE)
    (folder / RWLOCK).write_text(damage)
    with pytest.raises(ApprenticeError, match=f"rm {folder / RWLOCK}"):
        check_folder(folder)


def test_a_lock_whose_process_id_another_program_has_now_is_named_with_the_command(folder: Path):
    with sleeping(str(folder / "dvc" / "project")) as other:
        rwlock(folder, GONE, GONE, other.pid)
        with pytest.raises(ApprenticeError, match=f"process id {other.pid} now belongs to `{sys.executable} ") as refused:
            check_rwlock(folder)
    assert f"rm {folder / RWLOCK}" in str(refused.value)
    check_rwlock(folder)


def test_a_lock_of_a_dead_process_that_nobody_waited_for_is_named_with_the_command(folder: Path):
    """As in a container whose first process does not reap; DVC takes such a process for a living one."""
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        os.waitid(os.P_PID, dead.pid, os.WEXITED | os.WNOWAIT)
        rwlock(folder, dead.pid)
        with pytest.raises(ApprenticeError, match=rf"process id {dead.pid} now belongs to `\["):
            check_rwlock(folder)


def test_a_lock_that_dvc_holds_is_waited_for(folder: Path):
    with sleeping("dvc", "repro") as dvc:
        rwlock(folder, dvc.pid)
        check_rwlock(folder)


@pytest.mark.parametrize("character", REFUSED)
def test_a_path_that_tools_would_misread_is_refused_by_its_character(tmp_path: Path, character: str):
    folder = tmp_path / f"a{character}b" / "project"
    folder.mkdir(parents=True)
    with pytest.raises(ApprenticeError, match="the path of the project contains") as refused:
        check_location(folder)
    assert repr(character) in str(refused.value)


def test_blanks_other_marks_and_letters_of_any_script_are_accepted(tmp_path: Path):
    (tmp_path / "Ähre #1 und 50% 你好").mkdir()
    check_location(tmp_path / "Ähre #1 und 50% 你好")


@pytest.mark.parametrize("hindrance", ["no git", "merge", "path"])
def test_a_run_tells_at_once(tmp_path: Path, hindrance: str):
    folder = tmp_path / ("a?b" if hindrance == "path" else "project")
    folder.mkdir()
    make_project(folder)
    if hindrance == "no git":
        (folder / ".git").rename(tmp_path / "moved")
    if hindrance == "merge":
        (folder / "dvc.lock").write_text(MERGE)
    params = (folder / "params.yaml").read_bytes()
    command = [sys.executable, "-m", "flows", "quick", "train.seed=3"]
    done = subprocess.run(command, cwd=folder, env={**environment(folder), "PYTHONPATH": str(folder)}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 2, done.stderr
    assert (folder / "params.yaml").read_bytes() == params and not (folder / ".apprentice").exists()
    assert os.listdir(folder / ".dvc") == ["config"]
