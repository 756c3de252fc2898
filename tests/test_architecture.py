"""The architecture: which way imports point, where each tool may be used, that the core knows no use case, what no file may name."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from import_closure import imported as imported_by

ROOT = Path(__file__).resolve().parent.parent

# A module may import packages of a lower level, and its own package; packages of one level do not know each other, except where ALLIES says so.
LEVELS = {
    "errors": 0,
    "precision": 0,
    "processes": 0,
    "location": 1,
    "records": 1,
    "config": 1,
    "environments": 2,
    "data": 2,
    "policy": 2,
    "display": 2,
    "rollout": 3,
    "learning": 3,
    "evaluation": 3,
    "online": 4,
    "planning": 4,
    "tracking": 4,
    "summary": 4,
    "versioning": 4,
    "usecases": 5,
    "stages": 5,
    "cli": 6,
    "__main__": 7,
    "tasks": 8,
    "flows": 9,
}
ALLIES = {("config", "records")}
"""Packages of one level where the first may import the second."""

TOOLS = {
    "prefect": ("flows", "tasks"),
    "mlflow": ("tracking",),
    "dvc": ("versioning",),
    "great_expectations": ("data",),
    "deepspeed": ("learning",),
    "vllm": ("policy",),
}
"""Tool -> the only packages that import it."""

HEAVY = ("torch", "transformers", "vllm", "deepspeed", "great_expectations", "mlflow", "prefect", "matplotlib")


def sources() -> list[Path]:
    files = [path for package in ("apprentice", "tasks", "flows") for path in (ROOT / package).rglob("*.py")]
    return sorted(path.relative_to(ROOT) for path in files)


def package(path: Path) -> str:
    parts = path.with_suffix("").parts
    return parts[1] if parts[0] == "apprentice" and len(parts) > 1 else parts[0]


def imported(path: Path) -> Iterator[str]:
    return imported_by(ROOT / path)


def package_of_import(name: str) -> str | None:
    parts = name.split(".")
    if parts[0] in ("tasks", "flows"):
        return parts[0]
    return parts[1] if parts[0] == "apprentice" and len(parts) > 1 else None


def may_import(importer: str, target: str) -> bool:
    return importer == target or (importer, target) in ALLIES or LEVELS[importer] > LEVELS[target]


@pytest.mark.parametrize("path", sources(), ids=str)
def test_imports_point_one_way(path: Path):
    mine = package(path)
    if mine == "__init__":
        return
    assert mine in LEVELS, f"{mine} has no level"
    wrong = [name for name in imported(path) if (target := package_of_import(name)) and not may_import(mine, target)]
    assert not wrong, f"{path} imports {wrong}"


@pytest.mark.parametrize("path", sources(), ids=str)
def test_tools_are_imported_only_where_they_belong(path: Path):
    for name in imported(path):
        tool = name.split(".")[0]
        assert package(path) in TOOLS.get(tool, (package(path),)), f"{path} imports {name}"


@pytest.mark.parametrize("path", [path for path in sources() if path.name == "__init__.py"], ids=str)
def test_packages_import_nothing_heavy(path: Path):
    assert not [name for name in imported(path) if name.split(".")[0] in HEAVY]


@pytest.mark.parametrize("path", [path for path in sources() if path.parts[0] == "apprentice"], ids=str)
def test_the_library_does_not_know_prefect(path: Path):
    assert not [name for name in imported(path) if name.split(".")[0] in ("prefect", "flows", "tasks")]


@pytest.mark.parametrize("path", [path for path in sources() if "usecases" not in path.parts], ids=str)
def test_the_core_imports_no_use_case(path: Path):
    assert not [name for name in imported(path) if name.startswith("apprentice.usecases")]


def test_use_cases_do_not_know_each_other():
    for path in sources():
        if path.parts[:2] == ("apprentice", "usecases") and len(path.parts) > 3:
            others = [name for name in imported(path) if name.startswith("apprentice.usecases.") and name.split(".")[2] != path.parts[2]]
            assert not others, f"{path} imports {others}"


def test_apprentice_never_imports_the_engine_nor_the_engine_apprentice():
    engine = sorted(path.relative_to(ROOT) for path in (ROOT / "appworld_engine").rglob("*.py"))
    assert engine and not [path for path in engine if any(name.split(".")[0] == "apprentice" for name in imported(path))]
    assert not [path for path in sources() if any(name.split(".")[0] in ("engine", "generator", "appworld_engine", "appworld") for name in imported(path))]


@pytest.mark.parametrize("path", sources(), ids=str)
def test_every_module_says_what_it_is_for(path: Path):
    assert ast.get_docstring(ast.parse((ROOT / path).read_text(encoding="utf-8"))), f"{path} has no docstring"


def shipped_texts() -> list[Path]:
    """Every text file that is or will be committed."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    names = (ROOT / name for name in listed.stdout.splitlines())
    return [path for path in names if path.is_file() and b"\0" not in path.read_bytes()[:4096]]


def test_no_file_names_a_machine_or_a_persons_folder():
    # Written in pieces, so that this file is clean itself.
    machine_path = re.compile(r"(?<![\w.}/])/(?:wor" + r"k|home/(?!apprentice)\w+|Users/\w+|ro" + r"ot/\w+|m" + r"nt/\w+)\b(?!/flow)")
    found = []
    for path in shipped_texts():
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            if machine_path.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert not found, "\n".join(found)
