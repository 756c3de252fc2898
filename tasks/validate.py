"""The stage validate: checks every record and the set. Never retried: the same data fails again."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.running import run_stage


@task(name="validate", cache_policy=NO_CACHE)
def validate(pipeline: str) -> None:
    """Runs the stage validate of a pipeline."""
    run_stage("validate", pipeline)
