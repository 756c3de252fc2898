"""The stage filter: picks the tasks worth learning from. Retried where the policy server was lost."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.running import RETRIES, is_passing_fault, run_stage


@task(name="filter", cache_policy=NO_CACHE, retry_condition_fn=is_passing_fault, **RETRIES)
def filter(pipeline: str) -> None:
    """Runs the stage filter of a pipeline."""
    run_stage("filter", pipeline)
