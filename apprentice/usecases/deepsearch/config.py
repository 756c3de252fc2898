"""DeepSearch's sections of a pipeline in params.yaml."""

from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from apprentice.config.schema import DataConfig, EnvironmentConfig

RETRIEVER_AUTH = "APPRENTICE_RETRIEVER_AUTH"
"""Environment variable with the credentials of a remote retriever, as `user:password`."""


class DeepSearchConfig(EnvironmentConfig):
    """The section `environment` of DeepSearch."""

    retriever: str
    """`bm25` for in-process retrieval, or the URL of a server with Search-R1's `/retrieve` protocol. The environment
    variable APPRENTICE_RETRIEVER_AUTH supplies its user and password."""
    top_k: int = Field(gt=0)
    """Number of passages that a search returns."""
    passage_tokens: int = Field(gt=0)
    """Maximum number of tokens shown of a passage, including its title."""

    @field_validator("retriever")
    @classmethod
    def _holds_no_password(cls, retriever: str) -> str:
        if "@" in urlsplit(retriever).netloc:
            raise ValueError(f"a URL with a password would be stored with the parameters; set {RETRIEVER_AUTH}=user:password in the environment")
        return retriever

    @model_validator(mode="after")
    def _passages_leave_room(self) -> Self:
        most = self.max_tokens - self.max_turn_tokens
        if self.top_k * self.passage_tokens >= most:
            raise ValueError(f"top_k * passage_tokens must be below max_tokens - max_turn_tokens ({most}); otherwise one search fills an episode")
        return self


class DeepSearchDataConfig(DataConfig):
    """The section `data` of DeepSearch."""

    format: Literal["organisation", "nq", "musique", "jsonl"]
    """`organisation` is generated; the other formats are read from `source`."""
    source: str | None
    """A folder or the id of a Hugging Face data set; `id@revision` pins it to a commit. None only for
    `organisation`."""
