"""Installs the project's environments from the pinned requirements files in this folder. Standard library only.

    python3.11 requirements/install.py [core] [serve] [appworld] [trl]

`core` is .venv (library, trainer, orchestration, tests), `serve` is .venv-serve (vLLM), `appworld` is .venv-appworld
(the engine of the personal assistant, only on request), and `trl` is .venv-trl (the benchmark's baseline, only on
request). They are installed in parallel.

An environment is complete once its marker exists, which is written last and holds a hash of the pins. A changed pin
updates the environment, an interrupted installation starts again from nothing, and if nothing has changed this takes
milliseconds. pip ends with this process, even after SIGKILL, so that it never writes into the environment of the next
set-up. If the project was moved or copied, the commands in its environments are rewritten.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from apprentice.processes.children import Child

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
WORK = ROOT / ".cache" / "setup"
MARKER = ".installed"
PYTHONS = ((3, 11), (3, 12))
BUILT_IN = re.compile(r"^command = .* -m venv (?P<folder>/.*)$", re.MULTILINE)
"""The folder in which an environment was created, as recorded in its pyvenv.cfg."""
START = re.compile(rb"\A#!(?:/bin/sh\n'''exec' ['\"]?)?/[^\n]*/(?P<name>python[0-9.]*)['\"]?(?: \"\$0\" \"\$@\"\n' ''')?\n")
"""The first lines of an installed command: its Python, or a shell that starts it."""
LONGEST_PYTHON = 120
"""Longest path of an interpreter, in bytes, that every kernel accepts in the first line of a script."""
LIVE_S, PLAIN_S = 1.0, 15.0
"""Seconds between two progress lines: on a terminal, where the line is rewritten, and elsewhere."""
LAUNCHER = """#!/bin/sh
'''exec' "$(dirname -- "$0")/python" "$0" "$@"
' '''
import os, sys

sys.path[0] = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from apprentice.cli import entry

entry()
"""
"""The command `apprentice` of .venv. A shell starts the Python beside it, so it survives moving the project."""


@dataclass(frozen=True)
class Step:
    """One call of `pip install`."""

    name: str
    file: str
    options: tuple[str, ...] = ()
    minutes: float = 1.0
    """Approximate duration."""
    then: tuple[str, ...] = ()
    """Arguments with which the environment's Python is then called once."""

    @property
    def pins(self) -> int:
        """Number of packages in the file."""
        lines = (HERE / self.file).read_text(encoding="utf-8").splitlines()
        return sum(1 for line in lines if line.strip() and not line.startswith(("#", " ")))


def pytorch(pins: str) -> Step:
    """Install PyTorch after its dependencies, which the list `pins` contains and pip must not replace.

    PyTorch has no hash because each package index has its own wheel. If pip finds no CPU wheel, it also installs the
    CUDA libraries (2.5 GB) that PyTorch pins.
    """
    return Step("PyTorch", "torch.txt", ("-c", str(HERE / pins)), 0.7)


EXACT = ("--no-deps", "--require-hashes")
ROLES = {
    "core": (".venv", (Step("core", "hashes/core.txt", EXACT, 1.2), pytorch("core.txt"), Step("test tools", "hashes/dev.txt", EXACT, 0.1))),
    "serve": (".venv-serve", (Step("vLLM (CPU)", "hashes/serve.txt", EXACT, 0.8), pytorch("serve.txt"))),
    "serve-cuda": (".venv-serve", (Step("vLLM (CUDA)", "serve-cuda.txt", minutes=10.0),)),
    # The wheel contains packed apps. Unpacking writes its tests into the environment (APPWORLD_CACHE).
    "appworld": (".venv-appworld", (Step("AppWorld", "hashes/appworld.txt", EXACT, 0.5, ("-m", "appworld.cli", "install")),)),
    "trl": (".venv-trl", (Step("TRL", "hashes/trl.txt", EXACT, 0.4), pytorch("trl.txt"))),
}
ASKED = ("core", "serve", "appworld", "trl")
DEFAULT = ("core", "serve")


