"""Step-level advantages: the attempts at one task as a graph whose nodes are states and whose edges are steps.

A reward at the last turn does not say which step earned it. Attempts that diverge from a common state do: the steps
that they share deserve neither credit nor blame, the steps in which they differ deserve both.
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
    """One action of one attempt, an edge of the graph."""

    state: Hashable
    action: Hashable
    next_state: Hashable
    """The state after the action; None after the last action."""


Attempts = Sequence[Sequence[Step]]
"""The steps of each attempt in a group."""
GroupAdvantage = Callable[[Tensor, Attempts, TrainConfig], list[Tensor]]
"""Maps the rewards [n] and the steps of a group's attempts to the advantages [steps] of each attempt."""


def actions_of(trajectory: Trajectory) -> list[slice]:
    """The token range of each action, a contiguous run of sampled tokens. The first token of a sequence has no
    predecessor and is never part of one."""
    sampled = [0, *trajectory.action_mask[1:], 0]
    starts = [index for index in range(1, len(sampled)) if sampled[index] > sampled[index - 1]]
    ends = [index for index in range(1, len(sampled)) if sampled[index] < sampled[index - 1]]
    return [slice(start, end) for start, end in zip(starts, ends, strict=True)]


def steps_of(trajectory: Trajectory, history: int) -> list[Step]:
    """The steps of an attempt, one per action.

    Args:
        history: number of earlier (observation, action) pairs that are part of a state, besides the latest observation.
    """
    tokens, spans = trajectory.token_ids, actions_of(trajectory)
    actions = [tokens[span] for span in spans]
    observations = [tokens[end : span.start] for end, span in zip([0, *(span.stop for span in spans)], spans, strict=False)]
    past = list(zip(observations, actions, strict=True))
    states = [(tuple(past[max(0, number - history) : number]), observations[number]) for number in range(len(spans))]
    return [Step(state, action, next_state) for state, action, next_state in zip(states, actions, [*states[1:], None], strict=True)]


def salt(advantages: Tensor, attempts: Attempts) -> list[Tensor]:
    """SALT (Li et al. 2025): equal steps of a group share the mean advantage of their attempts; every other step keeps
    that of its attempt.

    Args:
        advantages: [n] advantages of the attempts, already relative to the group.
        attempts: the steps of each attempt.

    Returns:
        The advantage of each step, one tensor [steps] per attempt.
    """
    merged: dict[Step, list[float]] = defaultdict(list)
    for advantage, steps in zip(advantages.tolist(), attempts, strict=True):
        for step in steps:
            merged[step].append(advantage)
    return [torch.tensor([sum(merged[step]) / len(merged[step]) for step in steps]) for steps in attempts]


def gigpo(rewards: Tensor, attempts: Attempts, gamma: float, weight: float) -> list[Tensor]:
    """GiGPO (Feng et al. 2025): the attempt's advantage plus `weight` times the advantage of the step among all steps
    from the same state.

    The return of a step is the reward discounted by the number of remaining steps. Both advantages use GRPO's
    normalisation. A state that was visited once contributes nothing.

    Args:
        rewards: [n] rewards of the attempts.
        attempts: the steps of each attempt.
        gamma: discount per step.
        weight: weight of the step-level advantage.

    Returns:
        The advantage of each step, one tensor [steps] per attempt.
    """
    returns = [reward * gamma ** torch.arange(len(steps) - 1, -1, -1.0) for reward, steps in zip(rewards, attempts, strict=True)]
    visits: dict[Hashable, list[tuple[int, int]]] = defaultdict(list)
    for attempt, steps in enumerate(attempts):
        for number, step in enumerate(steps):
            visits[step.state].append((attempt, number))
    advantages = _repeat(group_normalised(rewards), attempts)
    for places in visits.values():
        step_advantages = group_normalised(torch.stack([returns[attempt][number] for attempt, number in places]))
        for (attempt, number), advantage in zip(places, step_advantages, strict=True):
            advantages[attempt][number] += weight * advantage
    return advantages


def _repeat(advantages: Tensor, attempts: Attempts) -> list[Tensor]:
    """Repeats the advantage of each attempt for all of its steps."""
    return [torch.full((len(steps),), advantage) for advantage, steps in zip(advantages.tolist(), attempts, strict=True)]


def _per_attempt(baseline: Callable[[Tensor], Tensor]) -> GroupAdvantage:
    return lambda rewards, attempts, _: _repeat(baseline(rewards), attempts)


GROUP_ADVANTAGES: dict[str, GroupAdvantage] = {
    **{name: _per_attempt(baseline) for name, baseline in GROUP_BASELINES.items()},
    "salt": lambda rewards, attempts, _: salt(group_normalised(rewards), attempts),
    "salt_rloo": lambda rewards, attempts, _: salt(leave_one_out(rewards), attempts),
    "gigpo": lambda rewards, attempts, config: gigpo(rewards, attempts, config.gamma, config.step_weight),
}
"""The estimators that `train.advantage` offers besides `gae`."""


def group_advantages(trajectories: Sequence[Trajectory], rewards: Tensor, config: TrainConfig) -> Tensor:
    """Concatenated advantages of the action tokens of one group's trajectories. All tokens of an action share one
    advantage.

    Args:
        trajectories: the attempts of the group.
        rewards: [n] rewards of the trajectories.
        config: the `train` section.
    """
    attempts = [steps_of(trajectory, config.history) for trajectory in trajectories]
    advantages = torch.cat(GROUP_ADVANTAGES[config.advantage](rewards, attempts, config))
    tokens = [action.stop - action.start for trajectory in trajectories for action in actions_of(trajectory)]
    return advantages.repeat_interleave(torch.tensor(tokens))
