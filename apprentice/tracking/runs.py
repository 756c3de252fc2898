"""Logs a finished pipeline as an MLflow run: parameters, curves, metrics, data, files and a few traces."""

import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apprentice.config import Layout, PipelineConfig
from apprentice.evaluation.configuration import parameters
from apprentice.records.files import read_json
from apprentice.records.fingerprint import fingerprint
from apprentice.records.metrics import flatten, read_csv
from apprentice.tracking.failures import reports_store_errors
from apprentice.tracking.outcome import FILE, per_task
from apprentice.tracking.store import UI_ADDRESS, connect, experiment_id, is_server, open_commands
from apprentice.tracking.traces import log_traces

if TYPE_CHECKING:
    from mlflow import MlflowClient

METRICS_A_CALL, PARAMETERS_A_CALL = 1000, 100
"""Most metrics and parameters that MLflow accepts in one call."""
PARAMETER_CHARACTERS, DIGEST_CHARACTERS = 6000, 36
"""Longest parameter value and longest digest of a data set that MLflow stores."""
METRICS_FILES = ("validation", "distill", "difficulty", "rollout", "training", "evaluation")
"""Names of the stages' metrics files, which become artifacts if they exist."""
KEY = "apprentice.key"
"""Tag by which a run of the same results is found."""


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """An MLflow run, and how to open it."""

    run_id: str
    experiment: str
    command: str
    """The command that opens MLflow's pages."""
    address: str
    """The address of the run's page."""


@reports_store_errors
def log_run(config: PipelineConfig, layout: Layout, dvc_hashes: Mapping[str, str], prefect_run: str | None = None) -> TrackedRun:
    """Log the results of a pipeline. If a finished run has the same configuration, data and results, return that run.

    Args:
        dvc_hashes: DVC's hash of each of the pipeline's outputs, by path.
        prefect_run: the id of the Prefect flow run.

    Raises:
        ApprenticeError: the store failed.
    """
    client, name = connect(layout.root), f"apprentice-{layout.pipeline}"
    experiment = experiment_id(client, name, layout.root)
    key = fingerprint(config, layout.metrics("evaluation"), json.dumps(dict(sorted(dvc_hashes.items()))))
    run_id = _known(client, experiment, key) or _new_run(client, experiment, key, config, layout, dvc_hashes, prefect_run)
    command = open_commands()
    pages = command if is_server() else UI_ADDRESS
    return TrackedRun(run_id, name, command, f"{pages.rstrip('/')}/#/experiments/{experiment}/runs/{run_id}")


def _known(client: "MlflowClient", experiment: str, key: str) -> str | None:
    found = client.search_runs([experiment], f"tags.`{KEY}` = '{key}' and attributes.status = 'FINISHED'", max_results=1)
    return found[0].info.run_id if found else None


def _new_run(
    client: "MlflowClient", experiment: str, key: str, config: PipelineConfig, layout: Layout, dvc_hashes: Mapping[str, str], prefect_run: str | None
) -> str:
    tags = {KEY: key, "pipeline": layout.pipeline, **({"prefect_run": prefect_run} if prefect_run else {})}
    tags |= {f"dvc.{path}": value for path, value in dvc_hashes.items()}
    run_id = client.create_run(experiment, tags=tags, run_name=f"{layout.pipeline}-{key[:6]}").info.run_id
    status = "FAILED"
    try:
        _log_parameters(client, run_id, config)
        _log_metrics(client, run_id, layout)
        _log_data(client, run_id, dvc_hashes)
        _log_files(client, run_id, config, layout)
        log_traces(config, layout, experiment, run_id)
        status = "FINISHED"
    finally:
        client.set_terminated(run_id, status)
    return run_id


def _log_parameters(client: "MlflowClient", run_id: str, config: PipelineConfig) -> None:
    from mlflow.entities import Param

    values = [Param(name, str(value)[:PARAMETER_CHARACTERS]) for name, value in parameters(config).items()]
    for start in range(0, len(values), PARAMETERS_A_CALL):
        client.log_batch(run_id, params=values[start : start + PARAMETERS_A_CALL])


def _log_metrics(client: "MlflowClient", run_id: str, layout: Layout) -> None:
    """Log all metrics in batches, as one call per metric would take seconds."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    evaluation = [(f"evaluation/{name}", value, 0) for name, value in _numbers(read_json(layout.metrics("evaluation")))]
    values = [Metric(name, value, now, step) for name, value, step in [*_curve(layout.curves("training")), *evaluation]]
    for start in range(0, len(values), METRICS_A_CALL):
        client.log_batch(run_id, metrics=values[start : start + METRICS_A_CALL])


def _curve(path: Path) -> Iterator[tuple[str, float, int]]:
    """Yield `(name, value, step)` for every value of the training curves."""
    for row in read_csv(path):
        step = int(float(row.pop("step")))
        for name, text in row.items():
            if text and math.isfinite(value := float(text)):
                yield f"training/{name}", value, step


def _numbers(values: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield the numbers of nested metrics by path; the bounds of an interval are `low` and `high`."""
    for name, value in flatten(values, "/"):
        if isinstance(value, list):
            yield from ((f"{name}/{bound}", float(number)) for bound, number in zip(("low", "high"), value, strict=True))
        elif isinstance(value, int | float):
            yield name, float(value)


def _log_data(client: "MlflowClient", run_id: str, dvc_hashes: Mapping[str, str]) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    inputs = [
        DatasetInput(
            Dataset(
                name=path, digest=value[:DIGEST_CHARACTERS], source_type="local", source=json.dumps({"uri": path}), profile=json.dumps({"dvc_hash": value})
            ),
            [InputTag("mlflow.data.context", "training" if "curriculum" in path else "evaluation" if "evaluations" in path else "data")],
        )
        for path, value in dvc_hashes.items()
        if path.startswith("data/")
    ]
    if inputs:
        client.log_inputs(run_id, inputs)


def _log_files(client: "MlflowClient", run_id: str, config: PipelineConfig, layout: Layout) -> None:
    for path in (layout.report, layout.curves("training"), *map(layout.metrics, METRICS_FILES)):
        if path.exists():
            client.log_artifact(run_id, str(path))
    client.log_text(run_id, per_task(config, layout).text(), FILE)
