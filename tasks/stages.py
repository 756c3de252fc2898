"""The Prefect tasks of the stages, one each, and how often each one is retried."""

from prefect import Task, task
from prefect.cache_policies import NO_CACHE

from apprentice.config.stages import STAGES
from tasks.running import is_passing_fault, run_stage

RETRIES = dict.fromkeys(STAGES, 2) | {"validate": 0}
"""Retries of a stage that lost the policy server or the network; it continues from its last checkpoint. validate uses neither."""
RETRY_DELAY_S = 10


def _task(name: str) -> Task:
    @task(name=name, cache_policy=NO_CACHE, retries=RETRIES[name], retry_delay_seconds=RETRY_DELAY_S, retry_condition_fn=is_passing_fault)
    def stage(pipeline: str) -> None:
        run_stage(name, pipeline)

    return stage


TASKS = {name: _task(name) for name in STAGES}
"""Stage -> its task, in the order in which they run."""
