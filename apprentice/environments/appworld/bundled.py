"""AppWorld's own tests of its apps, run against the environment that is installed here."""

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from apprentice.errors import ApprenticeError

CLOSING_LINE = re.compile(r"^=+ (.*) in [\d.]+s.*=+$")
COUNT = re.compile(r"(\d+) (passed|failed|error)")


@dataclass(frozen=True)
class Counts:
    """How AppWorld's tests ended."""

    passed: int
    failed: int


def run_bundled_tests(python: Path, root: Path) -> Counts:
    """Runs `appworld verify tests` and shows what it prints; some minutes.

    Args:
        python: of .venv-appworld.
        root: a data root.

    Raises:
        ApprenticeError: AppWorld is not installed, or its tests did not run.
    """
    if not python.is_file():
        raise ApprenticeError("AppWorld is not installed", where=python, todo="run `python3.11 requirements/install.py appworld`")
    command = [python.absolute(), "-m", "appworld.cli", "verify", "tests", "--root", root.absolute()]
    tests = python.absolute().parent.parent / "share" / "appworld"
    variables = {"APPWORLD_CACHE": str(tests), "APPWORLD_ROOT": str(root.absolute()), "PYTHONWARNINGS": "ignore"}
    process = subprocess.Popen(command, env={**os.environ, **variables}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=root)
    lines = []
    for line in process.stdout:
        print(line, end="", flush=True)
        lines.append(line.strip())
    process.wait()
    closing = [match[1] for line in lines if (match := CLOSING_LINE.match(line))]
    if not closing:
        raise ApprenticeError(f"AppWorld's tests did not run: {lines[-1] if lines else 'they said nothing'}", where=tests)
    counts = [(int(number), kind) for line in closing for number, kind in COUNT.findall(line)]
    return Counts(sum(number for number, kind in counts if kind == "passed"), sum(number for number, kind in counts if kind != "passed"))
