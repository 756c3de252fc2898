"""Generated data roots: one seed gives the same bytes, AppWorld accepts the tasks, and the proof rejects bad ones."""

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from apprentice.errors import ApprenticeError
from apprentice.usecases.assistant.config import ENGINE
from apprentice.usecases.assistant.source.roots import DataRoot, ensure_generated
from tests.usecases.assistant.conftest import SCENARIOS, SEED, VARIANTS

TASKS = {"train": VARIANTS, "dev": 3, "test_normal": 3}
"""Tasks per scenario of each split."""


def fingerprints(root: Path) -> dict[str, str]:
    """Return relative path -> hash of the content for every file below `root`."""
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(root.rglob("*")) if path.is_file()}


def in_appworld(python: Path, root: Path, code: str) -> subprocess.CompletedProcess:
    """Run code with AppWorld's Python and the generator on its path."""
    environment = {**os.environ, "PYTHONPATH": str(ENGINE), "APPWORLD_ROOT": str(root), "PYTHONHASHSEED": "0", "IPYTHONDIR": str(root / "ipython")}
    return subprocess.run([python, "-c", code], env=environment, capture_output=True, text=True, cwd=root)


@pytest.fixture
def copy(appworld_root: Path, tmp_path: Path) -> Path:
    """A copy of the small root that a test may change."""
    shutil.copytree(appworld_root, tmp_path / "root")
    return tmp_path / "root"


def test_the_root_is_complete_and_split_by_scenario(appworld_root: Path):
    root = DataRoot.open(appworld_root)
    scenarios = {split: {root.task(task_id).scenario for task_id in ids} for split, ids in root.splits.items()}
    assert sorted(scenarios) == ["dev", "test_normal", "train"]
    assert len(set.union(*scenarios.values())) == sum(map(len, scenarios.values())) == SCENARIOS
    assert all(len(ids) == TASKS[split] * len(scenarios[split]) for split, ids in root.splits.items())


def test_variants_differ_in_supervisor_and_instruction(appworld_root: Path):
    root = DataRoot.open(appworld_root)
    tasks = [root.task(task_id) for task_id in root.task_ids]
    for scenario in {task.scenario for task in tasks}:
        variants = [task for task in tasks if task.scenario == scenario]
        assert len({task.supervisor["email"] for task in variants}) == len(variants) == TASKS[variants[0].split]
        beyond_appworlds = {task.instruction for task in variants[3:]}
        assert len(beyond_appworlds) == len(variants[3:]) and not beyond_appworlds & {task.instruction for task in variants[:3]}
    assert all(task.difficulty in (1, 2, 3) and task.apps for task in tasks)


def test_answers_vary_and_are_not_in_the_instruction(appworld_root: Path):
    root = DataRoot.open(appworld_root)
    by_scenario: dict[str, list] = {}
    for task_id in root.task_ids:
        answer = json.loads((appworld_root / "data" / "tasks" / task_id / "ground_truth" / "answer.json").read_text())
        task = root.task(task_id)
        assert answer is None or str(answer).casefold() not in task.instruction.casefold()
        by_scenario.setdefault(task.scenario, []).append(answer)
    assert any(answers[0] is not None for answers in by_scenario.values())
    assert all(answers[0] is None or len(set(answers)) > 1 for answers in by_scenario.values())


def test_steps_begin_with_the_documentation_and_end_with_completion(appworld_root: Path):
    root = DataRoot.open(appworld_root)
    for task_id in root.task_ids:
        steps = root.steps(task_id)
        assert 2 <= len(steps) <= 6
        assert "apis.api_docs.show_api_doc(" in steps[0] and "apis.supervisor.complete_task(" in steps[-1]


def test_the_marker_counts_the_proofs_of_every_task(appworld_root: Path):
    marker = json.loads((appworld_root / "generated.json").read_text())
    assert marker["complete"] and marker["seed"] == SEED and marker["tasks"] == sum(TASKS.values())
    for case in ("no-op", "bare completion", "steps", "solution", "wrong answer"):
        assert marker["cases"][case] == marker["tasks"]
    assert marker["cases"]["collateral change"] >= 2 * marker["tasks"]


def test_appworld_itself_opens_and_judges_a_generated_task(appworld_python: Path, copy: Path):
    task_id = DataRoot.open(copy).split("train")[0]
    code = f"""
import json
from appworld import AppWorld
steps = json.load(open("data/tasks/{task_id}/ground_truth/steps.json"))
verdicts = []
for blocks in (steps, steps[:-1]):
    with AppWorld(task_id="{task_id}", experiment_name="stock") as world:
        for block in blocks:
            output = world.execute(block)
            assert not output.startswith("Execution failed"), output
        verdicts.append((world.task_completed(), world.evaluate().success))
print(json.dumps(verdicts))
"""
    result = in_appworld(appworld_python, copy, code)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout.splitlines()[-1]) == [[True, True], [False, False]]


SPOILED = """
import dataclasses, sys
from pathlib import Path
import appworld
appworld.update_root(sys.argv[1] if len(sys.argv) > 1 else ".")
from generator import build
from generator.draft import GenerationError
scenario = next(one for one in build.SCENARIOS if one.split == "train")
def spoil(draft):
    {spoil}
bad = dataclasses.replace(scenario, build=lambda scene: spoil(scenario.build(scene)))
try:
    build.SCENARIOS[:] = [bad]
    build.build_task(Path("data").absolute(), {seed}, build.plan_tasks({seed}, bad, 3)[0])
except GenerationError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("spoil", "case"),
    [
        ('return dataclasses.replace(draft, answer="something else")', "case steps: must pass but fails"),
        ('return dataclasses.replace(draft, steps=["apis.supervisor.complete_task()"], answer=None)', "case bare completion: must fail but passes"),
        ('return dataclasses.replace(draft, steps=[*draft.steps[:-1], "unknown_name"])', "case steps: Execution failed"),
    ],
)
def test_an_unsound_task_is_refused_by_name_and_case(appworld_python: Path, copy: Path, spoil: str, case: str):
    result = in_appworld(appworld_python, copy, SPOILED.format(spoil=spoil, seed=SEED))
    assert result.returncode == 0, result.stderr
    assert "scenario " in result.stdout and f"_1, {case}" in result.stdout


@pytest.mark.parametrize(("size", "message"), [({"scenarios": 2}, "--scenarios 2: must be from 3 to"), ({"variants": 10}, "--variants 10: must be from 3")])
def test_an_impossible_size_is_refused_in_one_line(appworld_python: Path, tmp_path: Path, size: dict[str, int], message: str):
    with pytest.raises(ApprenticeError, match=f"exit code 2: {message}"):
        ensure_generated(appworld_python, tmp_path / "root", SEED, **size)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_one_seed_gives_the_same_bytes(appworld_python: Path, appworld_root: Path, tmp_path: Path):
    again = ensure_generated(appworld_python, tmp_path / "again", SEED, scenarios=SCENARIOS, variants=VARIANTS)
    assert fingerprints(again.path) == fingerprints(appworld_root)
