"""A project of its own in a folder: the real params.yaml, dvc.yaml, flow and configuration; stages that only write small files."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from apprentice.config.stages import STAGES

ROOT = Path(__file__).resolve().parent.parent
EMPTY = ("policy", "rollout", "learning", "online")
KEPT = ("config", "data", "processes", "records", "versioning", "environments", "evaluation", "usecases")
STAGE = '''"""A toy stage: writes what DVC expects of it."""
import json, os, signal, sys, time
from pathlib import Path
from apprentice.errors import ApprenticeError, InfrastructureFault
from apprentice.stages.entry import main

name = Path(sys.argv[0]).stem

def run(config, at, progress):
    fault = os.environ.get("FAKE_" + name.upper(), "")
    if fault == "user":
        raise ApprenticeError("is not set", where="data.source", todo="set data.source=<folder>")
    if fault == "once" and not Path("met").exists():
        Path("met").touch()
        raise InfrastructureFault("the policy server is gone")
    if fault.startswith("kill"):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), int(fault.split()[1]))
    if fault == "crash":
        raise ValueError("boom")
    for done in range(3):
        progress.advance("toys", done, 2)
        time.sleep(float(os.environ.get("FAKE_SECONDS", "0.01")) if done < 2 else 0)
    for path, text in files(config, at)[name].items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text or name)

row = {"em": 0.4, "cover_em": 0.5, "f1": 0.45, "n": 120, "em_ci95": [0.3, 0.5]}
conditions = ("base_closed_book", "base_rag", "before", "warm_start", "trained")
differences = ("trained_minus_before", "warm_start_minus_before", "trained_minus_warm_start")
evaluation = {**{key: row for key in conditions}, **{key: {"em": 0.1, "em_ci95": [0.05, 0.15], "p": 0.01, "n": 120, "scenarios": 120} for key in differences}}

def files(config, at):
    return {
        "prepare": {at.raw / "source.json": "{}"},
        "validate": {at.tasks: "", at.corpus: "", at.quarantine: "", at.data_docs / "index.html": "", at.metrics("validation"): "{}"},
        "distill": {at.warm_start / "weights": "", at.metrics("distill"): "{}"},
        "filter": {at.curriculum: "", at.metrics("difficulty"): "{}", at.curves("difficulty"): "x,y\\n1,2\\n"},
        "rollout": {at.rollouts: "", at.rollout_quarantine: "", at.metrics("rollout"): "{}"},
        "train": {
            at.policy / "weights": str(config.train.seed),
            at.train_quarantine: "",
            at.metrics("training"): "{}",
            at.curves("training"): "step,reward\\n0,1\\n",
        },
        "evaluate": {at.evaluations / "x": "", at.report: "", at.metrics("evaluation"): json.dumps(evaluation), at.curves("evaluation"): "x,y\\n1,2\\n"},
    }

main(run)
'''
TRACKING = {
    "runs.py": """import os
from types import SimpleNamespace
from apprentice.errors import ApprenticeError

def log_run(*_):
    if os.environ.get("FAKE_TRACKING") == "user":
        raise ApprenticeError("the results are complete, but MLflow could not store them", where="mlflow.db", todo="mend it")
    return SimpleNamespace(run_id="r", command="open", address="http://h/#/r")
""",
    "registry.py": "from types import SimpleNamespace as Any\n\ndef register(*_):\n    return Any(name='m', version='1', alias='champion', reason='better')\n",
}
MODELS = """import os
from apprentice.errors import ApprenticeError

def checked_model(name):
    if os.environ.get("FAKE_MODEL") == "user":
        raise ApprenticeError("is truncated", where="model.safetensors", todo="copy the folder anew")
    return name

def fetch_notice(name):
    return ""
"""
PACKAGED = "class NotFetched(Exception):\n    pass\n"


def make_project(folder: Path) -> Path:
    """Makes the project in `folder`, under git and DVC."""
    for name in ("params.yaml", "dvc.yaml", ".dvcignore", ".gitignore"):
        shutil.copy(ROOT / name, folder / name)
    for name in ("flows", "tasks"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    library = folder / "apprentice"
    for package in (*EMPTY, "stages", "tracking"):
        _write(library / package / "__init__.py", "")
    for package in KEPT:
        shutil.copytree(ROOT / "apprentice" / package, library / package, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (ROOT / "apprentice").glob("*.py"):
        shutil.copy(path, library / path.name)
    shutil.copy(ROOT / "apprentice" / "stages" / "entry.py", library / "stages" / "entry.py")
    for stage in STAGES:
        _write(library / "stages" / f"{stage}.py", STAGE)
    for name, text in TRACKING.items():
        _write(library / "tracking" / name, text)
    _write(library / "policy" / "base_models.py", MODELS)
    _write(library / "policy" / "packaged.py", PACKAGED)
    _without_server(folder / "params.yaml")
    _write(folder / ".dvc" / "config", "[core]\n    analytics = false\n")
    subprocess.run(["git", "init", "--quiet", "."], cwd=folder, check=True)
    return folder


def run(folder: Path, *command: str, **variables: str) -> subprocess.CompletedProcess:
    """Runs this interpreter with `command` in the project."""
    done = subprocess.run([sys.executable, *command], cwd=folder, env=environment(folder, **variables), capture_output=True, text=True, timeout=200)
    return done


def environment(folder: Path, **variables: str) -> dict[str, str]:
    """A user's environment without Prefect's and MLflow's own settings; this interpreter first on PATH."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
    return {**kept, "PYTHONPATH": str(folder), "PATH": path, "DVC_NO_ANALYTICS": "1", **variables}


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _without_server(params: Path) -> None:
    params.write_text(params.read_text(encoding="utf-8").replace("engine: vllm", "engine: transformers"), encoding="utf-8")
