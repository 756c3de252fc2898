"""The command line: help and errors appear at once, without heavy imports."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
AT_ONCE_S = 5.0
"""Generous, for a machine that is busy with other things; idle it takes a fraction of a second."""


def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "apprentice", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_help_comes_at_once():
    started = time.monotonic()
    done = run("--help")
    assert done.returncode == 0 and "serve-index" in done.stdout
    assert time.monotonic() - started < AT_ONCE_S


@pytest.mark.parametrize("module", ["apprentice.cli", "apprentice.config", "apprentice.stages.entry", "flows.__main__"])
def test_parsing_imports_nothing_heavy(module: str):
    program = f"import sys, {module}; print([name for name in ('torch', 'transformers', 'mlflow', 'prefect', 'pyarrow', 'numpy') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("command", [["run", "quik"], ["params", "quik"], ["register", "quik"], ["summary", "quik"], ["serve-index", "quik"]])
def test_an_unknown_pipeline_is_one_message_and_exit_code_2(command: list[str]):
    done = run(*command)
    assert done.returncode == 2 and "did you mean 'quick'" in done.stderr and "Traceback" not in done.stderr


def test_params_prints_what_the_stages_see():
    done = run("params", "quick")
    assert "model_name: deepsearch-quick" in done.stdout and "<<" not in done.stdout


def test_an_unknown_stage_is_refused():
    assert run("stage", "trian", "quick").returncode == 2


def test_doctor_names_every_requirement():
    done = run("doctor")
    assert all(name in done.stdout for name in (".venv (", ".venv-serve (", "deepspeed", "g++"))


@pytest.mark.parametrize("command", ["-m apprentice params quick", "-m apprentice --help", "-m flows --help", "-m flows quik"])
def test_a_closed_pipe_causes_no_traceback(command: str):
    """As in `… | head`: the output is longer than a pipe holds, or comes when the reader has gone."""
    script = f'(sleep 1; "{sys.executable}" {command}; echo $? >&2) | true'
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, env=variables, capture_output=True, text=True, timeout=60, check=True)
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr, done.stderr
    assert done.stderr.split()[-1] == ("2" if "quik" in command else "141")
