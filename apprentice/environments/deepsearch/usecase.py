"""DeepSearch as the stages see it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from apprentice.config import Layout
from apprentice.config.schema import DeepSearchConfig
from apprentice.environments.cutting import Encode
from apprentice.environments.deepsearch.baselines import ClosedBook, PlainRag
from apprentice.environments.deepsearch.environment import DeepSearch
from apprentice.environments.deepsearch.expert import expert_actions
from apprentice.environments.deepsearch.retrieval import make_retriever
from apprentice.environments.protocol import AGENT, MakeEnvironment
from apprentice.records.tables import read_passages


class Search:
    """Episodes over the pipeline's knowledge base."""

    baselines = ("base_closed_book", "base_rag")
    expert = staticmethod(expert_actions)
    skills = None

    def __init__(self, config: DeepSearchConfig, layout: Layout):
        self._config = config
        self.reads = (layout.corpus,)

    @asynccontextmanager
    async def opened(self, encode: Encode) -> AsyncIterator[MakeEnvironment]:
        """The knowledge base is read and indexed once for all episodes.

        Raises:
            ApprenticeError: it is missing or empty.
        """
        retriever = make_retriever(self._config, read_passages(self.reads[0]))
        kinds = {AGENT: DeepSearch, "base_closed_book": ClosedBook, "base_rag": PlainRag}
        yield lambda kind=AGENT: kinds[kind](retriever, self._config, encode)
