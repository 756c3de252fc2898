"""The stage prepare: reads or generates tasks and their knowledge base. Retried where a download failed."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.running import RETRIES, is_passing_fault, run_stage


@task(name="prepare", cache_policy=NO_CACHE, retry_condition_fn=is_passing_fault, **RETRIES)
def prepare(pipeline: str) -> None:
    """Runs the stage prepare of a pipeline."""
    run_stage("prepare", pipeline)
