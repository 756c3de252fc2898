"""DeepSearch's sections of a pipeline in params.yaml."""

from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from apprentice.config.schema import DataConfig, EnvironmentConfig

RETRIEVER_AUTH = "APPRENTICE_RETRIEVER_AUTH"
"""Environment variable with the user and password of a retriever, `user:password`."""


class DeepSearchConfig(EnvironmentConfig):
    """Search a knowledge base, then answer."""

    retriever: str
    """`bm25` (in process), or the URL of a server that speaks Search-R1's `/retrieve`; its user and password come from the environment."""
    top_k: int = Field(gt=0)
    """Passages a search returns."""
    passage_tokens: int = Field(gt=0)
    """Tokens shown of each passage, its title included."""

    @field_validator("retriever")
    @classmethod
    def _holds_no_password(cls, retriever: str) -> str:
        if "@" in urlsplit(retriever).netloc:
            raise ValueError(f"a user and password would be stored with the parameters; set {RETRIEVER_AUTH}=user:password in the environment")
        return retriever

    @model_validator(mode="after")
    def _passages_leave_room(self) -> Self:
        most = self.max_tokens - self.max_turn_tokens
        if self.top_k * self.passage_tokens >= most:
            raise ValueError(f"top_k * passage_tokens must be below max_tokens - max_turn_tokens ({most}), for one search fills an episode otherwise")
        return self


class DeepSearchDataConfig(DataConfig):
    """Where questions and passages come from."""

    format: Literal["organisation", "nq", "musique", "jsonl"]
    """`organisation` is generated; the others are read from `source`."""
    source: str | None
    """A folder, or a Hugging Face data set id, which `id@revision` pins to a commit; None only for `organisation`."""
