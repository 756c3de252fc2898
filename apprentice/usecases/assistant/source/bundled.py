"""Runs AppWorld's own tests of its apps against the installed environment."""

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from apprentice.errors import ApprenticeError

RUN = """
import os, pathlib, sys, appworld.verify, pytest
pathlib.Path("pytest.ini").write_text(appworld.verify.PYTEST_INI)
sys.exit(pytest.main(["-n", str(len(os.sched_getaffinity(0))), "tests/package/apps"]))
"""
"""Does what `appworld verify tests` does, without its tests that need the official tasks."""
CLOSING_LINE = re.compile(r"=+ (.*) in [\d.]+s.*=+")
COUNT = re.compile(r"(\d+) (passed|failed|error)")


@dataclass(frozen=True)
class Counts:
    """The results of AppWorld's tests."""

    passed: int
    failed: int


def run_bundled_tests(python: Path, root: Path) -> Counts:
    """Run the tests, which takes some minutes, and print their output.

    Args:
        python: the interpreter of .venv-appworld.
        root: an AppWorld data root.

    Raises:
        ApprenticeError: AppWorld is not installed, or its tests did not run.
    """
    if not python.is_file():
        raise ApprenticeError("AppWorld is not installed", where=python, todo="run `python3.11 requirements/install.py appworld`")
    tests = python.absolute().parent.parent / "share" / "appworld"
    variables = {"APPWORLD_CACHE": str(tests), "APPWORLD_ROOT": str(root.absolute()), "PYTHONPATH": str(tests), "PYTHONWARNINGS": "ignore"}
    command = [python.absolute(), "-c", RUN]
    with subprocess.Popen(command, env={**os.environ, **variables}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tests) as process:
        last = ""
        for line in process.stdout:
            print(line, end="", flush=True)
            last = line.strip() or last
    closing = CLOSING_LINE.fullmatch(last)
    if not closing:
        raise ApprenticeError(f"AppWorld's tests did not run: {last}", where=tests)
    counts = {kind: int(number) for number, kind in COUNT.findall(closing[1])}
    return Counts(counts.pop("passed", 0), sum(counts.values()))
