"""Registers trained policies in MLflow, and decides whether a challenger becomes the champion."""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from apprentice.config import Layout, PipelineConfig
from apprentice.evaluation.gains import Gains, p_value, read_evaluation, too_few
from apprentice.evaluation.measures import measure_of
from apprentice.evaluation.statistics import SIGNIFICANCE, Difference, paired_difference
from apprentice.records.files import read_json
from apprentice.tracking.failures import reports_store_errors
from apprentice.tracking.outcome import FILE, PerTask, per_task
from apprentice.tracking.store import connect

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHALLENGER, CHAMPION = "challenger", "champion"
MOST_LOST = 0.1
"""Share of its tasks that a challenger may lose to faults; they are not compared, and may be those that it fails."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a challenger becomes the champion, and why."""

    promoted: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Registration:
    """A version of a registered model."""

    name: str
    version: str
    alias: str
    """`champion` if it was promoted on registration, otherwise `challenger`."""
    promoted: bool
    reason: str


@reports_store_errors
def register(config: PipelineConfig, layout: Layout, run_id: str, checkpoint_hash: str) -> Registration:
    """Register the trained policy as the challenger, by reference to its files, and promote it if it passes the gate.

    A checkpoint with the same results is registered once; a second call returns the existing version and its decision.

    Args:
        run_id: the MLflow run that tracks the policy.
        checkpoint_hash: DVC's hash of the checkpoint.

    Raises:
        ApprenticeError: the store failed.
    """
    client, name = connect(layout.root), config.register_.model_name
    results = per_task(config, layout)
    version = _known(client, name, checkpoint_hash, results) or _new_version(client, name, config, layout, run_id, checkpoint_hash, results)
    if "gate_reason" in version.tags:
        decision = Decision(version.tags["promoted"] == "true", version.tags["gate_reason"])
    else:
        decision = gate(config, results, read_evaluation(layout), *_champion(client, name))
        _apply(client, name, version.version, decision)
    return Registration(name, str(version.version), CHAMPION if decision.promoted else CHALLENGER, decision.promoted, decision.reason)


def gate(config: PipelineConfig, challenger: PerTask, evaluation: Mapping[str, Any], champion_name: str | None, champion: PerTask | None) -> Decision:
    """Decide whether a challenger becomes the champion; the reason also states the gains of warm start and online RL.

    The challenger must be proven better than the champion or, if there is none, than the agent before training: enough
    tasks, the 95% interval of the paired difference above `register.margin`, and an exact p of at most 0.05. Its greedy
    main metric on the headline set must not be lower than that of its own warm start, and at most `MOST_LOST` of its
    tasks may be lost to faults.

    Args:
        evaluation: the contents of the challenger's evaluation.json.
        champion_name: the champion's version in words; None if there is no champion.
        champion: the champion's results; None if they cannot be read.
    """
    measure = measure_of(config)
    gains = Gains.of(config, measure, measure.evaluated(evaluation)[0], evaluation)
    if champion_name is None:
        proof = _proof(config, gains.total, "the agent before training")
        proof = replace(proof, reason=f"{'the first champion' if proof.promoted else 'no champion yet'}: {proof.reason}")
    else:
        proof = _against(config, challenger, champion_name, champion)
    if proof.promoted and gains.warm_start and gains.online.difference.mean < 0:
        proof = Decision(False, f"it is worse than its own warm start, although {proof.reason}")
    lost = len(challenger.tasks) - len(challenger.score)
    if proof.promoted and lost > MOST_LOST * len(challenger.tasks):
        proof = Decision(False, f"{lost} of {len(challenger.tasks)} tasks were lost to faults, although {proof.reason}")
    return replace(proof, reason=f"{proof.reason}; in this evaluation: {gains.describe()}")


def _against(config: PipelineConfig, challenger: PerTask, champion_name: str, champion: PerTask | None) -> Decision:
    if champion is None:
        return Decision(False, f"the results of {champion_name} cannot be read, so the challenger cannot be compared with it")
    if champion.tasks != challenger.tasks:
        return Decision(False, f"{champion_name} was evaluated on different tasks: evaluate both on the same tasks")
    shared = sorted(challenger.score.keys() & champion.score.keys())
    if not shared:
        return Decision(False, f"no task was scored for both {champion_name} and the challenger")
    new, old = (np.array([results.score[task] for task in shared]) for results in (challenger, champion))
    return _proof(config, paired_difference(new, old, [challenger.scenario.get(task, task) for task in shared]), champion_name)


def _proof(config: PipelineConfig, difference: Difference, other: str) -> Decision:
    """Decide whether a gain over `other` is proven, with the metrics as the reason."""
    margin = config.register_.margin
    words = f"{measure_of(config).name} {difference.mean:+.3f} over {other} on {difference.n} tasks"
    words += f", 95% interval {difference.low:+.3f} to {difference.high:+.3f}, p {p_value(difference.p)}"
    if difference.proven(margin):
        return Decision(True, words)
    if not difference.enough:
        return Decision(False, f"{too_few(difference)}: {words}")
    if difference.low <= margin:
        return Decision(False, f"the interval is not above {f'the margin of {margin:.3f}' if margin else '0'}: {words}")
    return Decision(False, f"p is above {SIGNIFICANCE}: {words}")


def _known(client: "MlflowClient", name: str, checkpoint_hash: str, results: PerTask) -> "ModelVersion | None":
    versions = client.search_model_versions(f"name = '{name}' and tags.dvc_hash = '{checkpoint_hash}'")
    same = [version for version in versions if version.tags.get("evaluation_hash") == results.hash]
    return max(same, key=lambda version: int(version.version), default=None)


def _new_version(
    client: "MlflowClient", name: str, config: PipelineConfig, layout: Layout, run_id: str, checkpoint_hash: str, results: PerTask
) -> "ModelVersion":
    measure, evaluation = measure_of(config), read_json(layout.metrics("evaluation"))
    metrics = measure.evaluated(evaluation)[0].of(evaluation["trained"])
    _make_model(client, name, config.description)
    tags = {
        "dvc_hash": checkpoint_hash,
        "evaluation_hash": results.hash,
        "pipeline": layout.pipeline,
        "base_model": config.model.name,
        **{key: json.dumps(metrics[key]) for key in (measure.key, measure.interval, *measure.counts)},
    }
    return client.create_model_version(name, source=layout.policy.resolve().as_uri(), run_id=run_id, tags=tags)


def _make_model(client: "MlflowClient", name: str, description: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name, description=description)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _champion(client: "MlflowClient", name: str) -> tuple[str | None, PerTask | None]:
    """Return the champion's version in words and its results."""
    from mlflow.exceptions import MlflowException

    version = client.get_registered_model(name).aliases.get(CHAMPION)
    if version is None:
        return None, None
    words = f"champion version {version}"
    with tempfile.TemporaryDirectory() as folder:
        try:
            run_id = client.get_model_version(name, str(version)).run_id
            return words, PerTask.of(read_json(Path(client.download_artifacts(run_id, FILE, folder))))
        except (MlflowException, OSError):
            return words, None


def _apply(client: "MlflowClient", name: str, version: str, decision: Decision) -> None:
    """Set the aliases first and the tag `gate_reason` last: after an interruption, registering again completes it."""
    client.set_registered_model_alias(name, CHALLENGER, version)
    if decision.promoted:
        client.set_registered_model_alias(name, CHAMPION, version)
    client.set_model_version_tag(name, version, "promoted", str(decision.promoted).lower())
    client.set_model_version_tag(name, version, "gate_reason", decision.reason)
