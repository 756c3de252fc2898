"""A pipeline's results are written to a real MLflow store on SQLite and read back."""

import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from evaluated import assistant_project, evaluated_project

from apprentice.config import Layout
from apprentice.records.files import read_json, write_json
from apprentice.records.tables import read_trajectories, write_trajectories
from apprentice.tracking.registry import register
from apprentice.tracking.runs import log_run
from apprentice.tracking.store import connect, open_commands

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
HASHES = {"data/quick/tasks.parquet": "a" * 32, "data/quick/curriculum.parquet": "b" * 32, "models/quick/policy": "c" * 32 + ".dir"}


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    """An evaluated pipeline and its run; `(config, layout, run)`."""
    patch = pytest.MonkeyPatch()
    patch.delenv("MLFLOW_TRACKING_URI", raising=False)
    config, layout, *_ = evaluated_project(tmp_path_factory.mktemp("project"), number=48)
    config = config.model_copy(update={"environment": config.environment.model_copy(update={"retriever": "http://me:hush@host/retrieve"})})
    yield config, layout, log_run(config, layout, HASHES, "flow-1")
    patch.undo()


@pytest.fixture(scope="module")
def run(tracked):
    return connect(tracked[1].root).get_run(tracked[2].run_id)


def test_the_run_is_finished_and_names_its_flow(run):
    assert (run.info.status, run.data.tags["prefect_run"]) == ("FINISHED", "flow-1")


def test_only_its_user_can_access_the_store(tracked, run):
    assert stat.S_IMODE((tracked[1].root / "mlflow.db").stat().st_mode) == 0o600


def test_parameters_are_flat_and_without_secrets(run):
    assert run.data.params["train.clip_low"] == "0.2"
    assert run.data.params["environment.retriever"] == "http://…@host/retrieve"


def test_curves_keep_their_steps_and_skip_gaps(tracked, run):
    client = connect(tracked[1].root)
    assert [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, "training/reward")] == [(0, 0.2), (1, 0.4), (2, 0.5)]
    assert [metric.step for metric in client.get_metric_history(run.info.run_id, "training/entropy")] == [0, 2]


def test_the_evaluation_is_logged_as_metrics(tracked, run):
    metrics = read_json(tracked[1].metrics("evaluation"))
    assert run.data.metrics["evaluation/trained/em"] == metrics["trained"]["em"]
    assert run.data.metrics["evaluation/trained_minus_before/em_ci95/low"] == metrics["trained_minus_before"]["em_ci95"][0]


def test_data_sets_carry_their_dvc_hashes(run):
    assert {entry.dataset.name: entry.dataset.digest for entry in run.inputs.dataset_inputs} == {
        path: value for path, value in HASHES.items() if path[:4] == "data"
    }


def test_files_are_artifacts_within_the_project(tracked, run):
    _, layout, tracked_run = tracked
    names = {artifact.path for artifact in connect(layout.root).list_artifacts(tracked_run.run_id)}
    assert {"evaluation.json", "validation.json", "per_task.json", "training.csv"} <= names
    assert run.info.artifact_uri.startswith((layout.root / ".apprentice/mlartifacts").resolve().as_uri())


def test_examples_are_traces_with_a_span_per_turn(tracked, run):
    traces = connect(tracked[1].root).search_traces(locations=[run.info.experiment_id], run_id=run.info.run_id, max_results=50)
    assert len(traces) == 9
    assert {trace.info.tags["condition"] for trace in traces} == {"before", "warm_start", "trained"}
    for trace in traces:
        assert [span.name for span in trace.data.spans][1:] == ["search", "answer"]
        assert trace.data.spans[1].inputs == {"observation": "Where does Ada work?"}


def test_the_same_results_are_tracked_once(tracked):
    config, layout, run = tracked
    assert log_run(config, layout, HASHES, "flow-2") == run
    assert log_run(config, layout, {**HASHES, "data/quick/tasks.parquet": "d" * 32}).run_id != run.run_id


