"""A checkpoint is whole or ignored."""

import errno

import pytest

from apprentice.errors import ApprenticeError
from apprentice.learning.checkpoint import CheckpointStore


def writes(text):
    return lambda folder: (folder / "weights").write_text(text)


def test_the_latest_checkpoint_comes_back_and_older_ones_go(tmp_path):
    store = CheckpointStore(tmp_path, keep=2)
    for step in (1, 2, 10):
        store.save(step, writes(f"weights {step}"), {"step": step})
    folder, state = store.latest()
    assert state == {"step": 10}
    assert (folder / "weights").read_text() == "weights 10"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000002", "00000010"]


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
