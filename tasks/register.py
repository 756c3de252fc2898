"""The Prefect task that logs a result to MLflow and registers the trained policy, once per result."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from apprentice.config import Layout, load_pipeline
from apprentice.summary import Place
from apprentice.versioning import output_hash, output_hashes


@task(name="register", cache_policy=NO_CACHE)
def register(pipeline: str, prefect_run: str | None) -> list[Place]:
    """Register the pipeline's result; a result that is already registered is not registered again.

    Returns:
        The places of the MLflow run and of the model version.
    """
    from apprentice.tracking.registry import register as enter
    from apprentice.tracking.runs import log_run

    config, layout = load_pipeline(pipeline), Layout(pipeline)
    tracked = log_run(config, layout, output_hashes(pipeline), prefect_run)
    entry = enter(config, layout, tracked.run_id, output_hash(layout.policy, pipeline))
    pages = tracked.address.partition("/#/")[0]
    model = f"{pages}/#/models/{entry.name}/versions/{entry.version}"
    return [
        Place("MLflow run", tracked.command, tracked.address),
        Place(f"Model {entry.name} v{entry.version}", tracked.command, model, f"{entry.alias}: {entry.reason}"),
    ]
