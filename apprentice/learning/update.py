"""The optimizer steps of one PPO update, and how far they carry the policy."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from apprentice.config.schema import TrainConfig
from apprentice.learning import objectives
from apprentice.learning.critic import Critic
from apprentice.learning.engine import Engine
from apprentice.learning.packing import PackedBatch, action_counts, rank_share
from apprentice.learning.scoring import Scorer
from apprentice.records import Trajectory


@dataclass
class TokenStats:
    """Inputs of the loss for each action token; all [A], fp32, on the CPU."""

    behaviour: Tensor
    """Log-probability under the sampler."""
    old: Tensor
    """Log-probability under the trainer's policy before the update."""
    entropy: Tensor
    """Entropy of the policy before the update."""
    scored: Tensor
    """Whether `old` and `entropy` are known. The first optimizer step computes them for its own tokens, since the
    weights only change at its end."""
    reference: Tensor | None
    """Log-probability under the reference."""
    values: Tensor
    """The critic's prediction before the update."""
    advantages: Tensor
    returns: Tensor


@dataclass(frozen=True)
class _Minibatch:
    """Values that the micro-batches of an optimizer step share."""

    sequences: Tensor
    """[A] index of each token's trajectory."""
    weights: Tensor
    """[A] weight of each token in the loss."""
    denominator: float
    """Action tokens in the optimizer step."""
    fresh: Tensor | None
    """[2, A] receives log-probabilities and entropy where they are not known yet; None where they all are."""


