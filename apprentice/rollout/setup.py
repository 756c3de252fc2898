"""Builds a simulator from a pipeline's configuration."""

from collections.abc import Callable
from pathlib import Path

from apprentice.config import PipelineConfig
from apprentice.environments.protocol import Environment
from apprentice.errors import ApprenticeError
from apprentice.policy.protocol import Policy
from apprentice.rollout.simulator import Simulator


def make_simulator(config: PipelineConfig, make_environment: Callable[[], Environment], policy: Policy, checkpoint: Path, temperature: float) -> Simulator:
    """A simulator of the pipeline's environment.

    Args:
        make_environment: a fresh environment for each episode.
        policy: samples the actions.
        checkpoint: the folder whose tokenizer and chat format the policy uses.
        temperature: 0 is greedy.

    Raises:
        ApprenticeError: an episode may grow beyond the policy's context.
    """
    limits = config.environment
    if limits.max_tokens > config.policy.max_context:
        raise ApprenticeError(
            f"{limits.max_tokens} tokens do not fit the policy's context of {config.policy.max_context}",
            where="environment.max_tokens",
            todo="lower it, or raise policy.max_context",
        )
    from apprentice.policy.chat import ChatFormat

    return Simulator(policy, ChatFormat(checkpoint), make_environment, limits, temperature)
