"""The use case DeepSearch. Heavy modules are imported inside functions, because reading parameters imports this module."""

import argparse
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from apprentice.config import Layout, PipelineConfig, load_pipeline
from apprentice.environments.cutting import Encode
from apprentice.environments.protocol import AGENT, Actions, MakeEnvironment
from apprentice.environments.usecase import Command, UseCase
from apprentice.records import Task
from apprentice.records.events import Progress
from apprentice.records.tables import read_passages
from apprentice.usecases.deepsearch.config import DeepSearchConfig, DeepSearchDataConfig

if TYPE_CHECKING:
    from apprentice.data.candidates import DataSet
    from apprentice.evaluation.measures import Measure


def serve_index(chosen: argparse.Namespace) -> int:
    """Serve a pipeline's knowledge base until interrupted, and return the exit code."""
    load_pipeline(chosen.pipeline)
    from apprentice.usecases.deepsearch.environment.serving import serve

    serve(Layout(chosen.pipeline).corpus, chosen.port)
    return 0


def _serve_index_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pipeline", help="name of a pipeline in params.yaml")
    parser.add_argument("--port", type=int, default=8000, help="TCP port on the loopback interface; 0 selects a free port (default: 8000)")


class DeepSearch(UseCase):
    """Question answering over a pipeline's knowledge base."""

    environment_config = DeepSearchConfig
    data_config = DeepSearchDataConfig
    code = {"usecase": "usecase.py", "source": "source", "environment": "environment", "metrics": "metrics"}
    commands = (Command("serve-index", "serve a pipeline's knowledge base with Search-R1's /retrieve protocol", serve_index, _serve_index_arguments),)
    baselines = ("base_closed_book", "base_rag")

    def __init__(self, config: PipelineConfig, layout: Layout):
        super().__init__(config, layout)
        self.reads = (layout.corpus,)
        self.needs_passages = config.environment.retriever == "bm25"

    def read_data(self, progress: Progress) -> "DataSet":
        """Read questions and passages, or generate the fictional organisation."""
        from apprentice.usecases.deepsearch.source.readers import read_data

        data = self.config.data
        return read_data(data.format, data.source, data.seed, data.train, data.dev, needs_corpus=self.needs_passages)

    def expert(self, task: Task) -> Actions:
        """Search for each step of the task's plan, then answer from the passages."""
        from apprentice.usecases.deepsearch.environment.expert import expert_actions

        return expert_actions(task)

    def warnings(self, answers: Iterable[tuple[str, str]]) -> Iterable[str]:
        """Warn about answers whose punctuation carries meaning, which exact match ignores."""
        from apprentice.usecases.deepsearch.environment.scoring import punctuation_warning

        warning = punctuation_warning(answers)
        return (warning,) if warning else ()

    @asynccontextmanager
    async def opened(self, encode: Encode) -> AsyncIterator[MakeEnvironment]:
        """Read and index the knowledge base once for all episodes, and yield the environment factory.

        Raises:
            ApprenticeError: the knowledge base is missing or empty.
        """
        from apprentice.usecases.deepsearch.environment.baselines import ClosedBook, PlainRag
        from apprentice.usecases.deepsearch.environment.retrieval import make_retriever
        from apprentice.usecases.deepsearch.environment.search import DeepSearchEnvironment

        config = self.config.environment
        retriever = make_retriever(config, read_passages(self.reads[0]))
        kinds = {AGENT: DeepSearchEnvironment, "base_closed_book": ClosedBook, "base_rag": PlainRag}
        yield lambda kind=AGENT: kinds[kind](retriever, config, encode)

    @classmethod
    def measure(cls) -> "Measure":
        """Compare policies by exact match."""
        from apprentice.usecases.deepsearch.metrics.measure import MEASURE

        return MEASURE
