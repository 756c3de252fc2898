"""A pipeline's parameters as flat names and plain values, without what must stay secret."""

import re
from collections.abc import Mapping
from typing import Any

from apprentice.config import PipelineConfig

CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")
QUERY = re.compile(r"(?<=://)([^?\s]*)\?\S+")


def parameters(config: PipelineConfig) -> dict[str, Any]:
    """`{"section.key": value}` in the order of params.yaml. Credentials and query strings in URLs are cut out."""
    return dict(_flat(config.model_dump(by_alias=True)))


def redacted(text: str) -> str:
    """`text` with the user, password and query string of every URL in it replaced."""
    return QUERY.sub(r"\1?…", CREDENTIALS.sub("…@", text))


def _flat(values: Mapping[str, Any], prefix: str = ""):
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", redacted(value) if isinstance(value, str) else value
