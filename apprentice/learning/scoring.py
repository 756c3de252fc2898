"""Forward passes of actor, critic and reference over a step's trajectories, without gradients."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from apprentice.config.schema import TrainConfig
from apprentice.learning.critic import Critic
from apprentice.learning.engine import Engine
from apprentice.learning.models import Actor, without_adapters
from apprentice.learning.packing import PackedBatch, action_offsets, pack, rank_share
from apprentice.records import Trajectory


def requires_full_pass(config: TrainConfig) -> bool:
    """Whether rewards or advantages depend on the output of actor or critic for every token."""
    return config.advantage == "gae" or (config.kl_coefficient > 0 and config.kl_in == "reward")


@dataclass(frozen=True)
class Forward:
    """The result of one pass of actor and critic."""

    logprobs: Tensor
    """[A]"""
    entropy: Tensor
    """[A]"""
    scored: Tensor
    """[A] whether the pass covered the token; the other fields are 0 where it did not."""
    values: Tensor
    """[A]"""
    features: list[Tensor]
    """[., hidden] trunk features of each of this rank's micro-batches."""
    actions: list[Tensor]
    """[.] index of the action token that each row of `features` belongs to."""


class Scorer:
    """Scores trajectories with the current weights.

    Args:
        config: the `train` section.
        actor: the policy.
        critic: None with group advantages.
        reference: the frozen policy of the KL penalty; None is the actor without its adapters.
    """

    def __init__(self, config: TrainConfig, actor: Engine, critic: Critic | None, reference: Actor | None):
        self._config, self._actor, self._critic, self._reference = config, actor, critic, reference

    def pack(self, trajectories: Sequence[Trajectory], chosen: Sequence[int] | None = None) -> list[PackedBatch]:
        """The micro-batches of all ranks, in the layout that the actor's attention takes."""
        return pack(trajectories, self._config.micro_batch_tokens, chosen, rows=self._actor.module.takes_rows)

    def batches(self, trajectories: Sequence[Trajectory], chosen: Sequence[int] | None = None) -> list[PackedBatch]:
        """This rank's micro-batches, on its device."""
        return [batch.to(self._actor.device) for batch in rank_share(self.pack(trajectories, chosen), self._actor.rank, self._actor.ranks)]

    @torch.no_grad()
    def forward(self, trajectories: Sequence[Trajectory], chosen: Sequence[int] | None = None, *, with_values: bool = True) -> Forward:
        """Runs actor and critic over all trajectories, or over those with the indices `chosen`."""
        results = torch.zeros(4, action_offsets(trajectories)[-1])
        features, actions = [], []
        for batch in self.batches(trajectories, chosen):
            scores = self._actor(batch, self._config.temperature, True)
            values = self._critic.values(scores, batch) if self._critic is not None and with_values else torch.zeros_like(scores.logprobs)
            results[:, batch.actions] = torch.stack([scores.logprobs, scores.entropy, values, torch.ones_like(values)]).cpu()
            features.append(scores.features)
            actions.append(batch.actions)
        logprobs, entropy, values, scored = self._actor.all_reduce(results)
        return Forward(logprobs, entropy, scored > 0, values, features, actions)

    @torch.no_grad()
    def reference_logprobs(self, trajectories: Sequence[Trajectory]) -> Tensor | None:
        """The reference's log-probabilities [A]; None without a KL penalty."""
        if self._config.kl_coefficient == 0:
            return None
        logprobs = torch.zeros(action_offsets(trajectories)[-1])
        with without_adapters(self._actor.module):
            for batch in self.batches(trajectories):
                logprobs[batch.actions] = (self._reference or self._actor)(batch, self._config.temperature).logprobs.cpu()
        return self._actor.all_reduce(logprobs)
