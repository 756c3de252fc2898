"""Proximal policy optimisation on one step's trajectories (Schulman et al. 2017), for a language model and its critic.

Where it departs from the paper:
- Actor and critic are two optimizers, so that the critic's gradient neither counts in the actor's clipping nor shapes its trunk.
- Each token's surrogate is weighted by a truncated importance weight against the sampler, whose kernels differ from the trainer's.
- The KL penalty to the reference is part of the loss (k3) unless `train.kl_in` puts it into the reward.
- With an advantage that a group gives (`train.advantage: rloo`, …), there is no critic: its values are 0 and nothing is fitted.
"""

import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from apprentice.config.schema import TrainConfig
from apprentice.errors import ApprenticeError
from apprentice.learning import critic, export, objectives
from apprentice.learning.advantages import final_rewards, gae, scaled, whiten
from apprentice.learning.engine import Engine
from apprentice.learning.graph import group_advantages
from apprentice.learning.models import Actor, Adapters, Scores, SeparateCritic, ValueHead, load_language_model, load_reference, without_adapters
from apprentice.learning.packing import PackedBatch, action_logprobs, action_offsets, dealt, pack
from apprentice.learning.publishing import publish
from apprentice.precision import device_dtype
from apprentice.records import Trajectory

LEARNER = "learner.json"


@dataclass
class Figures:
    """What is known of each action token before the update; all [A], fp32, on the CPU."""

    behaviour: Tensor
    """The sampler's log-probability."""
    old: Tensor
    """The trainer's."""
    entropy: Tensor
    known: Tensor
    """Whether `old` and `entropy` are; the first optimizer step finds out for its own tokens, as it leaves the weights as they are until its end."""
    reference: Tensor | None
    values: Tensor
    advantages: Tensor
    returns: Tensor


@dataclass(frozen=True)
class Forward:
    """One forward pass without gradient."""

    logprobs: Tensor
    """[A]"""
    entropy: Tensor
    """[A]"""
    known: Tensor
    """[A], whether the pass went over it."""
    values: Tensor
    """[A]"""
    features: list[Tensor]
    """[., hidden], of this rank's micro-batches."""
    rows: list[Tensor]
    """Which action tokens `features` belong to."""


