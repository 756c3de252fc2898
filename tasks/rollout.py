"""The stage rollout: the starting policy's trajectories. Retried where the policy server was lost."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.running import RETRIES, is_passing_fault, run_stage


@task(name="rollout", cache_policy=NO_CACHE, retry_condition_fn=is_passing_fault, **RETRIES)
def rollout(pipeline: str) -> None:
    """Runs the stage rollout of a pipeline."""
    run_stage("rollout", pipeline)
