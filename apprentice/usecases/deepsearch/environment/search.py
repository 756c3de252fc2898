"""The environment of the agent: it searches a knowledge base, then answers with a short phrase."""

from apprentice.environments.cutting import Encode, cut
from apprentice.environments.tools import ToolEnvironment, tool
from apprentice.records import Task
from apprentice.usecases.deepsearch.config import DeepSearchConfig
from apprentice.usecases.deepsearch.environment.retrieval import Hit, Retriever
from apprentice.usecases.deepsearch.environment.scoring import exact_match


class DeepSearchEnvironment(ToolEnvironment):
    """The reward is exact match with any accepted answer, after SQuAD's normalisation."""

    instruction = "Write <search>query</search> to search, then <answer>short phrase</answer>. Answer unknown if the passages do not say."

    def __init__(self, retriever: Retriever, config: DeepSearchConfig, encode: Encode):
        self._retriever, self._config, self._encode = retriever, config, encode

    def opening(self, task: Task) -> str:
        """Return the first user message: the instruction, then the question."""
        return f"{self.instruction}\nQuestion: {task.instruction}"

    @tool
    async def search(self, query: str) -> str:
        """Finds passages of the knowledge base."""
        [hits] = await self._retriever.search([query], self._config.top_k)
        return f"<information>\n{listing(hits, self._config.passage_tokens, self._encode)}\n</information>"

    def check(self, task: Task, answer: str) -> float:
        """Return 1.0 for an exact match, otherwise 0.0."""
        return exact_match(answer, task.answers)


def listing(hits: list[Hit], tokens: int, encode: Encode) -> str:
    """Format the passages as numbered lines, each truncated to `tokens` tokens."""
    shown = (" ".join(f"{hit.passage.title}: {hit.passage.text}".split()) for hit in hits)
    lines = [f"({number}) {cut(passage, tokens, encode)}" for number, passage in enumerate(shown, 1)]
    return "\n".join(lines) or "Nothing found."
