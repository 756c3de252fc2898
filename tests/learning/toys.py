"""Toy trajectories and configurations for the trainer's tests."""

import contextlib
import random
import resource
from collections.abc import Iterator
from dataclasses import replace

from apprentice.config.schema import DistillConfig, TrainConfig
from apprentice.records import Trajectory


def trajectory(number: int, *, length: int = 30, actions: int = 8, reward: float = 1.0, seed: int = 0) -> Trajectory:
    """A trajectory of random bytes with two runs of action tokens, the second at its end."""
    rng = random.Random(f"{seed}/{number}")
    mask = [0] * length
    half = actions // 2
    mask[length // 2 : length // 2 + half] = [1] * half
    mask[length - (actions - half) :] = [1] * (actions - half)
    ids = tuple(rng.randrange(250) for _ in range(length))
    return Trajectory(str(number), "task", "group", ids, tuple(mask), tuple(-1.0 * m for m in mask), (), reward, "success", "", 0, 1.0)


def trajectories(count: int, seed: int = 0) -> list[Trajectory]:
    """Trajectories of different lengths and rewards."""
    return [trajectory(number, length=20 + 7 * (number % 4), actions=4 + number % 5, reward=float(number % 2), seed=seed) for number in range(count)]


def bandit(answers: list[int], logprobs: list[float]) -> list[Trajectory]:
    """Trajectories of one action token after a fixed prompt; even tokens are rewarded."""
    base = replace(trajectory(0, length=6, actions=1), action_mask=(0, 0, 0, 0, 0, 1))
    return [
        replace(base, id=str(number), token_ids=(1, 2, 3, 4, 5, token), logprobs=(0.0,) * 5 + (logprob,), reward=float(token % 2 == 0))
        for number, (token, logprob) in enumerate(zip(answers, logprobs, strict=True))
    ]


def train_config(**changes) -> TrainConfig:
    values = dict(
        steps=1, tasks_per_step=1, attempts=1, max_attempts=0, sampling="shuffle", oversampling=1.0, mixed_groups_only=False, replay=0,
        sequential_rollout=False, skill_reward=1.0, temperature=1.0, epochs=1, minibatches=2, micro_batch_tokens=90, learning_rate=1e-3, warmup_steps=2,
        advantage="gae", history=100, step_weight=1.0, gamma=1.0, gae_lambda=0.95, normalize_advantages=True,
        min_advantage=0.0, learn_truncated=True, objective="ppo", loss_mean="token", loss_length=10, clip_low=0.2, clip_high=0.2, dual_clip=0.0,
        kl_coefficient=0.01, kl_estimator="k3", kl_in="loss", entropy_coefficient=0.01, importance="truncate", importance_cap=2.0,
        max_gradient_norm=1.0, critic="shared", critic_learning_rate=1e-2, critic_warmup_epochs=20, value_clip=0.2, lora_rank=0, lora_alpha=16.0, ranks=1,
        zero_stage=1,
        offload_optimizer=False, recompute_activations=False, overlap=False, checkpoint_every=1, seed=0,
        alarm_kl=10.0, alarm_ratio=1e6, alarm_sampler_gap=100.0, alarm_entropy=0.0,
    )  # fmt: skip
    return TrainConfig(**(values | changes))


def distill_config(**changes) -> DistillConfig:
    values = dict(source="expert", traces=8, attempts=1, epochs=3, learning_rate=5e-3, batch=4, micro_batch_tokens=90, seed=0)
    return DistillConfig(**(values | changes))


def weights(model) -> dict:
    """A copy of a model's weights."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


@contextlib.contextmanager
def files_at_most(size: int) -> Iterator[None]:
    """Limits the size of the files that this process writes, which has the effect of a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
