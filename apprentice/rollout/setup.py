"""Builds a pipeline's simulator from its configuration and files."""

from collections.abc import Callable
from pathlib import Path

from apprentice.config import Layout, PipelineConfig
from apprentice.config.schema import EnvironmentConfig
from apprentice.environments.deepsearch.environment import DeepSearch
from apprentice.environments.deepsearch.retrieval import Retriever, make_retriever
from apprentice.environments.protocol import Environment
from apprentice.errors import ApprenticeError
from apprentice.policy.protocol import Policy
from apprentice.records.tables import read_passages
from apprentice.rollout.simulator import Simulator

MakeEnvironment = Callable[[Retriever, EnvironmentConfig], Environment]


def make_simulator(
    config: PipelineConfig,
    layout: Layout,
    policy: Policy,
    checkpoint: Path,
    temperature: float,
    environment: MakeEnvironment = DeepSearch,
) -> Simulator:
    """A simulator over the pipeline's knowledge base.

    Args:
        config: the pipeline.
        layout: where its knowledge base lies.
        policy: samples the actions.
        checkpoint: the folder whose tokenizer and chat format the policy uses.
        temperature: 0 is greedy.
        environment: `DeepSearch`, or one of the baselines beside it.

    Raises:
        ApprenticeError: an episode may grow beyond the policy's context, or the knowledge base is missing or empty.
    """
    limits = config.environment
    if limits.max_tokens > config.policy.max_context:
        raise ApprenticeError(
            f"{limits.max_tokens} tokens do not fit the policy's context of {config.policy.max_context}",
            where="environment.max_tokens",
            todo="lower it, or raise policy.max_context",
        )
    from apprentice.policy.chat import ChatFormat

    retriever = make_retriever(limits, read_passages(layout.corpus))
    return Simulator(policy, ChatFormat(checkpoint), lambda: environment(retriever, limits), limits, temperature)
