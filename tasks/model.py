"""The base model: fetched once, cached for all pipelines."""

from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE


@task(name="model", cache_policy=NO_CACHE, retries=2, retry_delay_seconds=10)
def fetch_model(name: str) -> Path:
    """The folder of a base model; downloads and converts it where it is not cached yet."""
    from apprentice.policy.models import base_model

    return base_model(name)
