"""Reading tasks of an AppWorld data root: their splits, what is passed on, and what is refused."""

import json
from collections import Counter
from pathlib import Path

import pytest

from apprentice.config import Layout, load_pipeline
from apprentice.data.validation import Lengths, validate_candidates
from apprentice.errors import ApprenticeError
from apprentice.records.events import Progress
from apprentice.stages.prepare import run as prepare
from apprentice.stages.validate import run as validate
from apprentice.usecases.assistant.source.roots import DATA_VERSION, ROOT_VARIABLE
from apprentice.usecases.assistant.source.tasks import read_appworld

PARAMS = Path(__file__).parents[3] / "params.yaml"
SCENARIOS = {"train": ("aaa1111", "bbb2222"), "dev": ("ccc3333",), "test_normal": ("ddd4444",)}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root of four scenarios in AppWorld's layout with empty databases."""
    data = tmp_path / "root" / "data"
    for part in ("api_docs", "base_dbs", "datasets"):
        (data / part).mkdir(parents=True)
    (data / "api_docs" / "venmo.json").write_text("{}")
    (data / "base_dbs" / "venmo.jsonl").write_text("")
    for split, scenarios in SCENARIOS.items():
        ids = [f"{scenario}_{variant}" for scenario in scenarios for variant in (1, 2, 3)]
        (data / "datasets" / f"{split}.txt").write_text("".join(f"{task_id}\n" for task_id in ids))
        for task_id in ids:
            truth = data / "tasks" / task_id / "ground_truth"
            truth.mkdir(parents=True)
            specs = {"instruction": f"Do what {task_id[:3]} says.", "datetime": "2024-05-18T12:00:00", "db_version": DATA_VERSION}
            (data / "tasks" / task_id / "specs.json").write_text(json.dumps(specs))
            (truth / "metadata.json").write_text('{"difficulty": 2}')
            (truth / "steps.json").write_text('["print(1)", "apis.supervisor.complete_task()"]')
    return tmp_path / "root"


@pytest.fixture
def config(root: Path):
    """A factory for the pipeline `assistant` with that root."""

    def make(**changes):
        pipeline = load_pipeline("assistant", PARAMS)
        return pipeline.model_copy(update={"data": pipeline.data.model_copy(update={"source": str(root)} | changes)})

    return make


def read(config, tmp_path: Path):
    return read_appworld(config.data, Layout("assistant", tmp_path), Progress(tmp_path / "events.jsonl", "prepare"))


def splits(candidates) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for candidate in candidates:
        found.setdefault(candidate.record["split"], []).append(candidate.record["id"])
    return found


def test_the_last_variants_of_a_training_scenario_are_held_out(config, tmp_path):
    assert splits(read(config(), tmp_path).tasks) == {
        "train": ["aaa1111_1", "aaa1111_2", "bbb2222_1", "bbb2222_2"],
        "variants": ["aaa1111_3", "bbb2222_3"],
        "dev": ["ddd4444_1", "ddd4444_2", "ddd4444_3"],
    }


def test_all_variants_can_be_learned_from_and_another_split_held_out(config, tmp_path):
    found = splits(read(config(heldout_variants=0, heldout_split="dev"), tmp_path).tasks)
    assert len(found["train"]) == 6 and "variants" not in found and found["dev"][0] == "ccc3333_1"


def test_held_out_tasks_come_without_their_solution(config, tmp_path):
    plans = {candidate.record["split"]: candidate.record["plan"] for candidate in read(config(), tmp_path).tasks}
    assert plans == {"train": ["print(1)", "apis.supervisor.complete_task()"], "variants": [], "dev": []}


def test_a_changed_root_has_another_digest(config, root, tmp_path):
    before = read(config(), tmp_path).fingerprint
    (root / "data" / "base_dbs" / "venmo.jsonl").write_text("x")
    after = read(config(), tmp_path).fingerprint
    assert before["digest"] != after["digest"] and before["root"] == after["root"] == str(root)


def test_prepare_and_validate_pass_the_tasks_on(config, tmp_path):
    settings, layout = config(train=2, dev=3), Layout("assistant", tmp_path)
    progress = Progress(layout.events, "prepare")
    prepare(settings, layout, progress)
    validate(settings, layout, progress)
    from apprentice.records.tables import read_passages, read_tasks

    tasks = read_tasks(layout.tasks)
    assert Counter(task.split for task in tasks) == {"train": 2, "variants": 1, "dev": 3}
    assert len({task.scenario for task in tasks if task.split != "dev"}) == 1
    assert all(task.judge == "environment" and task.answers == () and task.difficulty == 2 for task in tasks)
    assert read_passages(layout.corpus) == []


def test_variants_may_have_the_same_wording(config, tmp_path):
    judged = validate_candidates(read(config(), tmp_path).tasks, [], config().validation, Lengths(len, 400, 400))
    assert [entry.problems for entry in judged.tasks if entry.problems] == []


def test_the_variable_must_be_set_if_the_source_names_it(config, tmp_path, monkeypatch):
    monkeypatch.delenv(ROOT_VARIABLE, raising=False)
    with pytest.raises(ApprenticeError, match="APPWORLD_ROOT is not set"):
        read(config(source=ROOT_VARIABLE), tmp_path)


def test_the_variable_names_the_official_root(config, root, tmp_path, monkeypatch):
    monkeypatch.setenv(ROOT_VARIABLE, str(root))
    assert read(config(source=ROOT_VARIABLE), tmp_path).fingerprint["root"] == str(root)


def test_without_appworld_a_root_cannot_be_generated(config, tmp_path):
    with pytest.raises(ApprenticeError, match="AppWorld is not installed") as refusal:
        read(config(source=None), tmp_path)
    assert "requirements/install.py appworld" in str(refusal.value)


def test_a_missing_split_is_refused(config, tmp_path):
    with pytest.raises(ApprenticeError, match="has no split 'test_challenge'"):
        read(config(heldout_split="test_challenge"), tmp_path)
