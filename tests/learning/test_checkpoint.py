"""A checkpoint is either complete or ignored."""

import errno
import random
import shutil
import subprocess
from dataclasses import replace

import pytest
import torch
from learning.toys import files_at_most, trajectories
from safetensors.torch import save_file

from apprentice.errors import ApprenticeError
from apprentice.learning.checkpoint import CheckpointStore
from apprentice.records.files import write_errors, write_text
from apprentice.records.tables import write_trajectories

HALF_MIB = 2**19
WEIGHTS = {"weight": torch.zeros(2 * HALF_MIB // 4)}
"""1 MiB."""
WRITERS = {
    "torch": lambda folder: torch.save(WEIGHTS, folder / "weights.pt"),
    "safetensors": lambda folder: save_file(WEIGHTS, folder / "weights.safetensors"),
    "python": lambda folder: (folder / "weights.bin").write_bytes(bytes(2 * HALF_MIB)),
}


def writes(text):
    return lambda folder: (folder / "weights").write_text(text)


def test_the_latest_checkpoint_comes_back_and_older_ones_go(tmp_path):
    store = CheckpointStore(tmp_path)
    for step in (1, 2, 10):
        store.save(step, writes(f"weights {step}"), {"step": step})
    folder, state = store.latest()
    assert state == {"step": 10}
    assert (folder / "weights").read_text() == "weights 10"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000010"]


def test_a_full_disk_is_one_clear_error_and_the_previous_checkpoint_stays(tmp_path):
    def fails(folder):
        (folder / "weights").write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    store = CheckpointStore(tmp_path)
    store.save(1, writes("whole"), {"step": 1})
    with pytest.raises(ApprenticeError, match="No space left"):
        store.save(2, fails, {"step": 2})
    assert store.latest()[1] == {"step": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["00000001"]


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_whoever_writes_a_failed_write_is_one_error_with_need_and_free_space(tmp_path, write):
    store = CheckpointStore(tmp_path)
    with files_at_most(HALF_MIB), pytest.raises(ApprenticeError, match="free some disk space") as raised:
        store.save(1, write, {"step": 1})
    message = str(raised.value)
    start = f"{tmp_path / '00000001'}: could not be written: "
    assert message.startswith((f"{start}File too large", f"{start}a write failed; "))
    assert "it needs more than the" in message and "are free" in message
    assert not list(tmp_path.iterdir())
    store.save(2, write, {"step": 2})
    assert store.latest()[1] == {"step": 2}


def test_another_error_of_the_writer_is_not_taken_for_a_full_disk(tmp_path):
    def fails(folder):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(RuntimeError, match="illegal memory access"):
        CheckpointStore(tmp_path).save(1, fails, {"step": 1})
    assert not list(tmp_path.iterdir())


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 4 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(folder)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("mounting a disk of its own takes root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_disk_without_room_for_another_checkpoint_is_told_before_it_is_written(small_disk):
    store = CheckpointStore(small_disk)
    store.save(1, WRITERS["torch"], {"step": 1})
    (small_disk / "other").write_bytes(bytes(shutil.disk_usage(small_disk).free - HALF_MIB))
    with pytest.raises(ApprenticeError, match=r"00000002: needs 1.0 MiB of disk space, and 0.5 MiB are free") as raised:
        store.save(2, lambda folder: pytest.fail("written"), {"step": 2})
    assert "it continues from the previous checkpoint" in str(raised.value)
    (small_disk / "other").unlink()
    store.save(2, WRITERS["torch"], {"step": 2})
    assert store.latest()[1] == {"step": 2}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_disk_that_fills_up_leaves_nothing_half_written(small_disk, write):
    (small_disk / "other").write_bytes(bytes(shutil.disk_usage(small_disk).free - HALF_MIB))
    with pytest.raises(ApprenticeError, match=r"could not be written: .*; it needs more than the 0.\d MiB written, and 0.5 MiB are free|0.0 MiB are free"):
        CheckpointStore(small_disk / "checkpoints").save(1, write, {"step": 1})
    assert not list((small_disk / "checkpoints").iterdir())


def test_a_file_that_cannot_be_written_keeps_the_old_one(tmp_path):
    path = tmp_path / "metrics.json"
    write_text(path, "old")
    with files_at_most(HALF_MIB), pytest.raises(ApprenticeError, match=r"metrics.json: could not be written: File too large"):
        write_text(path, "x" * 2 * HALF_MIB)
    assert path.read_text() == "old" and [file.name for file in tmp_path.iterdir()] == ["metrics.json"]
    (tmp_path / "file").write_text("")
    with pytest.raises(ApprenticeError, match="could not be written: .*(exists|directory)"):
        write_text(tmp_path / "file" / "metrics.json", "x")


def test_trajectories_that_cannot_be_written_leave_nothing(tmp_path):
    long = replace(trajectories(1)[0], answer=random.Random(0).randbytes(2 * HALF_MIB).hex())
    with files_at_most(HALF_MIB), pytest.raises(ApprenticeError, match=r"trained.parquet: could not be written: .*File too large.*are free"):
        write_trajectories(tmp_path / "trained.parquet", [long])
    assert not list(tmp_path.iterdir())


def test_more_than_the_disk_has_is_refused_at_once(tmp_path):
    with pytest.raises(ApprenticeError, match=r"needs 1073741824.0 GiB of disk space"), write_errors(tmp_path / "policy", tmp_path / "policy.part", need=2**60):
        pytest.fail("begun")


def test_half_written_checkpoints_are_ignored_and_removed(tmp_path):
    store = CheckpointStore(tmp_path)
    store.save(1, writes("whole"), {"step": 1})
    (tmp_path / "00000002.tmp").mkdir()
    (tmp_path / "00000003").mkdir()
    (tmp_path / "00000003" / "weights").write_text("without a marker")
    assert store.latest()[1] == {"step": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["00000001"]


def test_without_a_checkpoint_there_is_none(tmp_path):
    assert CheckpointStore(tmp_path / "absent").latest() is None
