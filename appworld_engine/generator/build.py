"""Builds a data root: documentation, base databases, proven tasks, datasets, and finally the marker of completeness."""

import contextlib
import hashlib
import json
import os
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import appworld
import appworld.ground_truth as ground_truth_module
from appworld.apps import get_all_apps
from appworld.apps.admin.models import MainUserMunch
from appworld.apps.api_lib import set_local_date_and_time, unset_local_date_and_time
from appworld.collections.api_docs import ApiDocCollection
from appworld.collections.models import ModelCollection
from appworld.common.constants import CANARY_STRING, DB_VERSION
from appworld.common.datetime import DateTime
from appworld.common.random import set_random_seed
from appworld.common.utils import write_json
from appworld.evaluator import TestTracker
from appworld.ground_truth import GroundTruth
from appworld.task import Task

from generator import content, people
from generator.draft import Draft, GenerationError, all_steps, login, solution_code
from generator.evaluation import evaluation_code, private_data
from generator.proof import COLLATERAL, Proof
from generator.proof_world import ProofWorld, close, drop_databases, end_with_parent, is_warm, warm_up
from generator.scenarios import SCENARIOS
from generator.scene import MAX_VARIANTS, VARIANTS, Scenario, Scene

NOW = DateTime(2024, 5, 18, 12, 0, 0)
"""The time at which every task is given, a Saturday."""
APPS = get_all_apps(skip_admin=True)
DATASETS = ("train", "dev", "test_normal")
MARKER = "generated.json"
API_DOC_FIELDS = ("api_name", "path", "method", "description", "parameters", "response_schemas")

# Only AppWorld's developers have this formatter, and the layout of the files does not matter here.
ground_truth_module.run_ruff = lambda *args, **kwargs: None


@dataclass(frozen=True)
class TaskPlan:
    """One task to build."""

    task_id: str
    scenario: str
    variant: int
    supervisor: int


@dataclass(frozen=True)
class BuiltTask:
    """One finished task."""

    plan: TaskPlan
    cases: Sequence[str]
    answer: int | float | str | None


def build(
    root: Path,
    seed: int,
    scenarios: int | None = None,
    variants: int = VARIANTS,
    progress: Callable[[int, int, str], None] = lambda *_: None,
) -> None:
    """Generate a data root in `root`, which must not exist or be empty, on all cores.

    Args:
        scenarios: number of scenarios to keep, in proportion from each split; None keeps all.
        variants: tasks of each `train` scenario; the others have VARIANTS.
        progress: called with (tasks done, total tasks, task id).

    Raises:
        GenerationError: the folder is not empty, or a task fails its proof.
    """
    if root.exists() and any(root.iterdir()):
        raise GenerationError(f"{root} is not empty")
    if not VARIANTS <= variants <= MAX_VARIANTS:
        raise GenerationError(f"--variants {variants}: must be from {VARIANTS} to {MAX_VARIANTS}")
    chosen = choose(scenarios)
    plans = [plan for scenario in chosen for plan in plan_tasks(seed, scenario, variants if scenario.split == "train" else VARIANTS)]
    appworld.update_root(str(root))
    data = root / "data"
    data.mkdir(parents=True, exist_ok=True)
    marker = {"seed": seed, "appworld": appworld.__version__, "scenarios": len(chosen), "variants": variants, "tasks": len(plans), "complete": False}
    _write_marker(root, marker)
    (data / "version.txt").write_text(DB_VERSION + "\n")
    _write_api_docs(data)
    _write_base(data, seed)
    built = []
    for task in _build_tasks(data, seed, plans):
        built.append(task)
        progress(len(built), len(plans), task.plan.task_id)
    _check_answers(built)
    (data / "datasets").mkdir()
    for split in DATASETS:
        names = {scenario.name for scenario in chosen if scenario.split == split}
        (data / "datasets" / f"{split}.txt").write_text("".join(f"{plan.task_id}\n" for plan in plans if plan.scenario in names))
    shutil.rmtree(root / "experiments", ignore_errors=True)
    cases = Counter(case.split(" in ")[0] for task in built for case in task.cases)
    _write_marker(root, marker | {"cases": dict(sorted(cases.items())), "complete": True})


def _write_marker(root: Path, marker: dict[str, Any]) -> None:
    (root / MARKER).write_text(json.dumps(marker, indent=1) + "\n")


