"""The Prefect task of each stage, with its retries."""

from prefect import Task, task
from prefect.cache_policies import NO_CACHE

from apprentice.config.stages import STAGES
from tasks.running import is_transient_fault, run_stage

RETRIES = dict.fromkeys(STAGES, 2) | {"validate": 0}
"""Stage -> maximum number of retries after a transient fault; each retry resumes from the last checkpoint.
validate uses neither the policy server nor the network."""
RETRY_DELAY_S = 10


def _task(name: str) -> Task:
    @task(name=name, cache_policy=NO_CACHE, retries=RETRIES[name], retry_delay_seconds=RETRY_DELAY_S, retry_condition_fn=is_transient_fault)
    def stage(pipeline: str) -> None:
        run_stage(name, pipeline)

    return stage


TASKS = {name: _task(name) for name in STAGES}
"""Stage -> its Prefect task, in the order in which they run."""
