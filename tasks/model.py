"""The base model: fetched once, cached for all pipelines."""

from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE


def is_passing_fault(_task, _task_run, state) -> bool:
    """Whether a retry can help: the network failed, and the model is not unfit."""
    from apprentice.policy.packaged import NotFetched

    return isinstance(state.result(raise_on_failure=False), NotFetched)


@task(name="model", cache_policy=NO_CACHE, retries=2, retry_delay_seconds=10, retry_condition_fn=is_passing_fault)
def fetch_model(name: str) -> Path:
    """The folder of a base model, checked; downloads and converts it where it is not cached yet."""
    from apprentice.policy.base_models import checked_model

    return checked_model(name)
