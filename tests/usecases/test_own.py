"""A use case outside the package runs through the whole chain under DVC without a change to the product's files."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from tiny import make_tiny_checkpoint

from apprentice.config import Layout, load_pipeline
from apprentice.config.stages import STAGES
from apprentice.config.usecases import find_use_case
from apprentice.errors import ApprenticeError
from apprentice.evaluation.measures import measure_of
from apprentice.records.fingerprint import fingerprint

ROOT = Path(__file__).parents[2]
OWN = Path(__file__).parent / "own" / "arithmetic.py"
PRODUCT = ("apprentice", "appworld_engine")
SMALL = {
    "policy": {"engine": "transformers", "max_context": 1024, "max_sequences": 16},
    "distill": {"traces": 4, "batch": 2},
    "filter": {"candidates": 4, "probes": 2, "keep": 4},
    "rollout": {"tasks": 2, "attempts": 2},
    "train": {"steps": 2, "tasks_per_step": 2, "attempts": 2},
    "evaluate": {"tasks": 4},
    "register": {"model_name": "sums"},
    "validation": {},
}
LIMITS = {"max_turns": 2, "max_turn_tokens": 40, "max_failed_turns": 2, "max_tokens": 600, "concurrency": 8}


def add_pipeline(params: Path, model: str, use: str = "arithmetic:Arithmetic", **environment) -> None:
    """Add the pipeline `sums` to params.yaml as a user would: defaults, and the sections of the use case."""
    yaml = YAML()
    document = yaml.load(params.read_text())
    sections = {name: {**document["defaults"][name], **values} for name, values in SMALL.items()}
    document["pipelines"]["sums"] = {
        "description": "Sums.",
        "model": {"name": model},
        "environment": {"use": use, "calculator": True, **LIMITS, **environment},
        "data": {"format": "sums", "source": None, "seed": 0, "train": 24, "dev": 6, "largest": 10},
        **sections,
    }
    with params.open("w") as file:
        yaml.dump(document, file)


@pytest.fixture
def params(tmp_path, monkeypatch) -> Path:
    """A params.yaml in the same folder as the use case's module."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copy(OWN, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    find_use_case.cache_clear()
    yield tmp_path / "params.yaml"
    sys.modules.pop("arithmetic", None)
    find_use_case.cache_clear()


def test_its_sections_are_checked_like_those_of_a_shipped_use_case(params):
    add_pipeline(params, "tiny", calculatr=True)
    with pytest.raises(ApprenticeError, match=r"unknown parameter 'environment.calculatr' \(did you mean 'calculator'\?\)"):
        load_pipeline("sums", params)


def test_its_default_measure_is_the_success_rate(params):
    add_pipeline(params, "tiny")
    assert measure_of(load_pipeline("sums", params)).key == "success"


def test_an_installed_package_offers_it_under_a_name(params):
    installed = params.parent / "sums-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: sums\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text("[apprentice.usecases]\nsums = arithmetic:Arithmetic\n")
    add_pipeline(params, "tiny", use="sums")
    assert load_pipeline("sums", params).data.largest == 10


@pytest.mark.parametrize(
    ("use", "message"),
    [
        ("deepserch", r"there is no use case 'deepserch' \(did you mean 'deepsearch'\?\)"),
        ("nowhere:Nothing", "no module 'nowhere'"),
        ("arithmetic:Nothing", "the module 'arithmetic' has no class 'Nothing'"),
        ("arithmetic:Sums", "'arithmetic:Sums' is not a use case"),
        ("broken:Any", r"broken.py:2: the module 'broken' of the use case cannot be imported: ZeroDivisionError"),
    ],
)
def test_a_name_without_a_use_case_is_refused(params, use, message):
    (params.parent / "broken.py").write_text("x = 0\ny = 1 / x\n")
    add_pipeline(params, "tiny", use=use)
    with pytest.raises(ApprenticeError, match=message):
        load_pipeline("sums", params)


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A checkout of the product with a user's module and pipeline."""
    folder = tmp_path_factory.mktemp("project")
    for name in PRODUCT:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("params.yaml", "dvc.yaml", ".dvcignore", ".gitignore"):
        shutil.copy(ROOT / name, folder)
    shutil.copy(OWN, folder)
    add_pipeline(folder / "params.yaml", str(make_tiny_checkpoint(folder / "tiny")))
    (folder / ".dvc").mkdir()
    (folder / ".dvc" / "config").write_text("[core]\n    analytics = false\n")
    subprocess.run(["git", "init", "--quiet", "."], cwd=folder, check=True)
    return folder


def run(folder: Path, *command: str) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    variables = {**os.environ, "PATH": path, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, *command], cwd=folder, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def stale(folder: Path, pipeline: str) -> set[str]:
    """Return the stages of a pipeline whose code or inputs have changed."""
    status = json.loads(run(folder, "-m", "dvc", "status", "--json", *(f"{stage}@{pipeline}" for stage in STAGES)))
    return {name.partition("@")[0] for name in status}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_dvc_repro_runs_the_whole_chain_and_watches_its_code(project):
    before = fingerprint(*sorted(path for name in PRODUCT for path in (project / name).rglob("*.py")), project / "dvc.yaml")
    run(project, "-c", "from apprentice.config import activate; activate('sums')")
    run(project, "-m", "dvc", "repro", "evaluate@sums")
    metrics = json.loads(Layout("sums", project).metrics("evaluation").read_text())
    assert {"success", "n", "success_ci95"} <= metrics["trained"].keys() and metrics["trained"]["n"] == 4
    assert "success rate" in Layout("sums", project).report.read_text()
    assert json.loads(Layout("sums", project).metrics("distill").read_text())["traces"] == 4
    assert fingerprint(*sorted(path for name in PRODUCT for path in (project / name).rglob("*.py")), project / "dvc.yaml") == before
    assert "sums" in run(project, "-m", "apprentice", "register", "sums")

    assert not stale(project, "sums")
    (project / "appworld_engine" / "engine" / "world.py").write_text("# changed\n")
    with (project / "apprentice" / "usecases" / "deepsearch" / "environment" / "scoring.py").open("a") as file:
        file.write("# changed\n")
    assert not stale(project, "sums")
    with (project / "arithmetic.py").open("a") as file:
        file.write("# changed\n")
    assert stale(project, "sums") >= {"prepare", "train", "evaluate"}