def choose(count: int | None) -> list[Scenario]:
    """Return the first `count` scenarios, with an eighth of them (at least one) in each of dev and test_normal.

    None chooses all.

    Raises:
        GenerationError: `count` is less than one per split, or more than there are.
    """
    if count is None:
        return list(SCENARIOS)
    if not len(DATASETS) <= count <= len(SCENARIOS):
        raise GenerationError(f"--scenarios {count}: must be from {len(DATASETS)} to {len(SCENARIOS)}")
    held_out = max(1, count // 8)
    wanted = {"train": count - 2 * held_out, "dev": held_out, "test_normal": held_out}
    return [scenario for split in DATASETS for scenario in [one for one in SCENARIOS if one.split == split][: wanted[split]]]


def _random(*parts) -> random.Random:
    """Return a random generator for one purpose, and seed AppWorld's factories (Faker) with the same number."""
    number = int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:6], "big")
    set_random_seed(number, python=True, faker_=True, model_factory=True)
    return random.Random(number)


def _write_api_docs(data: Path) -> None:
    folder = data / "api_docs" / "standard"
    folder.mkdir(parents=True)
    for app, docs in ApiDocCollection.build(load_apps=tuple(APPS)).copy().items():
        for doc in docs.values():
            doc["canary_string"] = CANARY_STRING
        write_json(docs, str(folder / f"{app}.json"), silent=True)


def _write_base(data: Path, seed: int) -> None:
    """Write the databases from which all tasks start: all people, their data, and the API documentation."""
    with _frozen():
        home = ":memory:base"
        rng = _random(seed, "base")
        models = ModelCollection.load(to_db_home_path=home, from_db_home_path=home, load_apps=get_all_apps(), create_db=True)
        everyone = people.populate(models, NOW, rng)
        content.populate(models, NOW, rng, everyone, everyone[: people.SUPERVISORS])
        for app, docs in ApiDocCollection.build(load_apps=tuple(APPS)).copy().items():
            for doc in docs.values():
                models.api_docs.ApiDoc.create_save(app_name_=app, **{name: doc[name] for name in API_DOC_FIELDS})
        models.save(str(data / "base_dbs"), format="full", app_names=get_all_apps(), delete_if_exists=True)
        models.close()


@contextlib.contextmanager
def _frozen():
    """Freeze AppWorld's clock at NOW; no cached database crosses into or out of the block."""
    drop_databases()
    freezer = set_local_date_and_time(NOW)
    try:
        yield
    finally:
        drop_databases()
        unset_local_date_and_time(freezer)


def plan_tasks(seed: int, scenario: Scenario, variants: int) -> list[TaskPlan]:
    """Return the tasks of a scenario, each given by a different supervisor."""
    supervisors = _random(seed, scenario.name, "supervisors").sample(range(1, people.SUPERVISORS + 1), variants)
    name = hashlib.sha256(f"{seed}:{scenario.name}".encode()).hexdigest()[:7]
    return [TaskPlan(f"{name}_{variant + 1}", scenario.name, variant, supervisor) for variant, supervisor in enumerate(supervisors)]


def _build_tasks(data: Path, seed: int, plans: Sequence[TaskPlan]) -> Iterator[BuiltTask]:
    """Build the tasks on all cores, and yield each when it is finished.

    Raises:
        GenerationError: a task fails its proof; the remaining tasks are cancelled.
    """
    cores = len(os.sched_getaffinity(0))
    pool = ProcessPoolExecutor(min(cores, len(plans)), get_context("fork"), end_with_parent)
    try:
        futures: Iterable[Future[BuiltTask]] = [pool.submit(build_task, data, seed, plan) for plan in plans]
        for future in as_completed(futures):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def build_task(data: Path, seed: int, plan: TaskPlan) -> BuiltTask:
    """Build and prove one task.

    Raises:
        GenerationError: the task fails its proof, or its instruction contains the answer.
    """
    scenario = next(one for one in SCENARIOS if one.name == plan.scenario)
    try:
        with _frozen():
            draft = _save_task(data, seed, plan, scenario)
        if not is_warm():
            warm_up(plan.task_id, [login(*sorted(COLLATERAL)), *COLLATERAL.values()])
        cases = _prove(plan.task_id, scenario, draft)
        if draft.answer is not None and str(draft.answer).casefold() in draft.instruction.casefold():
            raise GenerationError(f"task {plan.task_id}: the instruction gives the answer away: {draft.answer}")
    except GenerationError as error:
        raise GenerationError(f"scenario {scenario.name}: {error}") from error
    (data / "tasks" / plan.task_id / "ground_truth" / "steps.json").write_text(json.dumps(all_steps(draft), indent=1) + "\n")
    return BuiltTask(plan, cases, draft.answer)


