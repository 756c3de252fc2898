"""The Prefect task that fetches the base model into a cache that all pipelines share."""

from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE


def is_transient_fault(_task, _task_run, state) -> bool:
    """Return whether a retry can help: the download failed, rather than the model being unusable."""
    from apprentice.policy.packaged import NotFetched

    return isinstance(state.result(raise_on_failure=False), NotFetched)


@task(name="model", cache_policy=NO_CACHE, retries=2, retry_delay_seconds=10, retry_condition_fn=is_transient_fault)
def fetch_model(name: str) -> Path:
    """Return the folder of a checked base model; download and convert the model if it is not cached."""
    from apprentice.policy.base_models import checked_model

    return checked_model(name)