@dataclass
class Environment:
    """One environment while it is installed."""

    role: str
    doing: str = "waiting"
    error: str = ""
    finished: bool = False
    pip: Child | None = None
    thread: threading.Thread = field(init=False)

    def __post_init__(self):
        folder, self.steps = ROLES[self.role]
        self.folder = ROOT / folder
        self.log = WORK / (self.role + ".log")
        self.thread = threading.Thread(target=self._build, daemon=True)

    @property
    def wanted(self) -> str:
        """The marker of a complete environment: a hash of everything that is pinned."""
        parts = [self.role, f"{sys.version_info[0]}.{sys.version_info[1]}"]
        parts += [(HERE / step.file).read_text(encoding="utf-8") for step in self.steps]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    @property
    def done(self) -> bool:
        """Whether everything is installed as pinned."""
        marker = self.folder / MARKER
        return marker.is_file() and marker.read_text().strip() == self.wanted

    @property
    def variables(self) -> dict[str, str]:
        """Environment variables of the commands that install it, in addition to those of this process."""
        return {"APPWORLD_CACHE": str(self.folder / "share" / "appworld")}

    def relocate(self) -> None:
        """Rewrite the environment's commands if it was moved or copied: each names its Python by an absolute path."""
        settings = self.folder / "pyvenv.cfg"
        text = settings.read_text(encoding="utf-8")
        built = BUILT_IN.search(text)
        if not built or os.path.realpath(built["folder"]) == os.path.realpath(self.folder):
            return
        for script in (self.folder / "bin").iterdir():
            if script.is_file() and not script.is_symlink() and b"\0" not in (content := script.read_bytes()):
                replace(script, START.sub(self._shebang, content, count=1).replace(os.fsencode(built["folder"]), os.fsencode(self.folder)))
        # The settings come last: until they are written, the next set-up repeats all this.
        replace(settings, os.fsencode(text.replace(built["folder"], str(self.folder))))

    def _shebang(self, old: re.Match) -> bytes:
        """Return a script's first lines. A shell starts Python if the kernel would misread its path, as pip does."""
        python = str(self.folder / "bin" / os.fsdecode(old["name"]))
        if " " in python or len(os.fsencode(python)) > LONGEST_PYTHON:
            return os.fsencode(f"#!/bin/sh\n'''exec' {shlex.quote(python)} \"$0\" \"$@\"\n' '''\n")
        return os.fsencode(f"#!{python}\n")

    def write_launcher(self) -> None:
        """Write the command `apprentice`, unless it exists."""
        launcher = self.folder / "bin" / "apprentice"
        if self.role == "core" and not launcher.exists():
            launcher.write_text(LAUNCHER)
            launcher.chmod(0o755)

    @property
    def minutes(self) -> float:
        """Approximate duration of the installation."""
        return sum(step.minutes for step in self.steps)

    def _build(self) -> None:
        try:
            self._prepare_folder()
            for step in self.steps:
                self._install(step)
            self.write_launcher()
            (self.folder / MARKER).write_text(self.wanted + "\n")
            self.doing = "done"
        except (OSError, RuntimeError) as error:
            self.error = str(error)
        self.finished = True

    def _prepare_folder(self) -> None:
        marker = self.folder / MARKER
        if marker.is_file():
            marker.unlink()  # the pins have changed: pip updates the environment
            return
        self.doing = "creating " + self.folder.name
        if self.folder.exists():
            shutil.rmtree(str(self.folder))
        self._run([sys.executable, "-m", "venv", str(self.folder)], None)

    def _install(self, step: Step) -> None:
        self.doing = step.name
        command = [str(self.folder / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--no-compile"]
        self._run(command + list(step.options) + ["-r", str(HERE / step.file)], step)
        if step.then:
            self._run([str(self.folder / "bin" / "python"), *step.then], step)

    def _run(self, command: list[str], step: Step | None) -> None:
        from apprentice.processes.children import spawn

        with self.log.open("a") as log:
            log.write("\n$ " + " ".join(command) + "\n")
            log.flush()
            start = log.tell()
        self.pip = spawn(command, log=self.log, cwd=ROOT, env=self.variables)
        while self.pip.poll() is None:
            time.sleep(0.5)
            if step:
                self.doing = self._progress(step, start)
        if self.pip.poll():
            raise RuntimeError(f"{step.name if step else 'an empty environment'} could not be installed into {self.folder.name}")

    def _progress(self, step: Step, start: int) -> str:
        with self.log.open(errors="replace") as log:
            log.seek(start)
            lines = log.read().splitlines()
        seen = sum(1 for line in lines if line.startswith(("Collecting ", "Processing ", "Requirement already")))
        if any(line.startswith("Installing collected") for line in lines):
            return f"{step.name}: unpacking {seen} packages"
        if any(line.startswith("Building wheels") for line in lines):
            return f"{step.name}: building wheels"
        return f"{step.name}: fetching package {seen} of {max(step.pins, seen)}"


def main() -> int:
    """Install what is missing and return the exit code."""
    parser = argparse.ArgumentParser(description="Install the project's environments from the pinned requirements files.")
    parser.add_argument("roles", nargs="*", metavar="role", help=f"{', '.join(ASKED)} (default: {' and '.join(DEFAULT)})")
    roles = parser.parse_args().roles or list(DEFAULT)
    if not set(roles) <= set(ASKED):
        parser.error(f"choose roles from {', '.join(ASKED)}")
    if sys.version_info[:2] not in PYTHONS:
        found = f"{sys.version_info[0]}.{sys.version_info[1]}"
        print(f"set-up: Python {found} is not supported\n  What to do: make PYTHON=/path/to/python3.11", file=sys.stderr)
        return 2
    sys.path.insert(0, str(ROOT))  # only now, because the library needs the version that was checked
    from apprentice.errors import ApprenticeError
    from apprentice.location import check_location, in_git
    from apprentice.processes.file_lock import locked

    try:
        check_location(ROOT)
    except ApprenticeError as error:
        print(f"set-up: {error}", file=sys.stderr)
        return 2
    if not in_git(ROOT):
        print(f"set-up: {ROOT} is not a Git repository, which a run needs\n  What to do: git init", file=sys.stderr, flush=True)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    WORK.mkdir(parents=True, exist_ok=True)
    with locked(WORK / "lock"):  # a second `make` waits here for the first
        return install([Environment(flavour(role)) for role in roles])


def replace(path: Path, content: bytes) -> None:
    """Replace a file atomically and keep its permissions."""
    beside = path.with_name(path.name + ".part")
    beside.write_bytes(content)
    shutil.copymode(path, beside)
    beside.replace(path)


def stop(number: int, _frame) -> None:
    """Stop the set-up as Ctrl-C does. After SIGHUP nothing is printed, because the terminal is gone."""
    from apprentice.processes.output import discard_output

    if number == signal.SIGHUP:
        discard_output()
    raise KeyboardInterrupt


def flavour(role: str) -> str:
    """Return the variant of the role for this machine: vLLM for CUDA if `nvidia-smi` works."""
    if role != "serve" or not shutil.which("nvidia-smi"):
        return role
    works = subprocess.run(["nvidia-smi", "-L"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0
    return "serve-cuda" if works else role


def install(environments: list[Environment]) -> int:
    """Install the incomplete environments in parallel and return the exit code."""
    missing = [environment for environment in environments if not environment.done]
    for environment in environments:
        if environment not in missing:
            environment.relocate()
            environment.write_launcher()
    if not missing:
        return 0
    folders = " and ".join(environment.folder.name for environment in missing)
    print(f"Installing once: {folders}, about {expected_minutes(missing):.0f} minutes; log in {WORK.relative_to(ROOT)}/", flush=True)
    started = time.monotonic()
    for environment in missing:
        environment.log.write_text("")
        environment.thread.start()
    try:
        watch(missing, started)
    except KeyboardInterrupt:
        for environment in missing:
            if environment.pip:
                environment.pip.stop()
        print("\nSet-up stopped. Run the same command to start it again.", file=sys.stderr)
        return 130
    return report(missing, started)


def expected_minutes(missing: list[Environment]) -> float:
    """Return the approximate duration: the longest installation, slowed by those that run in parallel."""
    return max(1.0, 1.3 * max(environment.minutes for environment in missing))


def watch(missing: list[Environment], started: float) -> None:
    """Print what is being installed until all installations have finished."""
    live = sys.stdout.isatty()
    while not all(environment.finished for environment in missing):
        elapsed = time.monotonic() - started
        line = f"  {elapsed:3.0f} s  " + "   ".join(f"[{environment.role}] {environment.doing}" for environment in missing)
        print("\r\x1b[K" + line[: shutil.get_terminal_size().columns - 1] if live else line, end="" if live else "\n", flush=True)
        pause_until = time.monotonic() + (LIVE_S if live else PLAIN_S)
        while time.monotonic() < pause_until and not all(environment.finished for environment in missing):
            time.sleep(0.1)
    if live:
        print("\r\x1b[K", end="")


def report(missing: list[Environment], started: float) -> int:
    """Print the outcome and return the exit code."""
    failed = [environment for environment in missing if environment.error]
    for environment in failed:
        tail = environment.log.read_text(errors="replace").splitlines()[-12:]
        print("\n".join("    " + line for line in tail), file=sys.stderr)
        log = environment.log.relative_to(ROOT)
        print(f"set-up: {environment.error}\n  What to do: read {log}, then run the same command again", file=sys.stderr)
    if not failed:
        print(f"Set-up done in {time.monotonic() - started:.0f} s.")
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
