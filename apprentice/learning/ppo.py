"""Proximal policy optimisation (Schulman et al. 2017) on the trajectories of one step.

Differences from the paper:
- Actor and critic have separate optimizers, so the critic's gradient affects neither the actor's gradient clipping nor
  its trunk.
- The surrogate of each token is weighted by a truncated importance weight against the sampler, whose kernels differ
  from the trainer's.
- The KL penalty to the reference is part of the loss (k3), unless `train.kl_in` puts it into the reward.
- With a group advantage (`train.advantage: rloo` and others) there is no critic: all values are 0, and nothing is
  fitted.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from apprentice.config.schema import TrainConfig
from apprentice.errors import ApprenticeError
from apprentice.learning import credit, export, minibatches, scoring
from apprentice.learning.critic import Critic, Samples, fold_of_each
from apprentice.learning.engine import training_engine
from apprentice.learning.models import Actor, Adapters, load_language_model, load_reference
from apprentice.learning.objectives import explained_variance, kl_k3
from apprentice.learning.packing import action_counts, action_logprobs
from apprentice.learning.publishing import publish
from apprentice.learning.scoring import Scorer
from apprentice.learning.update import TokenStats, Updater, largest
from apprentice.precision import device_dtype
from apprentice.records import Trajectory

LEARNER = "learner.json"


@dataclass(frozen=True)
class _Plan:
    """The inputs of an update."""

    stats: TokenStats
    advantages: Tensor
    """[A] before normalisation."""
    minibatches: list[list[int]]
    """Indices of the trajectories of each optimizer step."""
    moving: frozenset[int]
    """Indices of the trajectories with a gradient."""
    not_finite: int
    """Action tokens for which an input of the loss is not finite."""


class PpoLearner:
    """Actor, critic and reference, and the state of their training.

    Args:
        config: the `train` section.
        checkpoint: folder of the starting policy, which is also the reference; its tokenizer is part of what
            `save_policy` writes.
        dtype: type of weights and activations, `bfloat16` or `float32`; None chooses the type that the processor
            computes in (`precision.py`).

    Raises:
        ApprenticeError: the folder holds no model.
    """

    def __init__(self, config: TrainConfig, checkpoint: Path, *, dtype: str | None = None):
        self._config, self._checkpoint = config, checkpoint
        kind = getattr(torch, dtype or device_dtype())
        adapters = Adapters(config.lora_rank, config.lora_alpha, config.seed) if config.lora_rank else None
        model = load_language_model(checkpoint, kind, recompute=config.recompute_activations, adapters=adapters)
        self.actor = training_engine(Actor(model), config, learning_rate=config.learning_rate, dtype=kind)
        hidden_size = model.config.get_text_config().hidden_size
        self.critic = Critic(config, checkpoint, hidden_size, kind) if config.advantage == "gae" else None
        self.reference: Actor | None = None
        """None without a KL penalty, and where adapters are trained: the actor without them is the reference."""
        if config.kl_coefficient > 0 and adapters is None:
            self.reference = load_reference(checkpoint, kind).to(self.actor.device)
        self._scorer = Scorer(config, self.actor, self.critic, self.reference)
        self._updater = Updater(config, self.actor, self.critic, self._scorer)

    def warm_up_critic(self, trajectories: Sequence[Trajectory]) -> dict[str, float]:
        """Fits the critic's head to the trajectories' discounted rewards (see `critic.py`); the policy does not change.

        Returns:
            `explained_variance` on held-out trajectories, `epochs`, `trajectories` and `seconds`; empty without a
            critic.

        Raises:
            ApprenticeError: there is nothing to learn from, or the policy computes values that are not finite.
        """
        if self.critic is None:
            return {}
        began = time.perf_counter()
        trajectories = minibatches.learnable(trajectories)
        forward = self._scorer.forward(trajectories, with_values=False)
        rewards = credit.token_rewards(self._config, trajectories, forward.logprobs, None)
        _, returns = credit.against_critic(trajectories, rewards, torch.zeros_like(rewards), self._config.gamma, 1.0)
        if not (forward.logprobs.isfinite().all() and returns.isfinite().all()):
            raise ApprenticeError("the starting policy's log-probabilities or the rewards are not finite", where="train, the critic's warm-up")
        folds = torch.tensor(fold_of_each(trajectories, self._config.seed)).repeat_interleave(torch.tensor(action_counts(trajectories)))
        fitted = self.critic.fit(Samples(torch.cat(forward.features), torch.cat(forward.actions), returns, folds, self.actor.all_reduce))
        counts = {"epochs": float(fitted.epochs), "trajectories": float(len(trajectories))}
        return {"explained_variance": fitted.explained_variance, **counts, "seconds": time.perf_counter() - began}

    def update(self, trajectories: Sequence[Trajectory], step: int) -> dict[str, float]:
        """Performs one PPO update on the trajectories of one step.

        Args:
            trajectories: sampled by the current policy or a slightly older one. Faults are left out.
            step: index of the online step, which determines the minibatches together with the seed.

        Returns:
            The metrics of the step under stable names. Means are over action tokens; without a critic, over those of
            the attempts learned from.

        Raises:
            ApprenticeError: there is nothing to learn from.
        """
        trajectories = minibatches.learnable(trajectories)

        # 1. Log-probabilities of the reference.
        began = time.perf_counter()
        reference = self._scorer.reference_logprobs(trajectories)

        # 2. Output of policy and critic before the update, advantages and returns.
        referenced = time.perf_counter()
        plan = self._plan(trajectories, reference, step)

        # 3. Optimizer steps, unless one of their inputs is not finite.
        planned = time.perf_counter()
        chosen = plan.minibatches if not plan.not_finite else []
        done = [self._updater.step(trajectories, each, plan.moving, plan.stats) for each in chosen]

        # 4. Distance from the policy before the update.
        updated = time.perf_counter()
        during, moved = _mean_over_steps(done), self._updater.distance(trajectories, chosen, plan.stats, step)
        moved["ratio_max"] = largest([moved["ratio_max"], during["ratio_max"]])
        self.actor.empty_cache()  # for the simulator
        measured = time.perf_counter()

        return {
            **self._before(plan),
            **during,
            **moved,
            "not_finite": float(plan.not_finite),
            "tokens": float(sum(len(trajectory.token_ids) for trajectory in trajectories)),
            "action_tokens": float(len(plan.advantages)),
            "learning_rate": self._updater.learning_rate(self._updater.optimizer_steps - 1),
            "seconds_old": planned - referenced,
            "seconds_reference": referenced - began,
            "seconds_update": updated - planned,
            "seconds_measure": measured - updated,
        }

    def save_policy(self, folder: Path) -> None:
        """Writes the policy as a Hugging Face folder in bf16, atomically (see `export.save_policy`)."""
        with self.actor.gathered_weights():
            if self.actor.rank == 0:
                export.save_policy(self.actor.module.language_model, self._checkpoint, folder)

    def publish(self, file: Path) -> None:
        """Writes the weights that training changes into an existing file (see `publishing.publish`)."""
        with self.actor.gathered_weights():
            if self.actor.rank == 0:
                publish(self.actor.module.language_model, file)

    def save_state(self, folder: Path) -> None:
        """Writes everything that training continues from bit for bit: weights, master weights, optimizers, schedule.

        Raises:
            OSError: the disk is full.
        """
        self.actor.save(folder / "actor")
        if self.critic is not None:
            self.critic.engine.save(folder / "critic")
        if self.actor.rank == 0:
            (folder / LEARNER).write_text(json.dumps({"optimizer_steps": self._updater.optimizer_steps}), encoding="utf-8")
        self.actor.all_reduce(torch.zeros(1))  # waits until every rank has written its part

    def load_state(self, folder: Path) -> None:
        """Reads what `save_state` wrote."""
        self.actor.load(folder / "actor")
        if self.critic is not None:
            self.critic.engine.load(folder / "critic")
        self._updater.optimizer_steps = json.loads((folder / LEARNER).read_text(encoding="utf-8"))["optimizer_steps"]

    def _plan(self, trajectories: Sequence[Trajectory], reference: Tensor | None, step: int) -> _Plan:
        """Computes the inputs of the loss and assigns the trajectories to optimizer steps.

        Where rewards and advantages do not need it, the pass before the update leaves out the tokens of the first
        optimizer step.
        """
        config = self._config
        forward = self._scorer.forward(trajectories) if scoring.requires_full_pass(config) else None
        logprobs, values = (forward.logprobs, forward.values) if forward else (None, None)
        rewards = credit.token_rewards(config, trajectories, logprobs, reference)
        advantages, returns = credit.advantages_and_returns(config, trajectories, rewards, values)
        steps = minibatches.split(config, trajectories, minibatches.select(config, trajectories, advantages), step)
        normalised = credit.normalise(config, advantages)
        moving = minibatches.with_gradient(config, trajectories, normalised)
        forward = forward or self._scorer.forward(trajectories, minibatches.only_later(steps, moving) if steps else None)
        stats = TokenStats(action_logprobs(trajectories), forward.logprobs, forward.entropy, forward.scored, reference, forward.values, normalised, returns)
        return _Plan(stats, advantages, steps, moving, _count_not_finite(stats, rewards, advantages))

    def _before(self, plan: _Plan) -> dict[str, float]:
        """The metrics of the policy before the update."""
        stats, advantages = plan.stats, plan.advantages
        old, behaviour = stats.old[stats.scored], stats.behaviour[stats.scored]
        gap = (old - behaviour).abs()
        kl = kl_k3(old, stats.reference[stats.scored]) if stats.reference is not None else torch.zeros(1)
        return {
            "kl_reference": float(kl.mean()),
            "entropy": float(stats.entropy[stats.scored].mean()),
            "explained_variance": explained_variance(stats.values, stats.returns),
            "advantage_mean": float(advantages.mean()),
            "advantage_std": float(advantages.std(correction=0)),
            "return_mean": float(stats.returns.mean()),
            "value_mean": float(stats.values.mean()),
            "sampler_gap_mean": float(gap.mean()),
            "sampler_gap_max": largest(gap.tolist()),
            "importance_weight_mean": float(self._updater.importance_weights(old, behaviour).mean()),
        }


def _count_not_finite(stats: TokenStats, rewards: Tensor, advantages: Tensor) -> int:
    """The number of action tokens for which an input of the loss is not finite."""
    inputs = [stats.behaviour, stats.old, stats.entropy, stats.values, stats.returns, rewards, advantages]
    inputs += [] if stats.reference is None else [stats.reference]
    return int((~torch.stack(inputs).isfinite().all(0)).sum())


def _mean_over_steps(steps: list[dict[str, float]]) -> dict[str, float]:
    """Means over the optimizer steps that were taken, their largest ratio, and the number of skipped steps."""
    taken = [step for step in steps if not step["skipped"]]
    names = ("policy_loss", "value_loss", "clip_fraction", "gradient_norm")
    means = {name: sum(step[name] for step in taken) / max(1, len(taken)) for name in names}
    return means | {"ratio_max": largest([step["ratio_max"] for step in taken]), "skipped": float(len(steps) - len(taken))}
