"""How fast the simulator and the policy server are, against the matrix products of the same minute.

Episodes of the generated organisation, DeepSearch, the base model at temperature 1. Work is counted once a token of an episode: 2 N FLOP,
N = weights outside the embeddings, plus the output embeddings at sampled tokens; what the prefix cache spares counts as done.
"""

import asyncio
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from apprentice.config import Layout, PipelineConfig, load_pipeline


@dataclass(frozen=True)
class RolloutSpeed:
    """Of one batch of episodes."""

    episodes: int
    seconds: float
    tokens: int
    """Of the episodes, prompts and observations included."""
    sampled_tokens: int


def measure(pipeline: str, tasks: int, attempts: int) -> RolloutSpeed:
    """Plays `tasks` x `attempts` episodes after a few to warm up; starts a policy server of its own."""
    config = load_pipeline(pipeline)
    own_port = config.model_copy(update={"policy": config.policy.model_copy(update={"port": 0})})
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_measure(own_port, Layout(pipeline, Path(folder)), tasks, attempts))


async def _measure(config: PipelineConfig, layout: Layout, count: int, attempts: int) -> RolloutSpeed:
    from apprentice.data.organisation import generate
    from apprentice.environments.usecases import use_case
    from apprentice.policy.models import base_model
    from apprentice.policy.opening import open_policy
    from apprentice.records.tables import write_passages
    from apprentice.rollout.setup import make_simulator
    from apprentice.rollout.simulator import plan_episodes

    tasks, passages = generate(seed=0, train=count, dev=1)
    tasks = [task for task in tasks if task.split == "train"]
    write_passages(layout.corpus, passages)
    base = base_model(config.model.name)
    async with use_case(config, layout).opened() as make_environment, open_policy(config, layout, base) as policy:
        simulator = make_simulator(config, make_environment, policy, base, temperature=1.0)
        await simulator.run(plan_episodes(tasks[:4], 1, seed=1, tag="warm-up"))
        began = time.perf_counter()
        trajectories = await simulator.run(plan_episodes(tasks, attempts, seed=0, tag="bench"))
        seconds = time.perf_counter() - began
    tokens = sum(len(trajectory.token_ids) for trajectory in trajectories)
    return RolloutSpeed(len(trajectories), seconds, tokens, sum(trajectory.action_tokens for trajectory in trajectories))
