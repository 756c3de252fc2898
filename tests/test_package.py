"""The package `apprentice`: what it declares that it needs, and what it installs."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
OTHER_ENVIRONMENTS = ("policy/serving/",)
"""Programs that run in .venv-serve."""


def declared() -> dict[str, Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {canonicalize_name(found.name): found for found in map(Requirement, project["dependencies"])}


def pins() -> dict[str, str]:
    lines = [line for name in ("core", "torch") for line in (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8").splitlines()]
    return {canonicalize_name(name): version for name, equals, version in (line.partition("==") for line in lines) if equals}


def imported() -> Iterator[str]:
    """The top-level names of all modules that the library, the flows and the tasks import."""
    for path in (path for folder in ("apprentice", "flows", "tasks") for path in (ROOT / folder).rglob("*.py")):
        if not any(part in path.as_posix() for part in OTHER_ENVIRONMENTS):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module] if isinstance(node, ast.ImportFrom) else []
                yield from (name.split(".")[0] for name in names)


def test_every_imported_package_is_declared():
    distributions = packages_distributions()
    third_party = set(imported()) - set(sys.stdlib_module_names) - {"apprentice", "flows", "tasks"}
    undeclared = [name for name in third_party if not declared().keys() & {canonicalize_name(found) for found in distributions.get(name, [name])}]
    assert not undeclared


@pytest.mark.parametrize("name", declared())
def test_the_tested_version_of_a_dependency_is_one_that_is_declared(name: str):
    assert declared()[name].specifier.contains(pins()[name])


@pytest.mark.slow
def test_a_wheel_holds_the_library_the_engine_and_the_command_and_no_other_package(tmp_path: Path):
    source = tmp_path / "source"
    for name in ("apprentice", "appworld_engine", "flows", "tasks"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", str(tmp_path), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        names = wheel.namelist()
        scripts = wheel.read(next(name for name in names if name.endswith("entry_points.txt"))).decode()
    assert {re.sub(r"-[^/]*\.dist-info/.*", "", name).split("/")[0] for name in names} == {"apprentice", "appworld_engine"}
    assert "apprentice = apprentice.cli:entry" in scripts
    files = {path.relative_to(source).as_posix() for path in (source / "apprentice").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert files <= set(names)


def test_a_run_outside_a_project_is_one_error(tmp_path: Path):
    command = [sys.executable, "-m", "apprentice", "run", "quick"]
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("error: flows/: ") and "run from the project's root" in done.stderr
