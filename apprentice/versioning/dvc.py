"""Asks DVC which stages have changed, has it reproduce one, and reads the hashes it recorded.

DVC runs as a child process: its own imports, locks and signal handling stay out of the flow's process.
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
"""Variables that no stage needs."""
EXITED_WITH = re.compile(r"exited with (-?\d+)")
STAGE_MESSAGE = re.compile(r"^(?:error|fault|interrupted): ", re.MULTILINE)
DVC_MESSAGE = re.compile(r"^ERROR: ", re.MULTILINE)
BUSY = ("Unable to acquire lock", "is being blocked by")
"""What DVC says when another DVC process works in the same folder."""


class StageFailed(Exception):
    """A stage ended with an exit code other than 0; the text is its own message, made for people."""

    def __init__(self, stage: str, code: int, message: str):
        self.stage, self.code = stage, code
        super().__init__(message)


@dataclass
class StageRun:
    """One `dvc repro --single-item`, from its start to its end. DVC skips the work where nothing has changed."""

    stage: str
    pipeline: str
    log: Path
    """Gets what DVC and the stage print; begun anew."""
    root: Path = Path()
    force: bool = False
    """Run even where nothing has changed."""
    _child: Child | None = field(default=None, init=False, repr=False)

    def start(self) -> "StageRun":
        """Starts DVC; it and all it starts end with this process."""
        self.log.unlink(missing_ok=True)
        command = [sys.executable, "-m", "dvc", "repro", "--single-item", *(["--force"] if self.force else []), f"{self.stage}@{self.pipeline}"]
        self._child = spawn(command, log=self.log, env=environment(), cwd=self.root)
        return self

    def running(self) -> bool:
        """Whether the stage still runs.

        Raises:
            ApprenticeError: another DVC process works in this folder.
            StageFailed: the stage ended with an error.
        """
        code = self._child.poll()
        if code:
            raise self._failure(code)
        return code is None

    def stop(self) -> None:
        """Ends DVC and the stage, if they still run."""
        self._child.stop()

    def _failure(self, code: int) -> Exception:
        text = self.log.read_text(encoding="utf-8", errors="replace")
        if _busy(text):
            return _busy_error(self.root)
        exited = EXITED_WITH.search(text)
        code = int(exited[1]) if exited else code
        return StageFailed(self.stage, code, failure_message(text, self.stage, self.log, code))


def failure_message(text: str, stage: str, log: Path, code: int = 1) -> str:
    """What a person should read of a failed stage's output: its own message if it left one, else the signal that killed it, or the last line and where
    the rest is."""
    own = list(STAGE_MESSAGE.finditer(text))
    if own:
        message = text[own[-1].start() :]
        end = DVC_MESSAGE.search(message)
        return message[: end.start() if end else None].strip()
    if number := signal_of(code):
        memory = "; out of memory?" if number == signal.SIGKILL else ""
        todo = "free some memory, then run again: it continues" if memory else "run again: it continues"
        return f"error: stage {stage} was killed by signal {number}{memory}\n  What to do: {todo}; the log is {log}"
    lines = [line for line in DVC_MESSAGE.split(text)[0].splitlines() if line.strip()] or text.strip().splitlines()
    return f"error: stage {stage} broke: {lines[-1].strip() if lines else 'it printed nothing'}\n  What to do: read {log}"


def changed_stages(pipeline: str, root: Path = Path()) -> tuple[str, ...]:
    """The stages that are not up to date, in their order: what has changed and all that follows from the first of them.

    Raises:
        ApprenticeError: DVC cannot tell.
    """
    check_folder(root)
    targets = [f"{stage}@{pipeline}" for stage in STAGES]
    done = subprocess.run([sys.executable, "-m", "dvc", "status", "--json", *targets], cwd=root, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        if _busy(done.stderr):
            raise _busy_error(root)
        raise ApprenticeError(f"DVC cannot tell what is up to date: {done.stderr.strip()}", where=root / "dvc.yaml")
    changed = {name.partition("@")[0] for name in json.loads(done.stdout or "{}")}
    names = tuple(STAGES)
    first = next((position for position, stage in enumerate(names) if stage in changed), len(names))
    return names[first:]


def recorded_parameters(stage: str, pipeline: str, root: Path = Path()) -> dict[str, Any]:
    """Key -> value of everything in params.yaml that DVC records with a stage; empty in a folder without dvc.yaml.

    Raises:
        ApprenticeError: dvc.yaml is damaged.
    """
    if not (root / STAGES_FILE).is_file():
        return {}
    keys = read_stages(root / STAGES_FILE)[stage]["do"]["params"]
    values = read_document(root / PARAMS)
    return {key: _at(values, key) for key in (key.replace("${key}", pipeline) for key in keys)}


def _at(values: Any, dotted: str) -> Any:
    """The value under a dotted key; None where it is absent."""
    for key in dotted.split("."):
        values = values.get(key) if isinstance(values, dict) else None
    return values


def output_hashes(pipeline: str, root: Path = Path()) -> dict[str, str]:
    """Path of every output of a pipeline -> the hash DVC recorded for it; empty before the first stage has run."""
    mine = [entry for name, entry in read_lock(root).items() if name.partition("@")[2] == pipeline]
    return {out["path"]: out["md5"] for entry in mine for out in entry.get("outs", ()) if "md5" in out}


def output_hash(path: Path, pipeline: str, root: Path = Path()) -> str:
    """The hash DVC recorded for one output.

    Raises:
        ApprenticeError: no stage has recorded it.
    """
    try:
        return output_hashes(pipeline, root)[path.as_posix()]
    except KeyError:
        raise ApprenticeError(f"holds no hash of {path}", where=LOCK_FILE, todo=f"run `make run PIPELINE={pipeline}`") from None


def _busy(text: str) -> bool:
    return any(words in text for words in BUSY)


def _busy_error(root: Path) -> ApprenticeError:
    try:
        check_rwlock(root)
    except ApprenticeError as left_over:
        return left_over
    return ApprenticeError("another DVC process works in this folder", where=root.resolve(), todo="wait until it has ended, then run again")


def environment() -> dict[str, str]:
    """This process's variables without the keys of Prefect's servers, telemetry off, the running interpreter first on PATH."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return {name: value for name, value in os.environ.items() if name not in SECRETS} | ENVIRONMENT | {"PATH": path}
