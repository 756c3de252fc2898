"""The critic, and the fit of its value head to the starting policy's trajectories before the first update.

The value head reads the features of the actor's trunk, which are also the initial features of a separate critic. The
trunk is therefore computed once, and only the head is fitted. Cross-validation over groups chooses the number of
epochs: attempts at one task share a prefix, so held-out attempts must belong to other tasks. A longer fit would only
memorise its trajectories.
"""

import copy
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from apprentice.config.schema import TrainConfig
from apprentice.learning.engine import Engine, training_engine
from apprentice.learning.models import Scores, SeparateCritic, ValueHead, load_language_model
from apprentice.learning.objectives import explained_variance, squared_error
from apprentice.learning.packing import PackedBatch
from apprentice.records import Trajectory

FOLDS = 5
"""Number of cross-validation folds."""
PATIENCE = 5
"""Epochs without an increase of the explained variance after which the fit stops."""
STEP_TOKENS = 256
"""Action tokens per optimizer step of the fit."""
EPSILON = 1e-5
"""AdamW's epsilon, as in PPO implementations. At the mean return the bias has no gradient, and 1e-8 would turn its
rounding errors into steps."""


class Critic:
    """A value function with an optimizer of its own: a head on the actor's features, or a separate model.

    Args:
        config: the `train` section.
        checkpoint: folder of the starting policy, from which a separate critic is initialised.
        hidden_size: width of the actor's features.
        dtype: type of a separate critic's weights; a shared head is fp32.
    """

    def __init__(self, config: TrainConfig, checkpoint: Path, hidden_size: int, dtype: torch.dtype):
        self._config, self._shared = config, config.critic == "shared"
        if self._shared:
            model, dtype = ValueHead(hidden_size), torch.float32
        else:
            model = SeparateCritic(load_language_model(checkpoint, dtype, recompute=config.recompute_activations).base_model)
        self.engine: Engine = training_engine(model, config, learning_rate=config.critic_learning_rate, dtype=dtype)

    def values(self, scores: Scores, batch: PackedBatch) -> Tensor:
        """Values [A] before each action token of a micro-batch that the actor has scored."""
        return self.engine(scores.features if self._shared else batch)

    def step(self) -> bool:
        """Takes an optimizer step; returns whether the weights changed."""
        return self.engine.step(self._config.critic_learning_rate)[1]

    def fit(self, samples: "Samples") -> "FittedHead":
        """Replaces the value head by one that is fitted to the samples."""
        head = ValueHead(samples.features.shape[1])
        fitted = fit_head(head, samples, self._config.critic_learning_rate, self._config.critic_warmup_epochs, self._config.seed)
        module = self.engine.module
        self.engine.copy_weights(module if self._shared else module.head, fitted.head)
        return fitted


@dataclass(frozen=True)
class Samples:
    """The training data of a value head."""

    features: Tensor
    """[a, hidden] trunk features before each action token of this rank's micro-batches."""
    actions: Tensor
    """[a] index among all A action tokens of each row of `features`."""
    returns: Tensor
    """[A] returns of the action tokens of all ranks, on the CPU."""
    folds: Tensor
    """[A] fold of each action token."""
    all_reduce: Callable[[Tensor], Tensor]
    """Sums a tensor over the ranks."""


@dataclass(frozen=True)
class FittedHead:
    """A fitted head and its cross-validated quality."""

    head: ValueHead
    epochs: int
    """Number of epochs with the best explained variance; 0 leaves the head at the mean return."""
    explained_variance: float
    """On the held-out trajectories, each predicted by the head that was fitted without it."""


def fold_of_each(trajectories: Sequence[Trajectory], seed: int) -> list[int]:
    """The fold of each trajectory. A group is never split, unless there is only one."""
    several = len({trajectory.group for trajectory in trajectories}) > 1
    keys = [trajectory.group if several else str(index) for index, trajectory in enumerate(trajectories)]
    order = sorted(set(keys))
    random.Random(seed).shuffle(order)
    fold = {key: number % FOLDS for number, key in enumerate(order)}
    return [fold[key] for key in keys]


def fit_head(head: ValueHead, samples: Samples, learning_rate: float, epochs: int, seed: int) -> FittedHead:
    """Fits a head until the explained variance on held-out trajectories stops increasing.

    Args:
        head: the initial head of every fit; its bias is set to the mean return.
        samples: the same returns and folds on every rank, since all ranks fit together.
        learning_rate: of AdamW.
        epochs: maximum number of passes over the samples.
        seed: seed of the order of the samples.
    """
    folds = sorted(set(samples.folds.tolist()))
    fits = [HeadFit(head, samples, samples.folds != fold, learning_rate, seed) for fold in folds] if len(folds) > 1 else []
    best_epoch, best = 0, _held_out_variance(fits, samples)
    for epoch in range(1, (epochs if fits else 0) + 1):
        for fit in fits:
            fit.run_epoch()
        if (found := _held_out_variance(fits, samples)) > best:
            best_epoch, best = epoch, found
        elif epoch - best_epoch >= PATIENCE:
            break
    final = HeadFit(head, samples, torch.ones_like(samples.folds, dtype=torch.bool), learning_rate, seed)
    for _ in range(best_epoch):
        final.run_epoch()
    return FittedHead(final.head, best_epoch, best)


def _held_out_variance(fits: Sequence["HeadFit"], samples: Samples) -> float:
    """The explained variance over all tokens, each predicted by the head whose fit excluded it."""
    values = torch.zeros_like(samples.returns)
    for fit in fits:
        values = torch.where(fit.chosen, values, fit.values())
    return explained_variance(values, samples.returns) if fits else 0.0


class HeadFit:
    """The fit of one head to the chosen tokens.

    Args:
        head: copied; the initial weights.
        samples: features and returns.
        chosen: [A] whether a token is part of the fit.
        learning_rate: of AdamW.
        seed: seed of the order of the samples.
    """

    def __init__(self, head: ValueHead, samples: Samples, chosen: Tensor, learning_rate: float, seed: int):
        self.head, self.chosen = copy.deepcopy(head).to(samples.features.device), chosen
        self._samples = samples
        torch.nn.init.constant_(self.head.linear.bias, float(samples.returns[chosen].mean()))
        self._optimizer = torch.optim.AdamW(self.head.parameters(), lr=learning_rate, eps=EPSILON, weight_decay=0.0)
        self._generator = torch.Generator().manual_seed(seed)
        self._row = torch.full((len(chosen),), -1)
        self._row[samples.actions] = torch.arange(len(samples.actions))

    def run_epoch(self) -> None:
        """Makes one pass over the chosen tokens, in the same order on every rank."""
        chosen = self.chosen.nonzero()[:, 0]
        for part in chosen[torch.randperm(len(chosen), generator=self._generator)].split(STEP_TOKENS):
            local = part[self._row[part] >= 0]
            features = self._samples.features[self._row[local].to(self._samples.features.device)]
            target = self._samples.returns[local].to(features.device)
            self._optimizer.zero_grad()
            squared_error(self.head(features), target, denominator=len(part)).backward()
            for weight in self.head.parameters():
                weight.grad = self._samples.all_reduce(weight.grad).to(weight.device)
            self._optimizer.step()

    @torch.no_grad()
    def values(self) -> Tensor:
        """[A] on the CPU, for the tokens of all ranks."""
        values = torch.zeros_like(self._samples.returns)
        values[self._samples.actions] = self.head(self._samples.features).cpu()
        return self._samples.all_reduce(values)
