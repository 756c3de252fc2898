"""File locks exclude other processes, may be shared, and end with their holder."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from apprentice.processes.file_lock import locked

ROOT = Path(__file__).resolve().parents[2]
HOLDER = """
import sys, time
from pathlib import Path
from apprentice.processes.file_lock import locked
with locked(Path(sys.argv[1]), shared=sys.argv[2] == "shared"):
    print("held", flush=True)
    time.sleep(600)
"""


def hold(path: Path, kind: str) -> subprocess.Popen:
    """Start a process that holds a lock; return once it does."""
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(path), kind], cwd=ROOT, stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"held\n"
    return holder


@pytest.mark.parametrize(
    ("held", "shared", "granted"), [("exclusive", False, False), ("exclusive", True, False), ("shared", False, False), ("shared", True, True)]
)
def test_a_lock_excludes_other_processes_unless_both_share_it(tmp_path: Path, held: str, shared: bool, granted: bool):
    with hold(tmp_path / "lock", held) as holder:
        if granted:
            with locked(tmp_path / "lock", shared=shared, wait=False):
                pass
        else:
            with pytest.raises(BlockingIOError), locked(tmp_path / "lock", shared=shared, wait=False):
                pass
        holder.send_signal(signal.SIGKILL)


def test_a_killed_holder_releases_its_lock(tmp_path: Path):
    with hold(tmp_path / "lock", "exclusive") as holder:
        holder.kill()
        with locked(tmp_path / "lock"):
            pass


def test_a_lock_leaves_the_content_of_its_file_alone(tmp_path: Path):
    (tmp_path / "file").write_text("kept")
    with locked(tmp_path / "file"):
        pass
    assert (tmp_path / "file").read_text() == "kept"
