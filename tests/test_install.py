"""The real set-up, with a package of a few bytes in place of the pinned ones: it is killed, repeated and moved."""

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from apprentice.processes.children import descendants

ROOT = Path(__file__).resolve().parents[1]
NEEDED = ("__init__.py", "errors.py", "location.py", "processes/*.py")
"""The files of the library that the set-up uses."""
DEADLINE_S = 120.0


def make_package(folder: Path) -> Path:
    """Make a wheel with one command, `tool`, that prints the environment it runs in."""
    files = {
        "tool.py": "import sys\n\ndef main():\n    print(sys.prefix)\n",
        "tool-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: tool\nVersion: 1\n",
        "tool-1.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "tool-1.dist-info/entry_points.txt": "[console_scripts]\ntool = tool:main\n",
    }
    path = folder / "tool-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
        wheel.writestr("tool-1.dist-info/RECORD", "".join(f"{name},,\n" for name in (*files, "tool-1.dist-info/RECORD")))
    return path


def make_setup(folder: Path, requirement: str, digest: str = "0" * 64) -> Path:
    """Make a project of the set-up and a toy command line that pins one package with this SHA-256."""
    (folder / "apprentice" / "processes").mkdir(parents=True)
    for source in (path for pattern in NEEDED for path in (ROOT / "apprentice").glob(pattern)):
        shutil.copy(source, folder / source.relative_to(ROOT))
    (folder / "apprentice" / "cli.py").write_text("def entry():\n    print(__file__)\n")
    shutil.copytree(ROOT / "requirements", folder / "requirements")
    pin(folder, requirement, digest)
    return folder


def pin(folder: Path, requirement: str, digest: str) -> None:
    (folder / "requirements" / "torch.txt").write_text(requirement + "\n")
    for name in ("core.txt", "dev.txt"):
        (folder / "requirements" / "hashes" / name).write_text(f"{requirement} --hash=sha256:{digest}\n")


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def set_up(folder: Path) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "requirements/install.py", "core"], cwd=folder, capture_output=True, text=True, timeout=DEADLINE_S)


def environment_of_tool(folder: Path) -> str:
    """Return the environment in which a project's command `tool` runs."""
    return output_of(folder / ".venv" / "bin" / "tool")


def library_of_apprentice(folder: Path) -> str:
    """Return the file of the library that a project's command `apprentice` imports."""
    return output_of(folder / ".venv" / "bin" / "apprentice")


def output_of(command: Path) -> str:
    return subprocess.run([command], capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.slow
@pytest.mark.parametrize(("moment", "number"), [("venv", signal.SIGKILL), ("pip", signal.SIGKILL), ("pip", signal.SIGHUP)])
def test_a_killed_set_up_leaves_no_process_behind_and_the_next_one_succeeds(tmp_path: Path, moment: str, number: signal.Signals):
    package = make_package(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts pip's connection and never answers
        silent.settimeout(DEADLINE_S)
        folder = make_setup(tmp_path / "a project", f"tool @ http://127.0.0.1:{silent.getsockname()[1]}/{package.name}")
        command = [sys.executable, "requirements/install.py", "core"]
        installer = subprocess.Popen(command, cwd=folder, env={**os.environ, "no_proxy": "127.0.0.1"}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if moment == "venv":
            assert eventually((folder / ".venv" / "pyvenv.cfg").exists)
        else:
            silent.accept()[0].detach()
        tree = descendants(installer.pid)
        installer.send_signal(number)
        installer.wait(20)
        assert tree and eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in tree), 20)
    assert not (folder / ".venv" / ".installed").exists()
    pin(folder, str(package), sha256(package))
    again = set_up(folder)
    assert again.returncode == 0, again.stdout + again.stderr
    assert environment_of_tool(folder) == str(folder / ".venv")


def eventually(true, deadline_s: float = DEADLINE_S) -> bool:
    deadline = time.monotonic() + deadline_s
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.slow
def test_a_project_that_was_moved_or_copied_runs_its_own_commands(tmp_path: Path):
    package = make_package(tmp_path)
    folder = make_setup(tmp_path / "project", str(package), sha256(package))
    assert set_up(folder).returncode == 0
    copy, moved = tmp_path / "a copy #1 at 50%", tmp_path / "moved"
    shutil.copytree(folder, copy, symlinks=True)
    assert environment_of_tool(copy) == str(folder / ".venv")  # as pip wrote it
    assert set_up(copy).returncode == 0
    assert environment_of_tool(copy) == str(copy / ".venv")
    assert library_of_apprentice(copy) == str(copy / "apprentice" / "cli.py")
    copy.rename(moved)
    assert set_up(moved).returncode == 0
    assert environment_of_tool(moved) == str(moved / ".venv")
    assert environment_of_tool(folder) == str(folder / ".venv")
    (folder / ".venv" / ".installed").write_text("")  # as if killed while it wrote the marker
    assert set_up(folder).returncode == 0
    assert environment_of_tool(folder) == str(folder / ".venv")


@pytest.mark.slow
def test_a_package_that_does_not_match_its_hash_is_not_installed(tmp_path: Path):
    folder = make_setup(tmp_path / "project", str(make_package(tmp_path)))
    done = set_up(folder)
    assert done.returncode == 1 and "DO NOT MATCH THE HASHES" in done.stdout + done.stderr
    assert not (folder / ".venv" / ".installed").exists() and not (folder / ".venv" / "bin" / "tool").exists()


def test_a_path_that_tools_would_misread_is_refused_before_anything_is_installed(tmp_path: Path):
    folder = make_setup(tmp_path / "a:b", "tool")
    done = set_up(folder)
    assert done.returncode == 2 and done.stderr.startswith(f"set-up: {folder}: ") and "':'" in done.stderr
    assert sorted(os.listdir(folder)) == ["apprentice", "requirements"]


def test_a_folder_outside_git_is_reported_at_once(tmp_path: Path):
    folder = make_setup(tmp_path / "project", "nothing @ file:///nowhere")
    with subprocess.Popen(
        [sys.executable, "requirements/install.py", "core"], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as first:
        assert first.stderr.readline() == f"set-up: {folder} is not a Git repository, which a run needs\n"
        assert first.stderr.readline() == "  What to do: git init\n"
        assert not (folder / ".venv" / "bin" / "pip").exists()
        first.terminate()


def test_a_python_that_is_missing_has_advice(tmp_path: Path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    done = subprocess.run(["make", "setup", "PYTHON=python3.99"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and "What to do: install Python 3.11" in done.stderr and "make setup PYTHON=/path/to/python3.11" in done.stderr
