"""The baselines: the model answers in one turn, without retrieval or with passages in the prompt."""

import re

from apprentice.environments.cutting import Encode
from apprentice.environments.protocol import Observation
from apprentice.environments.tools import ANSWER
from apprentice.records import Task, Verdict
from apprentice.usecases.deepsearch.config import DeepSearchConfig
from apprentice.usecases.deepsearch.environment.retrieval import Retriever
from apprentice.usecases.deepsearch.environment.scoring import exact_match
from apprentice.usecases.deepsearch.environment.search import listing

TAGGED_ANSWER = re.compile(rf"<{ANSWER}>(.*?)(?:</{ANSWER}>|$)", re.DOTALL)


def first_line(completion: str) -> str:
    """Return the first non-empty line of the completion, or of its `<answer>` if there is one."""
    tagged = TAGGED_ANSWER.search(completion)
    lines = (tagged.group(1) if tagged else completion).strip().splitlines()
    return lines[0].strip() if lines else ""


class ClosedBook:
    """One turn with the question alone, without the knowledge base."""

    stop: tuple[str, ...] = ()
    takes_cut_actions = True
    instruction = "Answer with a short phrase only. Answer unknown if you do not know."

    def __init__(self, retriever: Retriever, config: DeepSearchConfig, encode: Encode):
        self._retriever, self._config, self._encode = retriever, config, encode

    async def reset(self, task: Task) -> Observation:
        """Ask the question."""
        self._task, self._answer = task, ""
        return Observation(f"{self.instruction}\nQuestion: {task.instruction}")

    async def step(self, action: str) -> Observation:
        """Accept the first line of the completion as the answer."""
        self._answer = first_line(action)
        return Observation("", done=True, kind=ANSWER)

    async def verify(self) -> Verdict:
        """Score the answer: 1.0 for an exact match, otherwise 0.0."""
        score = exact_match(self._answer, self._task.answers) if self._answer else 0.0
        return Verdict(success=score >= 1.0, score=score, answer=self._answer)

    async def close(self) -> None:
        """Release nothing."""


class PlainRag(ClosedBook):
    """One turn with the passages retrieved for the question, then the question."""

    instruction = "Answer with a short phrase only, from the passages. Answer unknown if they do not say."

    async def reset(self, task: Task) -> Observation:
        """Search for the unchanged question, then ask it."""
        self._task, self._answer = task, ""
        [hits] = await self._retriever.search([task.instruction], self._config.top_k)
        passages = listing(hits, self._config.passage_tokens, self._encode)
        return Observation(f"{self.instruction}\n{passages}\nQuestion: {task.instruction}")
