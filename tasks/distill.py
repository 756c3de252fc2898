"""The stage distill: the warm start. Retried where the policy server was lost."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.running import RETRIES, is_passing_fault, run_stage


@task(name="distill", cache_policy=NO_CACHE, retry_condition_fn=is_passing_fault, **RETRIES)
def distill(pipeline: str) -> None:
    """Runs the stage distill of a pipeline."""
    run_stage("distill", pipeline)
