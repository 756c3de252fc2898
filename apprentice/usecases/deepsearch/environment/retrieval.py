"""Retrieves passages for a query: in-process BM25, or any server with Search-R1's `/retrieve` protocol."""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import httpx
import numpy as np

from apprentice.errors import ApprenticeError, InfrastructureFault
from apprentice.records import Corpus, Passage
from apprentice.records.text import redacted
from apprentice.usecases.deepsearch.config import RETRIEVER_AUTH, DeepSearchConfig

REQUEST_TIMEOUT_S = 30.0
LOOPBACK = ("127.0.0.1", "::1", "localhost")
ADD_PASSAGES = "add passages of text to the data source"


@dataclass(frozen=True, slots=True)
class Hit:
    """A retrieved passage and its score."""

    passage: Passage
    score: float


class Retriever(Protocol):
    """Retrieves passages for batches of queries; all episodes share it."""

    async def search(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        """Return the best passages for each query, best first; fewer than `top_k` if fewer match.

        Raises:
            InfrastructureFault: the knowledge base is unreachable.
        """
        ...


def make_retriever(config: DeepSearchConfig, passages: Corpus) -> Retriever:
    """Create the retriever that `environment.retriever` names; only an in-process one uses `passages`.

    Raises:
        ApprenticeError: there is no such retriever, or the passages cannot be indexed.
    """
    if config.retriever == "bm25":
        return Bm25Retriever(passages)
    if config.retriever.startswith(("http://", "https://")):
        return HttpRetriever(config.retriever)
    what = f"there is no retriever {redacted(config.retriever)!r}"
    raise ApprenticeError(what, where="environment.retriever", todo="write `bm25`, or the URL of a /retrieve server")


class Bm25Retriever:
    """BM25 over title and text, with English stop words and stemming. Ties keep the order of the passages.

    A query runs in the caller's thread and takes well under a millisecond per thousand passages.
    """

    def __init__(self, passages: Corpus):
        import bm25s
        import Stemmer

        if not passages:
            raise ApprenticeError("the knowledge base has no passages", where="environment.retriever", todo=ADD_PASSAGES)
        self._passages, self._stemmer, self._tokenize = tuple(passages), Stemmer.Stemmer("english"), bm25s.tokenize
        words = self._words([f"{passage.title} {passage.text}" for passage in passages])
        if not any(words):
            raise ApprenticeError("the knowledge base has no searchable words", where="environment.retriever", todo=ADD_PASSAGES)
        self._index = bm25s.BM25(backend="numpy")
        self._index.index(words, show_progress=False)

    async def search(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        """Return the passages that share a word with the query, best first."""
        return [self._best(words, top_k) for words in self._words(queries)]

    def _words(self, texts: Sequence[str]) -> list[list[str]]:
        return self._tokenize(list(texts), stopwords="en", stemmer=self._stemmer, return_ids=False, show_progress=False) if texts else []

    def _best(self, words: list[str], top_k: int) -> list[Hit]:
        known = self._index.get_tokens_ids(words)
        if not known:
            return []
        scores = self._index.get_scores_from_ids(known)
        found = np.flatnonzero(scores > 0)
        order = found[np.argsort(-scores[found], kind="stable")][:top_k]
        return [Hit(self._passages[index], float(scores[index])) for index in order]


class HttpRetriever:
    """Queries a server over HTTP: POST {"queries", "topk", "return_scores"}
    -> {"result": [[{"document": {"id", "contents"}, "score"}]]}.

    `contents` is the title, optionally in double quotes, then a line break and the text. The environment variable
    RETRIEVER_AUTH supplies the user and password if the server needs them.
    """

    def __init__(self, url: str, timeout_s: float = REQUEST_TIMEOUT_S):
        address = httpx.URL(url)
        self.url = str(address if address.path.strip("/") else address.copy_with(path="/retrieve"))
        self._timeout_s = timeout_s
        self._client: httpx.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def search(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        """Return the server's passages for each query."""
        body = {"queries": list(queries), "topk": top_k, "return_scores": True}
        try:
            response = await self._connected().post(self.url, json=body)
            response.raise_for_status()
            return [[_hit(entry, rank) for rank, entry in enumerate(found[:top_k])] for found in _result(response.json(), len(queries))]
        except httpx.HTTPError as error:
            raise self._fault(f"does not answer: {type(error).__name__} {error}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise self._fault(f"does not speak Search-R1's protocol: {error!r}") from error

    def _fault(self, reason: str) -> InfrastructureFault:
        """Create a fault without the credentials in the address, because the episode records it."""
        return InfrastructureFault(redacted(f"the retriever at {self.url} {reason}"))

    async def close(self) -> None:
        """Close the connections."""
        if self._client:
            await self._client.aclose()
            self._client = None

    def _connected(self) -> httpx.AsyncClient:
        """Return the client of the running event loop, because connections cannot outlive the loop that opened them."""
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            proxies = httpx.URL(self.url).host not in LOOPBACK
            user, colon, password = os.environ.get(RETRIEVER_AUTH, "").partition(":")
            auth = (user, password) if colon else None
            self._client, self._loop = httpx.AsyncClient(auth=auth, timeout=self._timeout_s, trust_env=proxies), loop
        return self._client


def _result(reply: Any, queries: int) -> list[list[Any]]:
    result = reply["result"]
    if len(result) != queries:
        raise ValueError(f"{len(result)} results for {queries} queries")
    return result


def _hit(entry: dict, rank: int) -> Hit:
    document = entry["document"]
    title, _, text = document["contents"].strip().partition("\n")
    title = title.strip().strip('"')
    passage = Passage(id=str(document.get("id", rank)), title=title, text=text.strip() or title)
    return Hit(passage, float(entry["score"]))
