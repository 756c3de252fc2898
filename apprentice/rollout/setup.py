"""The simulator of a pipeline, built from its configuration."""

from collections.abc import Callable
from pathlib import Path

from apprentice.config import PipelineConfig
from apprentice.environments.protocol import Environment
from apprentice.errors import ApprenticeError
from apprentice.policy.protocol import Policy
from apprentice.rollout.simulator import Simulator


def make_simulator(config: PipelineConfig, make_environment: Callable[[], Environment], policy: Policy, checkpoint: Path, temperature: float) -> Simulator:
    """Create the simulator of a pipeline.

    Args:
        config: limits of an episode and of the policy.
        make_environment: creates the environment of an episode.
        policy: samples the actions.
        checkpoint: folder with the policy's tokenizer and chat template.
        temperature: sampling temperature; 0 selects greedy decoding.

    Raises:
        ApprenticeError: an episode can exceed the policy's context.
    """
    limits = config.environment
    if limits.max_tokens > config.policy.max_context:
        raise ApprenticeError(
            f"{limits.max_tokens} tokens exceed the policy's context of {config.policy.max_context}",
            where="environment.max_tokens",
            todo="lower it, or raise policy.max_context",
        )
    from apprentice.policy.chat import ChatFormat

    return Simulator(policy, ChatFormat(checkpoint), make_environment, limits, temperature)
