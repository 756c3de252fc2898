"""A run whose process is gone is detected, even if its id is reused; a damaged record is one error."""

import os
from pathlib import Path
from uuid import uuid4

import pytest

from apprentice.errors import ApprenticeError
from apprentice.processes.children import start_time
from apprentice.records.files import read_json, write_json
from flows.crash_recovery import read_record, settle_last_run


def test_the_record_identifies_a_process_independently_of_the_wall_clock(tmp_path: Path):
    record, run = tmp_path / "record.json", str(uuid4())
    settle_last_run(run, record)
    ticks = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]  # counted from the boot
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert read_json(record)["born"] == f"{boot}/{ticks}"
    last = read_record(record)
    assert last and last.alive and str(last.run) == run


@pytest.mark.parametrize("born", ["", "another-boot/1", start_time(os.getpid()) + "1"], ids=["none", "another boot", "another process"])
def test_a_run_whose_process_id_now_belongs_to_another_process_is_not_alive(tmp_path: Path, born: str):
    record = tmp_path / "record.json"
    write_json(record, {"run": str(uuid4()), "pid": os.getpid(), "born": born})
    assert not read_record(record).alive


@pytest.mark.parametrize("damage", ["", "{", "[]", "{}", '{"run": "x", "pid": 1, "born": ""}', '{"run": null, "pid": 1}', "\0\0\0"])
def test_a_damaged_record_is_one_error_with_the_file_and_the_command(tmp_path: Path, damage: str):
    record = tmp_path / "flow-run.json"
    record.write_text(damage)
    with pytest.raises(ApprenticeError, match=f"rm {record}"):
        settle_last_run(str(uuid4()), record)
    assert record.read_text() == damage
