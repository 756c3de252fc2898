"""The stage evaluate: compares the policies on held-out tasks. Retried where the policy server was lost."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.running import RETRIES, is_passing_fault, run_stage


@task(name="evaluate", cache_policy=NO_CACHE, retry_condition_fn=is_passing_fault, **RETRIES)
def evaluate(pipeline: str) -> None:
    """Runs the stage evaluate of a pipeline."""
    run_stage("evaluate", pipeline)
