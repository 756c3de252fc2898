"""Whether the last run still lives does not depend on the wall clock, and a damaged note is one error."""

import os
from pathlib import Path
from uuid import uuid4

import psutil
import pytest

from apprentice.errors import ApprenticeError
from apprentice.processes.children import start_time
from apprentice.records.files import read_json, write_json
from flows.killed import read_note, settle_last_run


def test_a_live_run_is_known_after_a_step_of_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    note, run = tmp_path / "note.json", str(uuid4())
    settle_last_run(run, note)
    before, boot = psutil.Process().create_time(), psutil.boot_time()
    monkeypatch.setattr(psutil._pslinux, "boot_time", lambda: boot + 3600.0)  # what the kernel tells once the clock was set an hour on
    assert psutil.Process().create_time() != before  # so the time of a process's start does not tell it
    last = read_note(note)
    assert last and last.alive and str(last.run) == run


@pytest.mark.parametrize("born", ["", "another-boot/1", start_time(os.getpid()) + "1"], ids=["none", "another boot", "another process"])
def test_a_run_whose_process_id_was_given_to_another_is_not_alive(tmp_path: Path, born: str):
    note = tmp_path / "note.json"
    write_json(note, {"run": str(uuid4()), "pid": os.getpid(), "born": born})
    assert not read_note(note).alive


@pytest.mark.parametrize("damage", ["", "{", "[]", "{}", '{"run": "x", "pid": 1, "born": ""}', '{"run": null, "pid": 1}', "\0\0\0"])
def test_a_damaged_note_is_one_error_with_the_file_and_the_command(tmp_path: Path, damage: str):
    note = tmp_path / "flow-run.json"
    note.write_text(damage)
    with pytest.raises(ApprenticeError, match=f"rm {note}"):
        settle_last_run(str(uuid4()), note)
    assert note.read_text() == damage


def test_the_note_holds_what_the_kernel_says_of_this_process(tmp_path: Path):
    settle_last_run(str(uuid4()), tmp_path / "note.json")
    assert read_json(tmp_path / "note.json")["born"] == start_time(os.getpid()) != ""
