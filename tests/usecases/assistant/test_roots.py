"""Data roots: invalid ones are refused, valid ones are read, and a generated root appears completely or not at all."""

import json
import os
import stat
import sys
from pathlib import Path

import pytest

from apprentice.errors import ApprenticeError
from apprentice.usecases.assistant.source.roots import APPWORLD_VERSION, DATA_VERSION, DataRoot, ensure_generated, official_root

IDS = {"train": ("aaa1111_1", "aaa1111_2"), "dev": ("bbb2222_1",), "test_normal": ("ccc3333_1",)}


def make_root(path: Path, marker: dict | None = None) -> Path:
    """Create a root in AppWorld's layout with empty databases."""
    data = path / "data"
    for part in ("api_docs/standard", "base_dbs", "datasets"):
        (data / part).mkdir(parents=True)
    (data / "api_docs" / "standard" / "venmo.json").write_text("{}")
    (data / "base_dbs" / "venmo.db").write_bytes(b"")
    (data / "version.txt").write_text(DATA_VERSION)
    for split, ids in IDS.items():
        (data / "datasets" / f"{split}.txt").write_text("".join(f"{task_id}\n" for task_id in ids))
        for task_id in ids:
            truth = data / "tasks" / task_id / "ground_truth"
            truth.mkdir(parents=True)
            supervisor = {"first_name": "Ada", "last_name": "Lee", "email": "ada@example.com", "phone_number": "123"}
            specs = {"instruction": f"Do {task_id}.", "supervisor": supervisor, "datetime": "2024-05-18T12:00:00", "db_version": DATA_VERSION}
            (data / "tasks" / task_id / "specs.json").write_text(json.dumps(specs))
            (truth / "metadata.json").write_text(json.dumps({"difficulty": 2}))
    if marker is not None:
        (path / "generated.json").write_text(json.dumps(marker))
    return path


def marker(**changes) -> dict:
    return {"seed": 7, "appworld": APPWORLD_VERSION, "scenarios": 3, "variants": 3, "tasks": 4, "complete": True} | changes


def test_a_valid_root_gives_its_splits_and_tasks(tmp_path: Path):
    root = DataRoot.open(make_root(tmp_path / "root"))
    assert root.splits == IDS and root.seed is None
    task = root.task("aaa1111_2")
    assert (task.scenario, task.split, task.instruction, task.difficulty) == ("aaa1111", "train", "Do aaa1111_2.", 2)
    assert task.supervisor["email"] == "ada@example.com"
    assert task.apps == () and root.steps("aaa1111_2") == ()


def test_tags_of_ids_are_not_part_of_them(tmp_path: Path):
    path = make_root(tmp_path / "root")
    (path / "data" / "datasets" / "dev.txt").write_text("bbb2222_1:new\n\n")
    assert DataRoot.open(path).split("dev") == ("bbb2222_1",)


def test_an_unknown_task_is_refused_with_similar_ids(tmp_path: Path):
    root = DataRoot.open(make_root(tmp_path / "root"))
    with pytest.raises(ApprenticeError, match="no task 'aaa1111_9'") as refusal:
        root.task("aaa1111_9")
    assert "aaa1111_1" in refusal.value.todo


def test_an_unknown_split_is_refused_with_the_existing_ones(tmp_path: Path):
    with pytest.raises(ApprenticeError, match="test_normal"):
        DataRoot.open(make_root(tmp_path / "root")).split("test_challenge")


def test_no_such_folder_is_refused(tmp_path: Path):
    with pytest.raises(ApprenticeError, match="no such AppWorld data root"):
        DataRoot.open(tmp_path / "nowhere")


def test_the_data_folder_itself_is_refused_with_its_parent(tmp_path: Path):
    path = make_root(tmp_path / "root")
    with pytest.raises(ApprenticeError) as refusal:
        DataRoot.open(path / "data")
    assert str(path) in refusal.value.todo


@pytest.mark.parametrize("part", ["datasets", "base_dbs", "api_docs", "tasks"])
def test_an_incomplete_root_is_refused(tmp_path: Path, part: str):
    path = make_root(tmp_path / "root")
    (path / "data" / part).rename(tmp_path / "elsewhere")
    with pytest.raises(ApprenticeError, match=f"AppWorld data root is incomplete: data/{part} is missing") as refusal:
        DataRoot.open(path)
    assert "appworld download data" in refusal.value.todo


def test_tasks_missing_from_a_split_are_refused(tmp_path: Path):
    path = make_root(tmp_path / "root")
    (path / "data" / "tasks" / "bbb2222_1" / "specs.json").unlink()
    with pytest.raises(ApprenticeError, match="1 of 1 tasks of dev are missing, the first is bbb2222_1"):
        DataRoot.open(path)


def test_data_of_another_version_is_refused(tmp_path: Path):
    path = make_root(tmp_path / "root")
    (path / "data" / "version.txt").write_text("0.2.0")
    with pytest.raises(ApprenticeError, match="holds AppWorld data 0.2.0"):
        DataRoot.open(path)


def test_tasks_of_another_version_are_refused(tmp_path: Path):
    path = make_root(tmp_path / "root")
    for specs in (path / "data" / "tasks").glob("*/specs.json"):
        specs.write_text(specs.read_text().replace(f'"db_version": "{DATA_VERSION}"', '"db_version": "9.9"'))
    with pytest.raises(ApprenticeError, match="holds AppWorld data 9.9"):
        DataRoot.open(path)


