"""How fast the trainer is on this machine, against the matrix products it could do at best in the same minute.

FLOP: 2 N a token forward, 6 N forward and backward, N = weights outside the embeddings, plus the output embeddings at action tokens only;
attention is not counted.
"""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from apprentice.records import Trajectory
from benchmarks.figures import spread

MICRO_BATCH_TOKENS = 2048
ATTEMPTS = 4
SHARED = 2 / 3


@dataclass(frozen=True)
class TrainingSpeed:
    """Of one batch of trajectories."""

    tokens: int
    action_tokens: int
    body: int
    """Weights outside the embeddings."""
    embeddings: int
    forward_seconds: float
    both_seconds: float
    group_seconds: float
    """Forward and backward where the attempts of a task have the first SHARED of their tokens in common."""
    step_seconds: float
    peak: float
    """FLOP/s of square bf16 matrix products, the better of before and after."""

    @property
    def forward_share(self) -> float:
        """Of the peak."""
        return self.flop / self.forward_seconds / self.peak

    @property
    def update_share(self) -> float:
        """Of the peak, forward and backward."""
        return 3 * self.flop / self.both_seconds / self.peak

    def forward_flop(self, tokens: int, action_tokens: int) -> float:
        """Work of a forward pass."""
        return 2 * (self.body * tokens + self.embeddings * action_tokens)

    @property
    def flop(self) -> float:
        """Work of this batch's forward pass."""
        return self.forward_flop(self.tokens, self.action_tokens)


def measure(checkpoint: Path, sequences: int, rounds: int) -> list[TrainingSpeed]:
    """Times the trainer's own engine on random trajectories of 150-250 tokens, 30-40 of them actions; a round before the first warms up."""
    import torch

    from apprentice.learning.engine import Engine
    from apprentice.learning.models import Actor, load_language_model
    from apprentice.learning.packing import pack
    from apprentice.planning.hardware import gemm_flops

    trajectories = _trajectories(sequences)
    actions = sum(trajectory.action_tokens for trajectory in trajectories)
    engine = Engine(Actor(load_language_model(checkpoint, torch.bfloat16)), learning_rate=1e-6, max_gradient_norm=1.0)
    model = engine.module.language_model
    batches, groups = pack(trajectories, MICRO_BATCH_TOKENS), pack(_grouped(trajectories), MICRO_BATCH_TOKENS)

    def forward() -> None:
        with torch.no_grad():
            for batch in batches:
                engine(batch, 1.0, True)

    def both(batches: Sequence) -> None:
        for batch in batches:
            engine.accumulate(-engine(batch).logprobs.sum() / actions)

    def one(number: int) -> TrainingSpeed:
        before = gemm_flops()
        speed = TrainingSpeed(
            tokens=sum(len(trajectory.token_ids) for trajectory in trajectories),
            action_tokens=actions,
            body=sum(parameter.numel() for parameter in model.base_model.parameters()) - model.get_input_embeddings().weight.numel(),
            embeddings=model.get_output_embeddings().weight.numel(),
            forward_seconds=_timed(forward),
            both_seconds=_timed(lambda: both(batches)),
            group_seconds=_timed(lambda: both(groups)),
            step_seconds=_timed(lambda: engine.step(1e-6)),
            peak=max(before, gemm_flops()),
        )
        print(f"round {number}: {speed.update_share:.0%} of {speed.peak / 1e9:.0f} GFLOP/s" + (" (to warm up)" if not number else ""), flush=True)
        return speed

    return [one(number) for number in range(rounds + 1)][1:]


def figures(rounds: Sequence[TrainingSpeed]) -> dict:
    """Spreads of the rounds."""
    return {
        "update_gemm_share": spread([each.update_share for each in rounds]),
        "forward_gemm_share": spread([each.forward_share for each in rounds]),
        "peak_gflops": spread([each.peak / 1e9 for each in rounds]),
        "update_tokens_per_second": spread([each.tokens / each.both_seconds for each in rounds]),
        "forward_tokens_per_second": spread([each.tokens / each.forward_seconds for each in rounds]),
        "shared_update_tokens_per_second": spread([each.tokens / each.group_seconds for each in rounds]),
        "optimizer_step_seconds": spread([each.step_seconds for each in rounds]),
    }


def _trajectories(count: int) -> list[Trajectory]:
    """Trajectories of random tokens: a prompt, a search, an observation and an answer."""
    rng = random.Random(0)
    made = []
    for number in range(count):
        length, actions = rng.randint(150, 250), rng.randint(30, 40)
        ids = tuple(rng.randrange(5, 40_000) for _ in range(length))
        first = rng.randint(40, 60)
        mask = [0] * length
        mask[first : first + actions // 2] = [1] * (actions // 2)
        mask[length - (actions - actions // 2) :] = [1] * (actions - actions // 2)
        made.append(Trajectory(str(number), "t", "g", ids, tuple(mask), tuple(-1.0 * m for m in mask), (), 1.0, "success", "", 0, 1.0))
    return made


def _grouped(trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    """The same trajectories, but ATTEMPTS in a row begin alike."""
    made = []
    for index, trajectory in enumerate(trajectories):
        first = trajectories[index - index % ATTEMPTS].token_ids
        common = min(int(SHARED * len(trajectory.token_ids)), len(first))
        made.append(replace(trajectory, token_ids=first[:common] + trajectory.token_ids[common:]))
    return made


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
