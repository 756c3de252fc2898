"""Step-level advantages: the attempts at one task as one graph, in which equal states are one node and equal steps one edge.

A reward at the last turn says nothing of which step earned it. Attempts that part ways from a common state do: what they share deserves
neither praise nor blame, what they do differently does.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from apprentice.config.schema import TrainConfig
from apprentice.learning.advantages import GROUP_BASELINES, group_normalised, leave_one_out
from apprentice.records import Trajectory


class Step(NamedTuple):
    """One action of one attempt: an edge."""

    state: Hashable
    action: Hashable
    following: Hashable
    """The state after it; None past the last action."""


def actions_of(trajectory: Trajectory) -> list[slice]:
    """The tokens of each action: runs of what the policy sampled. A sequence's first token is predicted from nothing and belongs to none."""
    sampled = [0, *trajectory.action_mask[1:], 0]
    starts = [index for index in range(1, len(sampled)) if sampled[index] > sampled[index - 1]]
    ends = [index for index in range(1, len(sampled)) if sampled[index] < sampled[index - 1]]
    return [slice(start, end) for start, end in zip(starts, ends, strict=True)]


def steps_of(trajectory: Trajectory, history: int) -> list[Step]:
    """An attempt as steps between states, one an action.

    Args:
        history: how many earlier actions, and what led to each, make up a state besides what was said since the last.
    """
    tokens, actions = trajectory.token_ids, actions_of(trajectory)
    did = [tokens[action] for action in actions]
    told = [tokens[end : action.start] for end, action in zip([0, *(action.stop for action in actions)], actions, strict=False)]
    past = list(zip(told, did, strict=True))
    states = [(tuple(past[max(0, number - history) : number]), told[number]) for number in range(len(actions))]
    return [Step(state, action, following) for state, action, following in zip(states, did, [*states[1:], None], strict=True)]


def salt(advantages: Tensor, attempts: Sequence[Sequence[Step]]) -> list[Tensor]:
    """SALT (Li et al. 2025): equal steps of a group share the mean of their attempts' advantages; every other step keeps its attempt's.

    Args:
        advantages: [n] of the attempts of one group, already compared with each other.
        attempts: the steps of each.

    Returns:
        The advantage of each step, [steps] an attempt.
    """
    merged: dict[Step, list[float]] = defaultdict(list)
    for advantage, steps in zip(advantages.tolist(), attempts, strict=True):
        for step in steps:
            merged[step].append(advantage)
    return [torch.tensor([sum(merged[step]) / len(merged[step]) for step in steps]) for steps in attempts]


def gigpo(rewards: Tensor, attempts: Sequence[Sequence[Step]], gamma: float, weight: float) -> list[Tensor]:
    """GiGPO (Feng et al. 2025): the attempt's advantage plus `weight` times the step's among all steps taken from the same state.

    A step's return is the reward discounted by the steps that are left; both comparisons are GRPO's. A state visited once adds nothing.

    Args:
        rewards: [n] of the attempts of one group.
        attempts: the steps of each.
        gamma: discount a step.

    Returns:
        The advantage of each step, [steps] an attempt.
    """
    returns = [reward * gamma ** torch.arange(len(steps) - 1, -1, -1.0) for reward, steps in zip(rewards, attempts, strict=True)]
    visits: dict[Hashable, list[tuple[int, int]]] = defaultdict(list)
    for attempt, steps in enumerate(attempts):
        for number, step in enumerate(steps):
            visits[step.state].append((attempt, number))
    advantages = [torch.full((len(steps),), whole) for whole, steps in zip(group_normalised(rewards).tolist(), attempts, strict=True)]
    for places in visits.values():
        compared = group_normalised(torch.stack([returns[attempt][number] for attempt, number in places]))
        for (attempt, number), advantage in zip(places, compared, strict=True):
            advantages[attempt][number] += weight * advantage
    return advantages


Attempts = Sequence[Sequence[Step]]
"""The steps of each attempt of one group."""
GroupAdvantage = Callable[[Tensor, Attempts, TrainConfig], list[Tensor]]


def _alike(baseline: Callable[[Tensor], Tensor]) -> GroupAdvantage:
    """The same advantage for every step of an attempt."""
    return lambda rewards, attempts, _: [torch.full((len(steps),), whole) for whole, steps in zip(baseline(rewards).tolist(), attempts, strict=True)]


GROUP_ADVANTAGES: dict[str, GroupAdvantage] = {
    **{name: _alike(baseline) for name, baseline in GROUP_BASELINES.items()},
    "salt": lambda rewards, attempts, _: salt(group_normalised(rewards), attempts),
    "salt_rloo": lambda rewards, attempts, _: salt(leave_one_out(rewards), attempts),
    "gigpo": lambda rewards, attempts, config: gigpo(rewards, attempts, config.gamma, config.step_weight),
}
"""What `train.advantage` names besides `gae`: rewards [n] and steps of the attempts of a group -> the advantage of each step."""


def group_advantages(trajectories: Sequence[Trajectory], rewards: Tensor, config: TrainConfig) -> Tensor:
    """Advantages of the action tokens of one group's trajectories, one after the other; alike within an action.

    Args:
        rewards: [n] of the trajectories.
    """
    attempts = [steps_of(trajectory, config.history) for trajectory in trajectories]
    advantages = torch.cat(GROUP_ADVANTAGES[config.advantage](rewards, attempts, config))
    tokens = [action.stop - action.start for trajectory in trajectories for action in actions_of(trajectory)]
    return advantages.repeat_interleave(torch.tensor(tokens))
