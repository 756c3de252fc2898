"""dvc.yaml against the code: every stage depends on what it imports, and on the use case of its own pipeline only."""

from pathlib import Path

import pytest
from import_closure import ROOT, closure
from ruamel.yaml import YAML

from apprentice.config.stages import STAGES
from apprentice.config.usecases import PARTS, find_use_case, shipped, watched_code

DO_NOT_CHANGE_RESULTS = (
    "apprentice/config",  # the values are parameters that DVC watches in params.yaml
    "apprentice/versioning",
    "apprentice/processes",
    "apprentice/stages/entry.py",
    "apprentice/errors.py",
    "apprentice/location.py",
)
"""Modules that every stage imports and that only start, stop and report it: a change in them does not make results stale."""
PLAYS = ("distill", "filter", "rollout", "train", "evaluate")


def dependencies(stage: str, watched: dict[str, str] | None = None) -> list[Path]:
    """Code that a stage depends on, with the use case's parts filled in; none of them where `watched` is None."""
    listed = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"][stage]["do"]["deps"]
    parts = {f"${{item.{part}}}": path for part, path in (watched or {}).items()}
    return [Path(parts.get(path, path)) for path in listed if "${" not in path or path in parts]


def uncovered(files: set[Path], covered: list[Path]) -> list[str]:
    known = [*covered, *map(Path, DO_NOT_CHANGE_RESULTS)]
    return sorted(str(path) for path in files if path.name != "__init__.py" and not any(path.is_relative_to(place) for place in known))


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_every_module_that_it_imports(stage: str):
    assert not uncovered(closure(ROOT / "apprentice" / "stages" / f"{stage}.py"), dependencies(stage))


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", shipped())
def test_a_stage_depends_on_what_it_uses_of_its_use_case(name: str, stage: str):
    used = {"prepare": ("source",), "validate": ("environment",), "evaluate": ("environment", "metrics")}.get(stage, ("environment",))
    watched = watched_code(name, ROOT)
    files = closure(*(file for part in used for file in (ROOT / watched[part]).rglob("*.py")))
    own = f"apprentice/usecases/{name}/config.py"  # values are parameters
    assert not [path for path in uncovered(files, dependencies(stage, watched)) if path != own]


@pytest.mark.parametrize("name", shipped())
def test_every_part_of_a_use_case_is_there_and_watched(name: str):
    watched = watched_code(name, ROOT)
    assert tuple(watched) == PARTS and all((ROOT / path).exists() for path in watched.values())
    covered = {path for stage in STAGES for path in dependencies(stage, watched)}
    assert set(map(Path, watched.values())) <= covered
    package = Path(find_use_case(name).__module__.replace(".", "/")).parent
    files = {path.relative_to(ROOT) for path in (ROOT / package).rglob("*.py")} - {package / "config.py"}
    assert not uncovered(files, list(covered))


@pytest.mark.parametrize("stage", PLAYS)
def test_a_stage_that_plays_depends_neither_on_generators_nor_on_another_use_case(stage: str):
    paths = [str(path) for path in dependencies(stage, watched_code("deepsearch", ROOT))]
    assert not [path for path in paths if "appworld" in path or "assistant" in path or "deepsearch/source" in path]
    assert "appworld_engine/generator" not in map(str, dependencies(stage, watched_code("assistant", ROOT)))


def test_params_list_the_code_of_the_pipelines_that_are_active():
    document = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    for name, watched in document["active"].items():
        assert watched == watched_code(document["pipelines"][name]["environment"]["use"], ROOT)
