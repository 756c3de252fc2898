"""A project that was moved or copied logs into its own folder, and finds its earlier runs and models there."""

import shutil
import sqlite3
from pathlib import Path

import pytest
from evaluated import evaluated_project

from apprentice.config import Layout, PipelineConfig
from apprentice.tracking.moved import DATABASE, follow
from apprentice.tracking.registry import register
from apprentice.tracking.runs import log_run
from apprentice.tracking.store import connect
from flows import pages

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


def log(config: PipelineConfig, folder: Path, number: int) -> str:
    """Log and register the evaluated pipeline again; return the gate's reason."""
    layout = Layout("quick", folder)
    tracked = log_run(config, layout, {"data/quick/tasks.parquet": f"{number}" * 32})
    return register(config, layout, tracked.run_id, f"{number}" * 32).reason


def files(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and DATABASE not in path.name}


def addresses(folder: Path) -> str:
    """Return the contents of the database as SQL."""
    with sqlite3.connect(folder / DATABASE) as connection:
        return "\n".join(connection.iterdump())


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[PipelineConfig, Path]:
    """A project with a champion."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    config, *_ = evaluated_project(tmp_path / "project", number=48)
    assert "the first champion" in log(config, tmp_path / "project", 1)
    return config, tmp_path / "project"


def test_a_moved_project_leaves_the_old_folder_alone_and_finds_what_it_had(project: tuple[PipelineConfig, Path], tmp_path: Path):
    config, old = project
    moved = (tmp_path / "another folder" / "Ähre").resolve()
    moved.parent.mkdir()
    old.rename(moved)
    assert "over champion version 1" in log(config, moved, 2)  # its results were read
    assert not old.exists() and old.as_uri() not in addresses(moved)
    client = connect(moved)
    for version in ("1", "2"):
        model = client.get_model_version("deepsearch-quick", version)
        assert model.source == client.get_model_version_download_uri("deepsearch-quick", version) == (moved / "models/quick/policy").as_uri()
        assert client.get_run(model.run_id).info.artifact_uri.startswith((moved / ".apprentice/mlartifacts").as_uri())
        assert "per_task.json" in {artifact.path for artifact in client.list_artifacts(model.run_id)}


def test_a_copied_project_and_its_original_write_into_their_own_folders(project: tuple[PipelineConfig, Path]):
    config, original = project
    copy = original / "copy"  # below the original, where every address begins with the original's
    shutil.copytree(original, copy)
    before = files(original) - {Path("copy") / path for path in files(copy)}
    log(config, copy, 2)
    follow(copy)
    assert files(original) - {Path("copy") / path for path in files(copy)} == before and len(files(copy)) > len(before)
    assert "/copy/copy" not in addresses(copy) and "/copy" not in addresses(original)
    log(config, original, 3)
    assert len(connect(copy).search_model_versions("name = 'deepsearch-quick'")) == 2


def test_mlflows_pages_use_the_files_of_the_moved_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """This is what `make mlflow` does before it serves pages."""
    with sqlite3.connect(tmp_path / DATABASE) as connection:
        connection.execute("CREATE TABLE experiments (artifact_location TEXT)")
        rows = ["file:///old/a%20b/.apprentice/mlartifacts", "file:///elsewhere/mlruns/1", None]
        connection.executemany("INSERT INTO experiments VALUES (?)", [(row,) for row in rows])
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    command, variables = pages.mlflow("127.0.0.1", 5000, "key")
    assert variables["MLFLOW_BACKEND_STORE_URI"] == f"sqlite:///{tmp_path / DATABASE}" and "key" not in command
    with sqlite3.connect(tmp_path / DATABASE) as connection:
        kept = [row for (row,) in connection.execute("SELECT artifact_location FROM experiments")]
    assert kept == [(tmp_path / ".apprentice/mlartifacts").as_uri(), *rows[1:]]


def test_addresses_are_replaced_all_or_none(tmp_path: Path):
    with sqlite3.connect(tmp_path / DATABASE) as connection:
        connection.execute("CREATE TABLE experiments (artifact_location TEXT)")
        connection.execute("CREATE TABLE runs (artifact_uri TEXT CHECK (artifact_uri LIKE 'file:///old/%'))")
        connection.execute("INSERT INTO experiments VALUES ('file:///old/.apprentice/mlartifacts')")
        connection.execute("INSERT INTO runs VALUES ('file:///old/.apprentice/mlartifacts/r/artifacts')")
    before = addresses(tmp_path)
    with pytest.raises(sqlite3.IntegrityError):
        follow(tmp_path)
    assert addresses(tmp_path) == before
