"""Measures the speed of the trainer and its share of the machine's peak speed of matrix products.

A forward pass counts as 2 N FLOP per token and a forward and backward pass as 6 N, where N is the number of weights
outside the embeddings. The output embeddings count at action tokens only, and attention does not count.
"""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from apprentice.records import Trajectory
from benchmarks.metrics import spread

MICRO_BATCH_TOKENS = 2048
ATTEMPTS = 4
SHARED = 2 / 3


@dataclass(frozen=True)
class TrainingSpeed:
    """The speed of the trainer on one batch of trajectories."""

    tokens: int
    action_tokens: int
    body: int
    """Number of weights outside the embeddings."""
    embeddings: int
    forward_seconds: float
    both_seconds: float
    group_seconds: float
    """Seconds of a forward and backward pass if the attempts at a task share the first SHARED of their tokens."""
    step_seconds: float
    peak: float
    """FLOP/s of square bf16 matrix products, the higher of two measurements before and after."""

    @property
    def forward_share(self) -> float:
        """Share of the peak that a forward pass reaches."""
        return self.flop / self.forward_seconds / self.peak

    @property
    def update_share(self) -> float:
        """Share of the peak that a forward and backward pass reaches."""
        return 3 * self.flop / self.both_seconds / self.peak

    def forward_flop(self, tokens: int, action_tokens: int) -> float:
        """Returns the FLOP of a forward pass."""
        return 2 * (self.body * tokens + self.embeddings * action_tokens)

    @property
    def flop(self) -> float:
        """FLOP of this batch's forward pass."""
        return self.forward_flop(self.tokens, self.action_tokens)


def measure(checkpoint: Path, sequences: int, rounds: int) -> list[TrainingSpeed]:
    """Times the trainer's engine after a warm-up round.

    The trajectories are random and have 150 to 250 tokens, 30 to 40 of them actions.
    """
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


def metrics(rounds: Sequence[TrainingSpeed]) -> dict:
    """Returns the spread of every metric over the rounds."""
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
    """Returns trajectories of random tokens: a prompt, a search, an observation, and an answer."""
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
    """Returns the same trajectories with a shared prefix in each group of ATTEMPTS."""
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
