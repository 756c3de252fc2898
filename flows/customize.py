"""The flow `customize`: brings one pipeline up to date, from its data to a registered model."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from prefect import flow
from prefect.artifacts import create_link_artifact
from prefect.runtime import flow_run
from rich.console import Console

from apprentice.config import Layout, PipelineConfig, activate, load_pipeline, set_overrides
from apprentice.config.locks import only_run
from apprentice.config.stages import samples_from_policy
from apprentice.summary import Place, summary
from apprentice.versioning import changed_stages
from flows.crash_recovery import settle_last_run
from flows.server import run_place
from tasks.model import fetch_model
from tasks.register import register
from tasks.stages import TASKS


@flow(name="customize", flow_run_name="customize-{pipeline}")
def customize(pipeline: str, overrides: Sequence[str] = ()) -> None:
    """Run the stages of a pipeline that are out of date, register the result, and print the summary.

    Args:
        pipeline: a pipeline of params.yaml.
        overrides: `section.key=value`, written into params.yaml first.

    Raises:
        ApprenticeError: another run works in this folder, or MLflow could not store the results.
    """
    with only_run():
        _run(pipeline, overrides)


def _run(pipeline: str, overrides: Sequence[str]) -> None:
    console, run_id = Console(), flow_run.get_id()
    settle_last_run(run_id)
    for change in set_overrides(pipeline, overrides):
        console.print(change, markup=False, highlight=False, soft_wrap=True)
    activate(pipeline)
    config, layout = load_pipeline(pipeline), Layout(pipeline)
    changed = changed_stages(pipeline)
    console.print(_opening(pipeline, changed), markup=False, highlight=False, soft_wrap=True)
    if changed:
        _ready_model(config.model.name, console)
    with _serving(config, layout, changed):
        for stage in changed:
            TASKS[stage](pipeline)
    try:
        tracked, failure = register(pipeline, run_id), None
    except Exception as error:  # the summary is printed first, whatever made tracking fail
        tracked, failure = [], error
    create_link_artifact(link=layout.report.resolve().as_uri(), key=f"{pipeline}-report", description="Evaluation report")
    report = Place("Report", f"python3 -m webbrowser {layout.report.resolve().as_uri()}")
    console.print(summary(config, layout, [report, *tracked, run_place(run_id)]), crop=False)
    if failure:
        raise failure


def _opening(pipeline: str, changed: Sequence[str]) -> str:
    if not changed:
        return f"{pipeline}: everything is up to date"
    kept = [stage for stage in TASKS if stage not in changed]
    return f"{pipeline}: to do: {', '.join(changed)}" + (f"; up to date: {', '.join(kept)}" if kept else "")


def _ready_model(name: str, console: Console) -> None:
    """Fetch and check the base model before any stage starts."""
    from apprentice.policy.base_models import fetch_notice

    console.print(f"model: {name}{fetch_notice(name)}", markup=False, highlight=False, soft_wrap=True)
    fetch_model(name)


@contextmanager
def _serving(config: PipelineConfig, layout: Layout, changed: Sequence[str]) -> Iterator[None]:
    """Run the policy server, if a stage needs it. It starts while data is prepared; stages wait for it themselves."""
    if not needs_policy_server(config, changed):
        yield
        return
    from apprentice.policy.factory import make_policy_server

    server = make_policy_server(config, layout)
    server.start()
    try:
        yield
    finally:
        server.stop()


def needs_policy_server(config: PipelineConfig, changed: Sequence[str]) -> bool:
    """Return whether one of the stages samples from a policy, and the policy is a server."""
    return config.policy.engine == "vllm" and any(samples_from_policy(stage, config) for stage in changed)
