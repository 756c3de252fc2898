"""Asks DVC which stages have changed, runs a stage through DVC, and reads the hashes that DVC recorded.

DVC runs as a child process, so that its imports, locks, and signal handling stay out of the flow's process.
"""

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from apprentice.config.layout import PARAMS
from apprentice.config.load import read_document
from apprentice.config.stages import STAGES
from apprentice.errors import ApprenticeError
from apprentice.processes.children import Child, signal_of, spawn
from apprentice.versioning.folder import LOCK_FILE, STAGES_FILE, check_folder, check_rwlock, read_lock, read_stages

ENVIRONMENT = {"DVC_NO_ANALYTICS": "1", "DO_NOT_TRACK": "true"}
SECRETS = ("PREFECT_API_AUTH_STRING", "PREFECT_API_KEY", "PREFECT_SERVER_API_AUTH_STRING", "APPRENTICE_PAGES_KEY")
"""Environment variables that hold secrets and that no stage needs."""
EXITED_WITH = re.compile(r"exited with (-?\d+)")
STAGE_MESSAGE = re.compile(r"^(?:error|fault|interrupted): ", re.MULTILINE)
DVC_MESSAGE = re.compile(r"^ERROR: ", re.MULTILINE)
BUSY = ("Unable to acquire lock", "is being blocked by")
"""Phrases in DVC's errors if another DVC process is running in the same folder."""


class StageFailed(Exception):
    """A stage ended with a non-zero exit code; the text is its message for people."""

    def __init__(self, stage: str, code: int, message: str):
        self.stage, self.code = stage, code
        super().__init__(message)


@dataclass
class StageRun:
    """One `dvc repro --single-item`. DVC skips the stage if nothing has changed."""

    stage: str
    pipeline: str
    log: Path
    """File for the output of DVC and the stage; overwritten."""
    root: Path = Path()
    _child: Child | None = field(default=None, init=False, repr=False)

    def start(self) -> "StageRun":
        """Start DVC. It and its child processes end with this process."""
        self.log.unlink(missing_ok=True)
        command = [sys.executable, "-m", "dvc", "repro", "--single-item", f"{self.stage}@{self.pipeline}"]
        self._child = spawn(command, log=self.log, env=environment(), cwd=self.root)
        return self

    def running(self) -> bool:
        """Return whether the stage is still running.

        Raises:
            ApprenticeError: another DVC process is running in this folder.
            StageFailed: the stage failed.
        """
        code = self._child.poll()
        if code:
            raise self._failure(code)
        return code is None

    def stop(self) -> None:
        """Stop DVC and the stage if they are still running."""
        self._child.stop()

    def _failure(self, code: int) -> Exception:
        text = self.log.read_text(encoding="utf-8", errors="replace")
        if _busy(text):
            return _busy_error(self.root)
        exited = EXITED_WITH.search(text)
        code = int(exited[1]) if exited else code
        return StageFailed(self.stage, code, failure_message(text, self.stage, self.log, code))


def failure_message(text: str, stage: str, log: Path, code: int = 1) -> str:
    """Return the message of a failed stage: its own, if it printed one; otherwise the signal that killed it, or its
    last line of output and the path of the log."""
    own = list(STAGE_MESSAGE.finditer(text))
    if own:
        message = text[own[-1].start() :]
        end = DVC_MESSAGE.search(message)
        return message[: end.start() if end else None].strip()
    if number := signal_of(code):
        memory = "; out of memory?" if number == signal.SIGKILL else ""
        todo = "free some memory, then run again; the stage resumes" if memory else "run again; the stage resumes"
        return f"error: stage {stage} was killed by signal {number}{memory}\n  What to do: {todo}. The log is {log}"
    lines = [line for line in DVC_MESSAGE.split(text)[0].splitlines() if line.strip()] or text.strip().splitlines()
    return f"error: stage {stage} failed: {lines[-1].strip() if lines else 'it printed nothing'}\n  What to do: read {log}"


def changed_stages(pipeline: str, root: Path = Path()) -> tuple[str, ...]:
    """Return the stages that are not up to date: the first changed stage and all that follow it.

    Raises:
        ApprenticeError: `dvc status` fails.
    """
    check_folder(root)
    targets = [f"{stage}@{pipeline}" for stage in STAGES]
    done = subprocess.run([sys.executable, "-m", "dvc", "status", "--json", *targets], cwd=root, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        if _busy(done.stderr):
            raise _busy_error(root)
        todo = "run `.venv/bin/dvc status` for the details"
        raise ApprenticeError(f"`dvc status` failed: {done.stderr.strip()}", where=root / "dvc.yaml", todo=todo)
    changed = {name.partition("@")[0] for name in json.loads(done.stdout or "{}")}
    names = tuple(STAGES)
    first = next((position for position, stage in enumerate(names) if stage in changed), len(names))
    return names[first:]


def recorded_parameters(stage: str, pipeline: str, root: Path = Path()) -> dict[str, Any]:
    """Return key -> value of the parameters that DVC records with a stage; empty in a folder without dvc.yaml.

    Raises:
        ApprenticeError: dvc.yaml or params.yaml is damaged.
    """
    if not (root / STAGES_FILE).is_file():
        return {}
    keys = read_stages(root / STAGES_FILE)[stage]["do"]["params"]
    values = read_document(root / PARAMS)
    return {key: _at(values, key) for key in (key.replace("${key}", pipeline) for key in keys)}


def _at(values: Any, dotted: str) -> Any:
    """Return the value under a dotted key; None if it is absent."""
    for key in dotted.split("."):
        values = values.get(key) if isinstance(values, dict) else None
    return values


def output_hashes(pipeline: str, root: Path = Path()) -> dict[str, str]:
    """Return path -> recorded hash of every output of a pipeline; empty before the first stage has run."""
    mine = [entry for name, entry in read_lock(root).items() if name.partition("@")[2] == pipeline]
    return {out["path"]: out["md5"] for entry in mine for out in entry.get("outs", ()) if "md5" in out}


def output_hash(path: Path, pipeline: str, root: Path = Path()) -> str:
    """Return the hash that DVC recorded for one output.

    Raises:
        ApprenticeError: no stage has recorded it.
    """
    try:
        return output_hashes(pipeline, root)[path.as_posix()]
    except KeyError:
        raise ApprenticeError(f"contains no hash of {path}", where=LOCK_FILE, todo=f"run `make run PIPELINE={pipeline}`") from None


def _busy(text: str) -> bool:
    return any(words in text for words in BUSY)


def _busy_error(root: Path) -> ApprenticeError:
    try:
        check_rwlock(root)
    except ApprenticeError as stale_lock:
        return stale_lock
    return ApprenticeError("another DVC process is running in this folder", where=root.resolve(), todo="wait until it ends, then run again")


def environment() -> dict[str, str]:
    """Return this process's environment without secrets, with telemetry off and this interpreter first on PATH."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return {name: value for name, value in os.environ.items() if name not in SECRETS} | ENVIRONMENT | {"PATH": path}