def test_the_process_is_left_as_it_was(tracked):
    assert "MLFLOW_TRACKING_URI" not in os.environ
    assert not Path("mlruns").exists()


def test_registration_is_by_reference_idempotent_and_gated(tracked):
    config, layout, run = tracked
    client = connect(layout.root)
    first = register(config, layout, run.run_id, "c" * 32)
    assert (first.version, first.alias, first.promoted) == ("1", "champion", True)
    version = client.get_model_version_by_alias("deepsearch-quick", "champion")
    assert version.source == layout.policy.resolve().as_uri()
    assert (version.tags["dvc_hash"], version.tags["pipeline"]) == ("c" * 32, "quick")
    assert register(config, layout, run.run_id, "c" * 32) == first

    equal = register(config, layout, run.run_id, "e" * 32)
    assert (equal.version, equal.alias, equal.promoted) == ("2", "challenger", False)
    assert "champion version 1" in equal.reason
    assert str(client.get_model_version_by_alias("deepsearch-quick", "challenger").version) == "2"
    assert str(client.get_model_version_by_alias("deepsearch-quick", "champion").version) == "1"

    better = _all_right(layout)
    third = register(config, better, log_run(config, better, HASHES).run_id, "f" * 32)
    assert (third.version, third.promoted) == ("3", True)
    assert len(client.search_model_versions("name = 'deepsearch-quick'")) == 3


def _all_right(layout: Layout) -> Layout:
    """The same project after a training that made every held-out answer right."""
    path = layout.evaluations / "trained.parquet"
    write_trajectories(path, [replace(one, answer="unknown" if int(one.task_id[1:]) % 8 == 0 else "Oslo") for one in read_trajectories(path)])
    metrics = read_json(layout.metrics("evaluation"))
    write_json(layout.metrics("evaluation"), metrics | {"trained": {**metrics["trained"], "em": 1.0}})
    return layout


def test_an_assistant_is_tracked_and_registered_by_its_own_metrics(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    config, layout, _, _, metrics = assistant_project(tmp_path)
    client, tracked = connect(layout.root), log_run(config, layout, {})
    run = client.get_run(tracked.run_id)
    assert run.data.metrics["evaluation/trained/heldout_variants/tgc"] == metrics["trained"]["heldout_variants"]["tgc"]
    high = metrics["trained_minus_before"]["heldout_scenarios"]["tgc_ci95"][1]
    assert run.data.metrics["evaluation/trained_minus_before/heldout_scenarios/tgc_ci95/high"] == high
    assert run.data.metrics["evaluation/by_level/trained/heldout_variants/2/n"] == 8

    traces = client.search_traces(locations=[run.info.experiment_id], run_id=run.info.run_id, max_results=50)
    assert len(traces) == 6
    good = next(trace for trace in traces if trace.info.tags["condition"] == "trained" and trace.info.tags["tgc"] == "1.0")
    assert good.data.spans[0].outputs == {"answer": "", "tgc": 1.0, "reward": 1.0}
    assert [span.name for span in good.data.spans][1:] == ["code", "code", "complete"]
    assert good.data.spans[2].attributes["calls"][:2] == ["spotify.login 200", "spotify.like_song 200"]

    entry = register(config, layout, tracked.run_id, "c" * 32)
    assert entry.promoted and entry.reason.startswith("the first champion: TGC +0.667 over the agent before training")
    tags = client.get_model_version(entry.name, entry.version).tags
    assert (tags["tgc"], tags["n"], tags["scenarios"], "em" in tags) == ("0.7917", "24", "12", False)
    assert register(config, layout, tracked.run_id, "e" * 32).reason.startswith("the interval is not above 0: TGC +0.000 over champion version 1 on 24 tasks")


def test_the_command_names_the_store_but_no_password(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert open_commands() == "make mlflow"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:hush@tracking.example")
    assert open_commands() == "https://…@tracking.example"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:hush@db.example/runs")
    assert open_commands() == "make mlflow"