def _save_task(data: Path, seed: int, plan: TaskPlan, scenario: Scenario) -> Draft:
    home = f":memory:task_input-{plan.task_id}"
    models = ModelCollection.load(to_db_home_path=home, from_db_home_path=str(data / "base_dbs"), load_apps=get_all_apps())
    user = models.admin.MainUser.by_id(plan.supervisor)
    rng = _random(seed, scenario.name, plan.variant)
    account = _install_supervisor(models, user)
    draft = scenario.build(Scene(models, user, NOW, rng, plan.variant))
    models.supervisor.Task.create_save(supervisor_id=account.id, instruction=draft.instruction)
    task = Task(
        id=plan.task_id,
        instruction=draft.instruction,
        supervisor=MainUserMunch.from_main_user(user),
        datetime=NOW.to_datetime(),
        allowed_apps=APPS,
        db_version=DB_VERSION,
        model_collection=models,
    )
    task.ground_truth = _ground_truth(plan.task_id, scenario, draft)
    task.save(delete_if_exists=True, ground_truth_mode="full", model_collection_format="changes")
    task.close()
    return draft


def _install_supervisor(models, user):
    """Copy what the agent may know about its supervisor into the supervisor app."""
    admin, app = models.admin, models.supervisor
    names = ("first_name", "last_name", "email", "phone_number", "birthday", "sex")
    account = app.Supervisor.create_save(**{name: getattr(user, name) for name in names})
    for entry in admin.AccountPassword.find_all(main_user_id=user.id):
        app.AccountPassword.create_save(supervisor_id=account.id, account_name=entry.account_name, password=entry.password)
    names = ("street_address", "city", "state", "country", "zip_code")
    for entry in admin.UserAddress.find_all(main_user_id=user.id):
        address = admin.GlobalAddress.by_id(entry.global_address_id)
        app.Address.create_save(supervisor_id=account.id, name=entry.name, **{name: getattr(address, name) for name in names})
    names = ("owner_name", "card_name", "card_number", "expiry_year", "expiry_month", "cvv_number")
    for card in admin.PaymentCard.find_all(main_user_id=user.id):
        app.PaymentCard.create_save(supervisor_id=account.id, **{name: getattr(card, name) for name in names})
    return account


def _ground_truth(task_id: str, scenario: Scenario, draft: Draft, test_data: list | None = None, api_calls: list | None = None) -> GroundTruth:
    code = solution_code(draft)
    return GroundTruth(
        task_id=task_id,
        required_apps=draft.required_apps,
        public_data=dict(draft.public),
        private_data=private_data(draft),
        answer=draft.answer,
        evaluation_code=evaluation_code(draft),
        solution_code=code,
        compiled_solution_code=code,
        generator_code="",
        test_data=test_data,
        api_calls=api_calls,
        metadata={"mode": "full", "difficulty": scenario.difficulty, "scenario": scenario.name, "num_solution_code_lines": code.count("\n") - 1},
    )


def _prove(task_id: str, scenario: Scenario, draft: Draft) -> list[str]:
    """Prove the task, save which checks distinguish the solution and which calls it makes, and return the cases."""
    world = ProofWorld(task_id)
    try:
        proof = Proof(task_id, draft, world)
        found = proof.run()
        truth = _ground_truth(task_id, scenario, draft, TestTracker.prepare_test_data(found["solved"], found["nothing"]), found["calls"])
        truth.verify_required_apps()
        truth.save(mode="full", delete_if_exists=True)
        return proof.cases
    finally:
        close(world)
        shutil.rmtree(world.output_directory, ignore_errors=True)


def _check_answers(built: Sequence[BuiltTask]) -> None:
    """Refuse a scenario whose variants share one answer, which a model could memorise."""
    answers: dict[str, set] = {}
    for task in built:
        answers.setdefault(task.plan.scenario, set()).add(task.answer)
    for scenario, given in answers.items():
        if len(given) == 1 and given != {None}:
            raise GenerationError(f"scenario {scenario}: all variants have the same answer: {given.pop()}")
