"""Warm-up of the critic: its value head is fitted to the starting policy's trajectories before the first update.

The head reads the features of the actor's trunk, with which a separate critic starts too; so the trunk is computed once and only the
head is fitted. The number of epochs comes from cross-validation over groups: attempts at one task begin alike, so attempts that are
left out must be those of other tasks. Fitting longer than that makes a critic that knows its trajectories and no others.
"""

import copy
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from apprentice.learning.models import ValueHead
from apprentice.learning.objectives import explained_variance, squared_error
from apprentice.records import Trajectory

FOLDS = 5
"""Parts into which the trajectories are divided; each is left out of the fit of one head."""
PATIENCE = 5
"""Epochs without a rise of the explained variance after which fitting ends."""
STEP_TOKENS = 256
"""Action tokens an optimizer step."""

EPSILON = 1e-5
"""AdamW's, as PPO's implementations have it: at the mean return the bias has no gradient, and 1e-8 would make steps of its rounding errors."""


@dataclass(frozen=True)
class Samples:
    """What a head is fitted to."""

    features: Tensor
    """[a, hidden] what the trunk knew before each action token of this rank's micro-batches."""
    rows: Tensor
    """[a] which of all A action tokens they belong to."""
    returns: Tensor
    """[A] of all ranks' action tokens, on the CPU."""
    folds: Tensor
    """[A] the fold of each action token."""
    total: Callable[[Tensor], Tensor]
    """Sums over the ranks."""


@dataclass(frozen=True)
class WarmUp:
    """A fitted head, and how well heads fitted alike predict trajectories that were left out of their fit."""

    head: ValueHead
    epochs: int
    """After which the explained variance was best; 0 leaves the head at the mean return."""
    explained_variance: float
    """Of the trajectories left out, each predicted by the head that has not seen it."""


def fold_of_each(trajectories: Sequence[Trajectory], seed: int) -> list[int]:
    """The fold of each trajectory; a group is never split, unless there is only one."""
    several = len({trajectory.group for trajectory in trajectories}) > 1
    keys = [trajectory.group if several else str(index) for index, trajectory in enumerate(trajectories)]
    order = sorted(set(keys))
    random.Random(seed).shuffle(order)
    place = {key: number % FOLDS for number, key in enumerate(order)}
    return [place[key] for key in keys]


def warm_up(head: ValueHead, samples: Samples, *, learning_rate: float, epochs: int, seed: int) -> WarmUp:
    """Fit the head until the explained variance on trajectories left out stops rising.

    Args:
        head: where every fit starts; its bias is set to the mean return.
        samples: the same returns and folds on every rank, which all fit together.
        learning_rate: of AdamW.
        epochs: the largest number of passes over the samples.
        seed: of the order of the samples.
    """
    folds = sorted(set(samples.folds.tolist()))
    fits = [_Fit(head, samples, samples.folds != fold, learning_rate, seed) for fold in folds] if len(folds) > 1 else []
    best, reached = 0, _left_out(fits, samples)
    for epoch in range(1, (epochs if fits else 0) + 1):
        for fit in fits:
            fit.epoch()
        if (found := _left_out(fits, samples)) > reached:
            best, reached = epoch, found
        elif epoch - best >= PATIENCE:
            break
    whole = _Fit(head, samples, torch.ones_like(samples.folds, dtype=torch.bool), learning_rate, seed)
    for _ in range(best):
        whole.epoch()
    return WarmUp(whole.head, best, reached)


def _left_out(fits: Sequence["_Fit"], samples: Samples) -> float:
    """The explained variance of all tokens, each predicted by the head whose fit left it out."""
    values = torch.zeros_like(samples.returns)
    for fit in fits:
        values = torch.where(fit.chosen, values, fit.values())
    return explained_variance(values, samples.returns) if fits else 0.0


class _Fit:
    """One head, fitted to the chosen tokens."""

    def __init__(self, head: ValueHead, samples: Samples, chosen: Tensor, learning_rate: float, seed: int):
        self.head, self.chosen = copy.deepcopy(head).to(samples.features.device), chosen
        self._samples = samples
        torch.nn.init.constant_(self.head.linear.bias, float(samples.returns[chosen].mean()))
        self._optimizer = torch.optim.AdamW(self.head.parameters(), lr=learning_rate, eps=EPSILON, weight_decay=0.0)
        self._generator = torch.Generator().manual_seed(seed)
        self._place = torch.full((len(chosen),), -1)
        self._place[samples.rows] = torch.arange(len(samples.rows))

    def epoch(self) -> None:
        """Makes one pass over the chosen tokens, in an order that is the same on every rank."""
        chosen = self.chosen.nonzero()[:, 0]
        for part in chosen[torch.randperm(len(chosen), generator=self._generator)].split(STEP_TOKENS):
            mine = part[self._place[part] >= 0]
            features = self._samples.features[self._place[mine].to(self._samples.features.device)]
            target = self._samples.returns[mine].to(features.device)
            self._optimizer.zero_grad()
            squared_error(self.head(features), target, torch.ones_like(target), denominator=len(part)).backward()
            for weight in self.head.parameters():
                weight.grad = self._samples.total(weight.grad).to(weight.device)
            self._optimizer.step()

    @torch.no_grad()
    def values(self) -> Tensor:
        """[A] on the CPU, of all ranks' tokens."""
        values = torch.zeros_like(self._samples.returns)
        values[self._samples.rows] = self.head(self._samples.features).cpu()
        return self._samples.total(values)