class Updater:
    """Takes optimizer steps with actor and critic.

    Args:
        config: the `train` section.
        actor: the policy.
        critic: None with group advantages.
        scorer: packs the trajectories.
    """

    def __init__(self, config: TrainConfig, actor: Engine, critic: Critic | None, scorer: Scorer):
        self._config, self._actor, self._critic, self._scorer = config, actor, critic, scorer
        self._clip = objectives.ClipRange(config.clip_low, config.clip_high, config.dual_clip)
        self.optimizer_steps = 0
        """Optimizer steps taken so far, which determine the learning rate."""

    def learning_rate(self, optimizer_step: int) -> float:
        """The actor's learning rate in an optimizer step, counted from 0: linear warm-up, then constant."""
        return self._config.learning_rate * min(1.0, (optimizer_step + 1) / max(1, self._config.warmup_steps))

    def step(self, trajectories: Sequence[Trajectory], chosen: list[int], moving: frozenset[int], stats: TokenStats) -> dict[str, float]:
        """Takes one optimizer step and returns its metrics.

        Trajectories without a gradient are not computed; only their number of tokens counts. If none has a gradient,
        momentum still moves the weights.

        Args:
            trajectories: all trajectories of the update.
            chosen: indices of those in this optimizer step.
            moving: indices of those with a gradient.
            stats: over the tokens of all trajectories; newly computed log-probabilities and entropies are added.
        """
        counts = torch.tensor(action_counts(trajectories))
        sequences = torch.arange(len(counts)).repeat_interleave(counts)
        weights = torch.zeros(len(counts))
        weights[chosen] = objectives.loss_weights(counts[chosen], self._config.loss_mean, self._config.loss_length)
        computed = [index for index in chosen if index in moving] or chosen[:1]
        covered = torch.isin(sequences, torch.tensor(computed))
        fresh = torch.zeros(2, len(sequences)) if not stats.scored[covered].all() else None
        minibatch = _Minibatch(sequences, weights[sequences], float(counts[chosen].sum()), fresh)
        sums, ratios = torch.zeros(3), torch.zeros(self._actor.ranks)
        for batch in self._scorer.batches(trajectories, computed):
            part, ratio = self._accumulate(batch, minibatch, stats)
            sums += part
            ratios[self._actor.rank] = largest([float(ratios[self._actor.rank]), ratio])
        if fresh is not None:
            stats.old[covered], stats.entropy[covered] = self._actor.all_reduce(fresh)[:, covered]
            stats.scored |= covered
        policy_loss, value_loss, clipped = self._actor.all_reduce(sums).tolist()
        ratio_max = largest(self._actor.all_reduce(ratios).tolist())
        norm, stepped = self._step_optimizers()
        return {
            "policy_loss": policy_loss,
            "value_loss": value_loss,
            "clip_fraction": clipped * (minibatch.denominator / float(counts[computed].sum())),
            "ratio_max": ratio_max,
            "gradient_norm": norm,
            "skipped": float(not stepped),
        }

    def _step_optimizers(self) -> tuple[float, bool]:
        """The actor's gradient norm, and whether both optimizers changed their weights."""
        norm, stepped = self._actor.step(self.learning_rate(self.optimizer_steps))
        if self._critic is not None:
            stepped = self._critic.step() and stepped
        self.optimizer_steps += 1
        return norm, stepped

    def _accumulate(self, batch: PackedBatch, minibatch: _Minibatch, stats: TokenStats) -> tuple[Tensor, float]:
        """Adds the gradients of one micro-batch; returns its parts [3] of policy loss, value loss and clip fraction,
        and its largest ratio."""
        config, at, device, fresh = self._config, batch.actions, self._actor.device, minibatch.fresh
        if not len(at):
            return self._accumulate_idle(batch)
        old, behaviour, advantages = (tensor[at].to(device) for tensor in (stats.old, stats.behaviour, stats.advantages))
        sequences, weights = minibatch.sequences[at].to(device), minibatch.weights[at].to(device)
        scores = self._actor(batch, config.temperature, config.entropy_coefficient > 0 or fresh is not None)
        if fresh is not None:
            old = scores.logprobs.detach()
            fresh[:, at] = torch.stack([old, scores.entropy.detach()]).cpu()
        ratio, surrogate = self._surrogate(scores.logprobs, old, advantages, sequences)
        token_weights = self.importance_weights(old, behaviour) * weights
        policy_loss = objectives.policy_loss(surrogate, denominator=minibatch.denominator, weights=token_weights)
        loss = policy_loss
        if stats.reference is not None and config.kl_in == "loss":
            kl = objectives.KL_ESTIMATORS[config.kl_estimator](scores.logprobs, stats.reference[at].to(device))
            loss = loss + config.kl_coefficient * objectives.token_mean(kl * weights, minibatch.denominator)
        if config.entropy_coefficient > 0:
            loss = loss - config.entropy_coefficient * objectives.token_mean(scores.entropy * weights, minibatch.denominator)
        self._actor.accumulate(loss)
        value_loss = torch.zeros_like(policy_loss)
        if self._critic is not None:
            old_values, returns = stats.values[at].to(device), stats.returns[at].to(device)
            values = self._critic.values(scores, batch)
            value_loss = objectives.value_loss(values, old_values, returns, clip=config.value_clip, denominator=minibatch.denominator)
            self._critic.engine.accumulate(value_loss)
        clipped = objectives.clip_fraction(ratio.detach(), self._clip) * len(old) / minibatch.denominator
        return torch.stack([policy_loss.detach(), value_loss.detach(), clipped]).cpu(), float(ratio.detach().max())

    def _surrogate(self, logprobs: Tensor, old: Tensor, advantages: Tensor, sequences: Tensor) -> tuple[Tensor, Tensor]:
        """The probability ratio [A] and the surrogate [A] of `train.objective`."""
        if self._config.objective == "gspo":
            ratio = objectives.sequence_ratio(logprobs, old, sequences)
        else:
            ratio = objectives.probability_ratio(logprobs, old)
        if self._config.objective == "cispo":
            return ratio, objectives.weighted_log_likelihood(ratio, logprobs, advantages, self._clip)
        return ratio, objectives.clipped_surrogate(ratio, advantages, self._clip)

    def _accumulate_idle(self, batch: PackedBatch) -> tuple[Tensor, float]:
        """Takes part in the collective operations of the ranks without contributing a gradient."""
        scores = self._actor(batch, self._config.temperature, False)
        self._actor.accumulate(scores.logprobs.sum())
        if self._critic is not None:
            self._critic.engine.accumulate(self._critic.values(scores, batch).sum())
        return torch.zeros(3), 0.0

    def importance_weights(self, old: Tensor, behaviour: Tensor) -> Tensor:
        """Importance weights of the trainer against the sampler."""
        return objectives.importance_weights(old, behaviour, self._config.importance_cap, masked=self._config.importance == "mask")

    @torch.no_grad()
    def distance(self, trajectories: Sequence[Trajectory], minibatches: Sequence[list[int]], stats: TokenStats, step: int) -> dict[str, float]:
        """Distance of the policy after the last optimizer step from the policy before the first.

        Both metrics come from one forward pass over a sample of the trajectories learned from, one micro-batch per
        rank.

        Returns:
            `approx_kl`, the mean KL divergence (k3), and `ratio_max`, the largest probability ratio of a token.
        """
        scored = [index for index, part in enumerate(stats.scored.split(action_counts(trajectories))) if part.all()]
        batches = self._scorer.pack(trajectories, sorted({index for chosen in minibatches for index in chosen} & set(scored)))
        sample = random.Random(f"{self._config.seed}/{step}").sample(batches, min(len(batches), self._actor.ranks))
        sums, ratios = torch.zeros(2), torch.zeros(self._actor.ranks)
        for batch in rank_share(sample, self._actor.rank, self._actor.ranks):
            logprobs = self._actor(batch.to(self._actor.device), self._config.temperature).logprobs.cpu()
            old = stats.old[batch.actions]
            sums += torch.stack([objectives.kl_k3(old, logprobs).sum(), torch.tensor(float(len(old)))])
            ratios[self._actor.rank] = largest(objectives.probability_ratio(logprobs, old).tolist())
        kl, tokens = self._actor.all_reduce(sums).tolist()
        return {"approx_kl": kl / max(1.0, tokens), "ratio_max": largest(self._actor.all_reduce(ratios).tolist())}


def largest(numbers: Sequence[float]) -> float:
    """The largest number, 0 if there is none, and NaN if any is NaN, which Python's `max` may miss."""
    return float(torch.tensor([0.0, *numbers]).max())
