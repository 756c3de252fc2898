"""Children never outlive their parent, however it ends."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from apprentice.processes.children import descendants, spawn, start_time

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 15.0
GRACE_S = 1.0
TREE = "setsid sleep 600 & (trap '' TERM; echo $BASHPID >> {file}; sleep 600) & echo $$ >> {file}; echo $! >> {file}; wait"


def gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"


def wait_for(condition) -> bool:
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def started_tree(file: Path) -> bool:
    return file.exists() and len(file.read_text().split()) >= 3


def test_the_exit_code_is_that_of_the_command():
    assert spawn(["bash", "-c", "exit 3"]).wait() == 3


def test_a_command_that_a_signal_ended_has_its_own_exit_code():
    assert spawn(["bash", "-c", "kill -9 $$"]).wait() == 128 + signal.SIGKILL


def test_a_command_that_does_not_exist_is_reported(tmp_path: Path):
    assert spawn(["no-such-command"], log=tmp_path / "log").wait() == 127
    assert "could not be started" in (tmp_path / "log").read_text()


def test_the_log_the_variables_and_the_folder_are_those_of_the_caller(tmp_path: Path):
    spawn(["bash", "-c", "echo $WORD; pwd"], log=tmp_path / "log", env={"WORD": "hello"}, cwd=tmp_path).wait()
    assert (tmp_path / "log").read_text().split() == ["hello", str(tmp_path)]


def test_a_variable_can_be_removed(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("WORD", "hello")
    spawn(["bash", "-c", "echo ${WORD-absent}"], log=tmp_path / "log", env={"WORD": None}).wait()
    assert (tmp_path / "log").read_text() == "absent\n"


def test_background_processes_end_with_their_command(tmp_path: Path):
    spawn(["bash", "-c", f"setsid sleep 600 & echo $! > {tmp_path}/pid"]).wait()
    assert gone(int((tmp_path / "pid").read_text()))


def test_stop_ends_the_whole_tree_and_kills_what_ignores_sigterm(tmp_path: Path):
    file = tmp_path / "pids"
    child = spawn(["bash", "-c", TREE.format(file=file)], grace_s=GRACE_S)
    assert wait_for(lambda: started_tree(file))
    tree = descendants(child.pid)
    assert child.stop() == 128 + signal.SIGTERM
    assert all(gone(pid) for pid in tree)


def test_sigkill_of_the_parent_ends_the_whole_tree(tmp_path: Path):
    file = tmp_path / "pids"
    spawning = f"spawn(['bash', '-c', {TREE.format(file=file)!r}], grace_s={GRACE_S})"
    program = f"import time; from apprentice.processes.children import spawn; {spawning}; time.sleep(600)"
    parent = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT)
    assert wait_for(lambda: started_tree(file))
    tree = descendants(parent.pid)
    assert len(tree) >= 4
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    assert wait_for(lambda: all(gone(pid) for pid in tree))


def test_a_tree_has_a_grace_period_to_end_by_itself(tmp_path: Path):
    file = tmp_path / "file"
    child = spawn(["bash", "-c", f"trap 'sleep 0.5; echo ended > {file}; exit' TERM; echo ready > {file}; sleep 600 & wait"])
    assert wait_for(lambda: file.exists() and file.read_text() == "ready\n")
    child.stop()
    assert file.read_text() == "ended\n"


def test_the_end_of_the_thread_that_started_a_command_does_not_end_it():
    children = []
    thread = threading.Thread(target=lambda: children.append(spawn(["sleep", "600"])))
    thread.start()
    thread.join()
    time.sleep(0.5)
    assert children[0].poll() is None and descendants(children[0].pid)
    children[0].stop()


def test_only_shared_memory_that_the_tree_used_is_removed(tmp_path: Path):
    name, ready = f"psm_apprentice_{os.getpid()}", tmp_path / "ready"
    program = f"""
import mmap, pathlib, time
kept = []
for name in ({name!r}, "other_{name}"):
    with open("/dev/shm/" + name, "w+b") as file:
        file.truncate(4096)
        kept.append(mmap.mmap(file.fileno(), 4096))
pathlib.Path({str(ready)!r}).touch()
time.sleep(600)
"""
    used, other, unused = (Path("/dev/shm") / file for file in (name, f"other_{name}", f"{name}_unused"))
    unused.touch()
    child = spawn([sys.executable, "-c", program], shared_memory="psm_")
    assert wait_for(ready.exists)
    child.stop()
    left = [path.exists() for path in (used, other, unused)]
    for path in (used, other, unused):
        path.unlink(missing_ok=True)
    assert left == [False, True, True]


def test_the_start_time_identifies_a_process_until_it_ends():
    first, second = (subprocess.Popen(["sleep", "600"]) for _ in range(2))
    time.sleep(0.02)
    assert start_time(first.pid) == start_time(first.pid) != ""
    later = subprocess.Popen(["sleep", "600"])
    assert start_time(later.pid) != start_time(first.pid)
    for process in (first, second, later):
        process.kill()
        process.wait()
    assert start_time(first.pid) == ""
