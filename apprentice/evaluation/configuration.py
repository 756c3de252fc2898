"""A pipeline's parameters as flat names and plain values, without what must stay secret."""

from collections.abc import Mapping
from typing import Any

from apprentice.config import PipelineConfig
from apprentice.records.text import redacted


def parameters(config: PipelineConfig) -> dict[str, Any]:
    """`{"section.key": value}` in the order of params.yaml. Credentials and query strings in URLs are cut out."""
    return dict(_flat(config.model_dump(by_alias=True)))


def _flat(values: Mapping[str, Any], prefix: str = ""):
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", redacted(value) if isinstance(value, str) else value