def test_a_broken_specs_file_is_refused_by_name(tmp_path: Path):
    path = make_root(tmp_path / "root")
    for specs in (path / "data" / "tasks").glob("*/specs.json"):
        specs.write_text("{")
    with pytest.raises(ApprenticeError, match=r"specs.json: is not JSON"):
        DataRoot.open(path)


def test_an_unfinished_generated_root_is_refused(tmp_path: Path):
    with pytest.raises(ApprenticeError, match="generated AppWorld root is incomplete"):
        DataRoot.open(make_root(tmp_path / "root", marker(complete=False)))


def test_a_root_generated_for_another_version_is_refused(tmp_path: Path):
    with pytest.raises(ApprenticeError, match="was generated for appworld 0.0.1"):
        DataRoot.open(make_root(tmp_path / "root", marker(appworld="0.0.1")))


def test_the_official_root_is_where_the_variable_points(tmp_path: Path):
    path = make_root(tmp_path / "root")
    assert official_root({}) is None
    assert official_root({"APPWORLD_ROOT": str(path)}).path == path


# --- generated roots, with a stand-in for the generator's process


def stand_in(folder: Path, body: str) -> Path:
    """Create a stand-in for AppWorld's Python that records its run and then executes `body` with `root` and `seed`."""
    (folder / "template").exists() or make_root(folder / "template", marker())
    program = folder / "python"
    program.write_text(
        f"#!{sys.executable}\n"
        "import json, pathlib, shutil, sys\n"
        "arguments = dict(zip(sys.argv[3::2], sys.argv[4::2]))\n"
        "root, seed = pathlib.Path(arguments['--root']), int(arguments['--seed'])\n"
        f"with open({str(folder / 'runs')!r}, 'a') as runs: runs.write('ran\\n')\n"
        f"def make():\n    shutil.copytree({str(folder / 'template')!r}, root)\n"
        "    (root / 'generated.json').write_text((root / 'generated.json').read_text().replace('\"seed\": 7', f'\"seed\": {seed}'))\n" + body
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program


GOOD = "for done in (1, 2): print(json.dumps({'done': done, 'total': 2, 'task': 'x'}), flush=True)\nprint('some warning')\nmake()\n"


def runs(folder: Path) -> int:
    return len((folder / "runs").read_text().splitlines())


def beside(root: Path) -> list[str]:
    return sorted(path.name for path in root.parent.iterdir())


def test_a_generated_root_is_made_once(tmp_path: Path):
    python, root, seen = stand_in(tmp_path, GOOD), tmp_path / "made" / "root", []
    made = ensure_generated(python, root, 7, lambda done, total: seen.append((done, total)))
    assert made.seed == 7 and made.splits == IDS
    assert seen == [(1, 2), (2, 2)]
    assert beside(root) == ["root"]
    ensure_generated(python, root, 7)
    assert runs(tmp_path) == 1


def test_another_seed_replaces_a_generated_root(tmp_path: Path):
    python, root = stand_in(tmp_path, GOOD), tmp_path / "made" / "root"
    ensure_generated(python, root, 7)
    assert ensure_generated(python, root, 8).seed == 8
    assert runs(tmp_path) == 2 and beside(root) == ["root"]


def test_a_failing_generator_leaves_nothing_and_its_message_is_shown(tmp_path: Path):
    python, root = (
        stand_in(tmp_path, "root.mkdir(); print('task a_1, case no-op: must fail but passes', file=sys.stderr); sys.exit(2)\n"),
        tmp_path / "made" / "root",
    )
    with pytest.raises(ApprenticeError, match="exit code 2: task a_1, case no-op: must fail but passes"):
        ensure_generated(python, root, 7)
    assert beside(root) == []


def test_a_failing_generator_leaves_the_old_root_alone(tmp_path: Path):
    root = make_root(tmp_path / "made" / "root", marker(seed=3))
    with pytest.raises(ApprenticeError, match="exit code 1"):
        ensure_generated(stand_in(tmp_path, "sys.exit(1)\n"), root, 7)
    assert DataRoot.open(root).seed == 3 and beside(root) == ["root"]


def test_a_folder_that_was_not_generated_is_never_replaced(tmp_path: Path):
    root = make_root(tmp_path / "made" / "root")
    with pytest.raises(ApprenticeError, match="is not a generated AppWorld root"):
        ensure_generated(stand_in(tmp_path, GOOD), root, 7)
    assert DataRoot.open(root).seed is None


def test_without_appworlds_python_the_todo_says_how_to_install_it(tmp_path: Path):
    with pytest.raises(ApprenticeError, match="AppWorld is not installed") as refusal:
        ensure_generated(tmp_path / "no-python", tmp_path / "root", 7)
    assert "requirements/install.py appworld" in refusal.value.todo


def test_a_finished_root_needs_no_python(tmp_path: Path):
    root = make_root(tmp_path / "root", marker())
    assert ensure_generated(tmp_path / "no-python", root, 7).path == root


def test_the_generators_environment_does_not_inherit_another_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("APPWORLD_ROOT", os.fspath(tmp_path / "official"))
    body = f"import os; open({str(tmp_path / 'seen')!r}, 'w').write(repr(os.environ.get('APPWORLD_ROOT')))\nmake()\n"
    ensure_generated(stand_in(tmp_path, body), tmp_path / "made" / "root", 7)
    assert (tmp_path / "seen").read_text() == "None"


def test_a_variable_that_names_an_unknown_user_is_an_error():
    with pytest.raises(ApprenticeError, match="APPWORLD_ROOT='~nosuchuser/x': cannot be looked up"):
        official_root({"APPWORLD_ROOT": "~nosuchuser/x"})
