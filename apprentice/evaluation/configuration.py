"""A pipeline's parameters under flat names, without secrets."""

from typing import Any

from apprentice.config import PipelineConfig
from apprentice.records.metrics import flatten
from apprentice.records.text import redacted


def parameters(config: PipelineConfig) -> dict[str, Any]:
    """Return `{"section.key": value}` in the order of params.yaml. URLs lose credentials and query strings."""
    values = flatten(config.model_dump(by_alias=True))
    return {name: redacted(value) if isinstance(value, str) else value for name, value in values}
