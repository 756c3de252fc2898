"""Which trajectories an update learns from, and in which optimizer step."""

import random
from collections.abc import Sequence

from torch import Tensor

from apprentice.config.schema import TrainConfig
from apprentice.errors import ApprenticeError
from apprentice.learning.packing import action_counts
from apprentice.records import Trajectory


def learnable(trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    """The trajectories that have actions and did not end in a fault of the infrastructure.

    Raises:
        ApprenticeError: none is left.
    """
    chosen = [trajectory for trajectory in trajectories if trajectory.outcome != "fault" and any(trajectory.action_mask[1:])]
    if not chosen:
        raise ApprenticeError(f"none of {len(trajectories)} trajectories can be learned from", todo="look for faults in the events of the stage")
    return chosen


def group_indices(trajectories: Sequence[Trajectory], chosen: Sequence[int] | None = None) -> dict[str, list[int]]:
    """The indices of each group's trajectories, restricted to `chosen` if it is given."""
    groups: dict[str, list[int]] = {}
    for index in range(len(trajectories)) if chosen is None else chosen:
        groups.setdefault(trajectories[index].group, []).append(index)
    return groups


def select(config: TrainConfig, trajectories: Sequence[Trajectory], advantages: Tensor) -> list[int]:
    """The indices of the trajectories to update on, after `train.min_advantage` and `train.learn_truncated`.

    Args:
        config: the `train` section.
        trajectories: those of the step.
        advantages: [A] advantages before normalisation.
    """
    largest = [float(part.abs().max()) for part in advantages.split(action_counts(trajectories))]
    left_out = [trajectory.outcome == "truncated" and not config.learn_truncated for trajectory in trajectories]
    return [index for index in range(len(trajectories)) if largest[index] >= config.min_advantage and not left_out[index]]


def with_gradient(config: TrainConfig, trajectories: Sequence[Trajectory], advantages: Tensor) -> frozenset[int]:
    """The indices of the trajectories whose tokens have a gradient.

    Where the loss consists of the surrogate alone, a trajectory without an advantage has none. With a critic, an
    entropy bonus or a KL penalty in the loss, every trajectory has one.
    """
    if config.advantage == "gae" or config.entropy_coefficient > 0 or (config.kl_coefficient > 0 and config.kl_in == "loss"):
        return frozenset(range(len(trajectories)))
    return frozenset(index for index, part in enumerate(advantages.split(action_counts(trajectories))) if part.any())


def split(config: TrainConfig, trajectories: Sequence[Trajectory], chosen: Sequence[int], step: int) -> list[list[int]]:
    """The indices of the trajectories of each optimizer step, for all epochs; deterministic in the seed and the step.

    A group is never split, because its attempts share a prefix that is computed once.
    """
    groups, minibatches = group_indices(trajectories, chosen), []
    for epoch in range(config.epochs):
        order = list(groups)
        random.Random(f"{config.seed}/{step}/{epoch}").shuffle(order)
        count = min(config.minibatches, len(order))
        minibatches += [[index for group in order[part::count] for index in groups[group]] for part in range(count)]
    return minibatches


def only_later(minibatches: Sequence[list[int]], moving: frozenset[int]) -> list[int]:
    """The indices with a gradient that occur in a later optimizer step but not in the first."""
    first, *others = minibatches
    return sorted({index for other in others for index in other} & moving - set(first))
