"""The stage train: online PPO. Retried where the policy server was lost; continues from its last checkpoint."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.running import RETRIES, is_passing_fault, run_stage


@task(name="train", cache_policy=NO_CACHE, retry_condition_fn=is_passing_fault, **RETRIES)
def train(pipeline: str) -> None:
    """Runs the stage train of a pipeline."""
    run_stage("train", pipeline)