class PpoLearner:
    """Actor, critic and reference, and the state of their training.

    Args:
        config: the `train` section.
        checkpoint: folder of the starting policy; its tokenizer goes into what `save_policy` writes.
        dtype: of weights and activations, `bfloat16` or `float32`; None is what the processor computes in (see `precision.py`).
        reference: folder of the policy the KL penalty holds on to; None is `checkpoint`.

    Raises:
        ApprenticeError: a folder holds no model.
    """

    def __init__(self, config: TrainConfig, checkpoint: Path, *, dtype: str | None = None, reference: Path | None = None):
        self._config, self._checkpoint = config, checkpoint
        self._optimizer_steps = 0
        kind = getattr(torch, dtype or device_dtype())
        adapters = Adapters(config.lora_rank, config.lora_alpha, config.seed) if config.lora_rank else None
        model = load_language_model(checkpoint, kind, recompute=config.recompute_activations, adapters=adapters)
        common = {"max_gradient_norm": config.max_gradient_norm, "zero_stage": config.zero_stage, "offload": config.offload_optimizer}
        self._actor = Engine(Actor(model), learning_rate=config.learning_rate, dtype=kind, **common)
        self._critic: Engine | None = None
        if config.advantage == "gae" and config.critic == "shared":
            self._critic = Engine(
                ValueHead(model.config.get_text_config().hidden_size), learning_rate=config.critic_learning_rate, dtype=torch.float32, **common
            )
        elif config.advantage == "gae":
            separate = SeparateCritic(load_language_model(checkpoint, kind, recompute=config.recompute_activations).base_model)
            self._critic = Engine(separate, learning_rate=config.critic_learning_rate, dtype=kind, **common)
        self._reference = None
        if config.kl_coefficient > 0 and (reference is not None or adapters is None):
            self._reference = load_reference(reference or checkpoint, kind).to(self._actor.device)

    def warm_up_critic(self, trajectories: Sequence[Trajectory]) -> dict[str, float]:
        """Fits the critic's head, if there is one, to the trajectories' discounted rewards (see `critic.py`); the policy stays as it is.

        Returns:
            `explained_variance` on trajectories left out of the fit, `epochs`, `trajectories` and `seconds`; nothing without a critic.

        Raises:
            ApprenticeError: there is nothing to learn from, or the policy computes values that are not finite.
        """
        if self._critic is None:
            return {}
        began = time.perf_counter()
        trajectories = _learnable(trajectories)
        forward = self._forward(trajectories, with_values=False)
        rewards = self._rewards(trajectories, forward.logprobs, None)
        returns = _against_critic(trajectories, rewards, torch.zeros_like(rewards), self._config.gamma, 1.0)[1]
        if not (forward.logprobs.isfinite().all() and returns.isfinite().all()):
            raise ApprenticeError("the starting policy's log-probabilities or the rewards are not finite", where="train, the critic's warm-up")
        folds = torch.tensor(critic.fold_of_each(trajectories, self._config.seed)).repeat_interleave(torch.tensor(_lengths(trajectories)))
        samples = critic.Samples(torch.cat(forward.features), torch.cat(forward.rows), returns, folds, self._actor.total)
        settings = {"learning_rate": self._config.critic_learning_rate, "epochs": self._config.critic_warmup_epochs, "seed": self._config.seed}
        fitted = critic.warm_up(ValueHead(samples.features.shape[1]), samples, **settings)
        module = self._critic.module
        self._critic.overwrite(module if self._config.critic == "shared" else module.head, fitted.head)
        counts = {"epochs": float(fitted.epochs), "trajectories": float(len(trajectories))}
        return {"explained_variance": fitted.explained_variance, **counts, "seconds": time.perf_counter() - began}

    def update(self, trajectories: Sequence[Trajectory], step: int) -> dict[str, float]:
        """One PPO update on the trajectories of one step.

        Args:
            trajectories: sampled by the current policy (or a slightly older one). Faults are left out.
            step: number of the online step; with the seed, it decides the minibatches.

        Returns:
            The step's figures under stable names; means are over action tokens: without a critic, those of the attempts that are learned from.

        Raises:
            ApprenticeError: there is nothing to learn from.
        """
        trajectories = _learnable(trajectories)

        # 1. What the reference says.
        began = time.perf_counter()
        reference = self._reference_logprobs(trajectories)
        seconds_reference = time.perf_counter() - began

        # 2. What the policy and the critic say before the update, as far as it has to be known beforehand; one pass gives both. Advantages, returns.
        began = time.perf_counter()
        forward = self._forward(trajectories) if self._looks_ahead else None
        logprobs, values = (forward.logprobs, forward.values) if forward else (None, None)
        rewards = self._rewards(trajectories, logprobs, reference)
        advantages, returns = self._advantages(trajectories, rewards, values)
        minibatches = self._minibatches(trajectories, self._worthwhile(trajectories, advantages), step)
        normalised = self._normalised(advantages)
        moving = self._moving(trajectories, normalised)
        forward = forward or self._forward(trajectories, _later(minibatches, moving) if minibatches else None)
        figures = Figures(action_logprobs(trajectories), forward.logprobs, forward.entropy, forward.known, reference, forward.values, normalised, returns)
        not_finite = _not_finite(figures, rewards, advantages)
        seconds_old = time.perf_counter() - began

        # 3. Optimizer steps; none where anything they would start from is not finite.
        began = time.perf_counter()
        done = [self._optimizer_step(trajectories, chosen, moving, figures) for chosen in minibatches] if not not_finite else []
        seconds_update = time.perf_counter() - began

        # 4. How far they carried the policy.
        began = time.perf_counter()
        during, moved = _during(done), self._moved(trajectories, minibatches if done else [], figures, step)
        moved["ratio_max"] = _largest([moved["ratio_max"], during["ratio_max"]])
        self._actor.release()  # the simulator's turn
        seconds_measure = time.perf_counter() - began

        timings = {"seconds_old": seconds_old, "seconds_reference": seconds_reference, "seconds_update": seconds_update, "seconds_measure": seconds_measure}
        tokens = float(sum(len(trajectory.token_ids) for trajectory in trajectories))
        counts = {"tokens": tokens, "action_tokens": float(len(figures.old)), "learning_rate": self._learning_rate(self._optimizer_steps - 1)}
        return self._before(figures, advantages) | during | moved | {"not_finite": not_finite} | counts | timings

    def save_policy(self, folder: Path) -> None:
        """Writes the policy as a Hugging Face folder in bf16, whole (see `export.save_policy`)."""
        with self._actor.whole_weights():
            if self._actor.rank == 0:
                export.save_policy(self._actor.module.language_model, self._checkpoint, folder)

    def publish(self, file: Path) -> None:
        """Writes what differs from the starting policy's weights into a file that is there (see `publishing.publish`)."""
        with self._actor.whole_weights():
            if self._actor.rank == 0:
                publish(self._actor.module.language_model, file)

    def save_state(self, folder: Path) -> None:
        """Writes everything training continues from, bit for bit: weights, master weights, optimizers, schedule.

        Raises:
            OSError: the disk is full.
        """
        self._actor.save(folder / "actor")
        if self._critic is not None:
            self._critic.save(folder / "critic")
        if self._actor.rank == 0:
            (folder / LEARNER).write_text(json.dumps({"optimizer_steps": self._optimizer_steps}), encoding="utf-8")
        self._actor.total(torch.zeros(1))  # every rank has written its part

    def load_state(self, folder: Path) -> None:
        """Reads what `save_state` wrote."""
        self._actor.load(folder / "actor")
        if self._critic is not None:
            self._critic.load(folder / "critic")
        self._optimizer_steps = json.loads((folder / LEARNER).read_text(encoding="utf-8"))["optimizer_steps"]

    def _learning_rate(self, optimizer_step: int) -> float:
        return self._config.learning_rate * min(1.0, (optimizer_step + 1) / max(1, self._config.warmup_steps))

    def _batches(self, trajectories: Sequence[Trajectory], chosen: Sequence[int] | None = None) -> list[PackedBatch]:
        """This rank's micro-batches."""
        packed = pack(trajectories, self._config.micro_batch_tokens, chosen, rows=self._actor.module.takes_rows)
        batches = dealt(packed, self._actor.rank, self._actor.ranks)
        return [batch.to(self._actor.device) for batch in batches]

    @property
    def _looks_ahead(self) -> bool:
        """Whether the policy's or the critic's word on every token is part of the rewards or advantages."""
        return self._critic is not None or (self._config.kl_coefficient > 0 and self._config.kl_in == "reward")

    @torch.no_grad()
    def _forward(self, trajectories: Sequence[Trajectory], chosen: Sequence[int] | None = None, *, with_values: bool = True) -> Forward:
        """Over all trajectories, or those chosen; 0 for the others, and for values that are not asked for."""
        figures = torch.zeros(4, action_offsets(trajectories)[-1])
        features, rows = [], []
        for batch in self._batches(trajectories, chosen):
            scores = self._actor(batch, self._config.temperature, True)
            values = self._values(scores, batch) if self._critic is not None and with_values else torch.zeros_like(scores.logprobs)
            figures[:, batch.actions] = torch.stack([scores.logprobs, scores.entropy, values, torch.ones_like(values)]).cpu()
            features.append(scores.features)
            rows.append(batch.actions)
        logprobs, entropy, values, known = self._actor.total(figures)
        return Forward(logprobs, entropy, known > 0, values, features, rows)

    def _values(self, scores: Scores, batch: PackedBatch) -> Tensor:
        return self._critic(scores.features if self._config.critic == "shared" else batch)

    @torch.no_grad()
    def _reference_logprobs(self, trajectories: Sequence[Trajectory]) -> Tensor | None:
        if self._config.kl_coefficient == 0:
            return None
        logprobs = torch.zeros(action_offsets(trajectories)[-1])
        with without_adapters(self._actor.module):  # where adapters are trained, the actor without them is the reference
            for batch in self._batches(trajectories):
                logprobs[batch.actions] = (self._reference or self._actor)(batch, self._config.temperature).logprobs.cpu()
        return self._actor.total(logprobs)

    def _weights(self, old: Tensor, behaviour: Tensor) -> Tensor:
        """Importance weights of the trainer against the sampler."""
        return objectives.importance_weights(old, behaviour, self._config.importance_cap, masked=self._config.importance == "mask")

    def _advantages(self, trajectories: Sequence[Trajectory], rewards: Tensor, values: Tensor | None) -> tuple[Tensor, Tensor]:
        """Advantages and returns [A]."""
        if self._critic is None:
            return _against_group(trajectories, rewards, self._config)
        return _against_critic(trajectories, rewards, values, self._config.gamma, self._config.gae_lambda)

    def _normalised(self, advantages: Tensor) -> Tensor:
        """Whitened where a critic gave them; scaled only where a group did, whose 0 means that nothing is to be learned."""
        if not self._config.normalize_advantages:
            return advantages
        return whiten(advantages, torch.ones_like(advantages)) if self._critic is not None else scaled(advantages)

    def _rewards(self, trajectories: Sequence[Trajectory], logprobs: Tensor | None, reference: Tensor | None) -> Tensor:
        """What each action token [A] is rewarded with: the reward at the last of an attempt, and the KL penalty where it is part of the reward."""
        rewards = torch.cat([final_rewards(trajectory.reward, count) for trajectory, count in zip(trajectories, _lengths(trajectories), strict=True)])
        if reference is None or self._config.kl_in == "loss":
            return rewards
        return rewards - self._config.kl_coefficient * objectives.KL_ESTIMATORS[self._config.kl_estimator](logprobs, reference)

    def _worthwhile(self, trajectories: Sequence[Trajectory], advantages: Tensor) -> list[int]:
        """The trajectories to update on."""
        largest = [float(part.abs().max()) for part in advantages.split(_lengths(trajectories))]
        truncated = [trajectory.outcome == "truncated" and not self._config.learn_truncated for trajectory in trajectories]
        return [index for index in range(len(trajectories)) if largest[index] >= self._config.min_advantage and not truncated[index]]

    def _moving(self, trajectories: Sequence[Trajectory], advantages: Tensor) -> frozenset[int]:
        """The trajectories whose tokens have a gradient: those with an advantage, where nothing but the surrogate asks for one."""
        config = self._config
        if self._critic is not None or config.entropy_coefficient > 0 or (config.kl_coefficient > 0 and config.kl_in == "loss"):
            return frozenset(range(len(trajectories)))
        return frozenset(index for index, part in enumerate(advantages.split(_lengths(trajectories))) if part.any())

    def _minibatches(self, trajectories: Sequence[Trajectory], chosen: Sequence[int], step: int) -> list[list[int]]:
        """The trajectories of each optimizer step, all epochs; the same for the same seed and step. Groups stay together: they share their beginning."""
        groups, minibatches = _groups(trajectories, chosen), []
        for epoch in range(self._config.epochs):
            order = list(groups)
            random.Random(f"{self._config.seed}/{step}/{epoch}").shuffle(order)
            count = min(self._config.minibatches, len(order))
            minibatches += [[index for group in order[part::count] for index in groups[group]] for part in range(count)]
        return minibatches

    @torch.no_grad()
    def _moved(self, trajectories: Sequence[Trajectory], minibatches: Sequence[list[int]], figures: Figures, step: int) -> dict[str, float]:
        """The distance of the policy after the last optimizer step from the policy before the first: KL divergence and a token's largest ratio.

        They are measured on a sample of the attempts learned from, one micro-batch a rank, which costs a forward pass over it.
        """
        known = [index for index, part in enumerate(figures.known.split(_lengths(trajectories))) if part.all()]
        batches = pack(trajectories, self._config.micro_batch_tokens, sorted({index for chosen in minibatches for index in chosen} & set(known)))
        sample = random.Random(f"{self._config.seed}/{step}").sample(batches, min(len(batches), self._actor.ranks))
        sums, ratios = torch.zeros(2), torch.zeros(self._actor.ranks)
        for batch in dealt(sample, self._actor.rank, self._actor.ranks):
            logprobs = self._actor(batch.to(self._actor.device), self._config.temperature).logprobs.cpu()
            old = figures.old[batch.actions]
            sums += torch.stack([objectives.kl_k3(old, logprobs).sum(), torch.tensor(float(len(old)))])
            ratios[self._actor.rank] = _largest(objectives.probability_ratio(logprobs, old).tolist())
        kl, tokens = self._actor.total(sums).tolist()
        return {"approx_kl": kl / max(1.0, tokens), "ratio_max": _largest(self._actor.total(ratios).tolist())}

    def _optimizer_step(self, trajectories: Sequence[Trajectory], chosen: list[int], moving: frozenset[int], figures: Figures) -> dict[str, float]:
        """A step on the trajectories chosen. Of those without a gradient only the number of tokens counts; where none has one, momentum moves the weights."""
        lengths = torch.tensor(_lengths(trajectories))
        sequences = torch.arange(len(lengths)).repeat_interleave(lengths)
        share = torch.zeros(len(lengths))
        share[chosen] = objectives.shares(lengths[chosen], self._config.loss_mean, self._config.loss_length)
        denominator = float(lengths[chosen].sum())
        computed = [index for index in chosen if index in moving] or chosen[:1]
        mine = torch.isin(sequences, torch.tensor(computed))
        found = torch.zeros(2, len(sequences)) if not figures.known[mine].all() else None
        sums, ratios = torch.zeros(3), torch.zeros(self._actor.ranks)
        for batch in self._batches(trajectories, computed):
            part, ratio = self._accumulate(batch, figures, found, sequences, share[sequences], denominator)
            sums += part
            ratios[self._actor.rank] = _largest([float(ratios[self._actor.rank]), ratio])
        if found is not None:
            figures.old[mine], figures.entropy[mine] = self._actor.total(found)[:, mine]
            figures.known |= mine
        policy, value, clipped = self._actor.total(sums).tolist()
        everywhere = denominator / float(lengths[computed].sum())
        ratio_max = _largest(self._actor.total(ratios).tolist())
        learning_rate = self._learning_rate(self._optimizer_steps)
        norm, stepped = self._actor.step(learning_rate)
        if self._critic is not None:
            stepped = self._critic.step(self._config.critic_learning_rate)[1] and stepped
        self._optimizer_steps += 1
        return {
            "policy_loss": policy,
            "value_loss": value,
            "clip_fraction": clipped * everywhere,
            "ratio_max": ratio_max,
            "gradient_norm": norm,
            "skipped": float(not stepped),
        }

    def _accumulate(
        self, batch: PackedBatch, figures: Figures, found: Tensor | None, sequences: Tensor, share: Tensor, denominator: float
    ) -> tuple[Tensor, float]:
        """Adds one micro-batch's gradients; returns its parts of policy loss, value loss and clip fraction, and its largest ratio.

        `found`, where the old policy's word is not known, takes its log-probabilities and entropy [2, A].
        """
        config, at = self._config, batch.actions
        if not len(at):
            return self._accumulate_nothing(batch)
        old, behaviour, advantages, values, returns, share, sequences = (
            tensor[at].to(self._actor.device)
            for tensor in (figures.old, figures.behaviour, figures.advantages, figures.values, figures.returns, share, sequences)
        )
        scores = self._actor(batch, config.temperature, config.entropy_coefficient > 0 or found is not None)
        if found is not None:
            old = scores.logprobs.detach()
            found[:, at] = torch.stack([old, scores.entropy.detach()]).cpu()
        mask, weights = torch.ones_like(old), self._weights(old, behaviour)
        bounds = objectives.Bounds(config.clip_low, config.clip_high, config.dual_clip)
        if config.objective == "gspo":
            ratio = objectives.sequence_ratio(scores.logprobs, old, sequences)
        else:
            ratio = objectives.probability_ratio(scores.logprobs, old)
        if config.objective == "cispo":
            surrogate = objectives.weighted_log_likelihood(ratio, scores.logprobs, advantages, bounds)
        else:
            surrogate = objectives.clipped_surrogate(ratio, advantages, bounds)
        policy = objectives.policy_loss(surrogate, mask, denominator=denominator, weights=weights * share)
        loss = policy
        if figures.reference is not None and config.kl_in == "loss":
            kl = objectives.KL_ESTIMATORS[config.kl_estimator](scores.logprobs, figures.reference[at].to(self._actor.device))
            loss = loss + config.kl_coefficient * objectives.token_mean(kl * share, mask, denominator)
        if config.entropy_coefficient > 0:
            loss = loss - config.entropy_coefficient * objectives.token_mean(scores.entropy * share, mask, denominator)
        self._actor.accumulate(loss)

        value = torch.zeros_like(policy)
        if self._critic is not None:
            value = objectives.value_loss(self._values(scores, batch), values, returns, mask, clip=config.value_clip, denominator=denominator)
            self._critic.accumulate(value)

        clipped = objectives.clip_fraction(ratio.detach(), mask, bounds) * len(old) / denominator
        return torch.stack([policy.detach(), value.detach(), clipped]).cpu(), float(ratio.detach().max())

    def _accumulate_nothing(self, batch: PackedBatch) -> tuple[Tensor, float]:
        """Takes part in what the ranks do together."""
        scores = self._actor(batch, self._config.temperature, False)
        self._actor.accumulate(scores.logprobs.sum())
        if self._critic is not None:
            self._critic.accumulate(self._values(scores, batch).sum())
        return torch.zeros(3), 0.0

    def _before(self, figures: Figures, advantages: Tensor) -> dict[str, float]:
        """The figures of the policy as it was before the update."""
        old, behaviour = figures.old[figures.known], figures.behaviour[figures.known]
        gap = (old - behaviour).abs()
        kl = objectives.kl_k3(old, figures.reference[figures.known]) if figures.reference is not None else torch.zeros(1)
        return {
            "kl_reference": float(kl.mean()),
            "entropy": float(figures.entropy[figures.known].mean()),
            "explained_variance": objectives.explained_variance(figures.values, figures.returns),
            "advantage_mean": float(advantages.mean()),
            "advantage_std": float(advantages.std(correction=0)),
            "return_mean": float(figures.returns.mean()),
            "value_mean": float(figures.values.mean()),
            "sampler_gap_mean": float(gap.mean()),
            "sampler_gap_max": _largest(gap.tolist()),
            "importance_weight_mean": float(self._weights(old, behaviour).mean()),
        }


def _later(minibatches: Sequence[list[int]], moving: frozenset[int]) -> list[int]:
    """The trajectories with a gradient of a step after the first that the first has not."""
    first, *others = minibatches
    return sorted({index for other in others for index in other} & moving - set(first))


def _learnable(trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    """Those with actions; a fault says nothing about the agent."""
    chosen = [trajectory for trajectory in trajectories if trajectory.outcome != "fault" and any(trajectory.action_mask[1:])]
    if not chosen:
        raise ApprenticeError(f"none of {len(trajectories)} trajectories can be learned from", todo="look for faults in the events of the stage")
    return chosen


def _lengths(trajectories: Sequence[Trajectory]) -> list[int]:
    """The action tokens of each."""
    offsets = action_offsets(trajectories)
    return [end - start for start, end in zip(offsets, offsets[1:], strict=False)]


def _groups(trajectories: Sequence[Trajectory], chosen: Sequence[int] | None = None) -> dict[str, list[int]]:
    """The indices of each group's trajectories; of those chosen, where some are."""
    groups: dict[str, list[int]] = {}
    for index in range(len(trajectories)) if chosen is None else chosen:
        groups.setdefault(trajectories[index].group, []).append(index)
    return groups


def _against_group(trajectories: Sequence[Trajectory], rewards: Tensor, config: TrainConfig) -> tuple[Tensor, Tensor]:
    """Advantages and returns [A] of all trajectories' action tokens, each attempt's rewards against those of its group."""
    lengths = _lengths(trajectories)
    whole = torch.stack([part.sum() for part in rewards.split(lengths)])
    advantages = list(torch.zeros_like(rewards).split(lengths))
    for members in _groups(trajectories).values():
        found = group_advantages([trajectories[index] for index in members], whole[members], config)
        for index, part in zip(members, found.split([lengths[index] for index in members]), strict=True):
            advantages[index] = part
    return torch.cat(advantages), whole.repeat_interleave(torch.tensor(lengths))


def _against_critic(trajectories: Sequence[Trajectory], rewards: Tensor, values: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Advantages and returns [A] of all trajectories' action tokens, by generalised advantage estimation."""
    lengths = _lengths(trajectories)
    parts = [gae(*attempt, gamma, lam) for attempt in zip(rewards.split(lengths), values.split(lengths), strict=True)]
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


def _not_finite(figures: Figures, rewards: Tensor, advantages: Tensor) -> float:
    """The number of action tokens of which something that is known before the update is not finite."""
    known = [figures.behaviour, figures.old, figures.entropy, figures.values, figures.returns, rewards, advantages]
    known += [] if figures.reference is None else [figures.reference]
    return float((~torch.stack(known).isfinite().all(0)).sum())


def _largest(numbers: Sequence[float]) -> float:
    """The largest of the numbers, 0 of none; NaN where one is, which Python's `max` may pass over."""
    return float(torch.tensor([0.0, *numbers]).max())


def _during(steps: list[dict[str, float]]) -> dict[str, float]:
    """Means over the optimizer steps that were taken; the largest ratio; how many were skipped."""
    taken = [step for step in steps if not step["skipped"]]
    names = ("policy_loss", "value_loss", "clip_fraction", "gradient_norm")
    means = {name: sum(step[name] for step in taken) / max(1, len(taken)) for name in names}
    return means | {"ratio_max": _largest([step["ratio_max"] for step in taken]), "skipped": float(len(steps) - len(taken))}
