"""Collects the groups of episodes that one update needs, and stops as soon as it has them."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from apprentice.records import Trajectory
from apprentice.rollout.simulator import Episode, Played, Simulator, nothing_left


@dataclass(frozen=True)
class Collection:
    """The episodes of a step."""

    chosen: list[Trajectory]
    """The trajectories of the groups to learn from, in the order of the episodes."""
    others: list[Trajectory]
    """The trajectories of complete groups that are not learned from."""
    faults: list[Trajectory]
    """The attempts that ended in a fault."""
    unfinished: int
    """Number of groups that were still being played, or not yet begun, when enough were complete."""


async def collect(simulator: Simulator, episodes: Sequence[Episode], wanted: int, mixed_only: bool) -> Collection:
    """Plays episodes until enough groups are complete; episodes still in flight are ended.

    Args:
        simulator: plays the episodes.
        episodes: the episodes, group by group.
        wanted: number of groups to learn from, chosen in the order in which they complete.
        mixed_only: counts only groups whose attempts have different rewards. The others fill up the number if all
            episodes together do not give enough mixed groups.

    Raises:
        PolicyUnavailable: the policy stopped answering.
        ApprenticeError: every episode ended in a fault.
    """
    sizes = Counter(episode.group for episode in episodes)
    groups: dict[str, list[Played]] = defaultdict(list)
    counted: list[str] = []
    uniform: list[str] = []
    error, done = None, 0
    async with aclosing(simulator.played(episodes)) as finished:
        async for played in finished:
            group = groups[played.episode.group]
            group.append(played)
            error, done = error or played.error, done + 1
            if len(group) == sizes[played.episode.group] and (trajectories := _trajectories([group])):
                (uniform if mixed_only and not _is_mixed(trajectories) else counted).append(played.episode.group)
            if len(counted) == wanted:
                break
    if not counted and not uniform:
        raise nothing_left(error, done) from error
    chosen = set((counted + uniform)[:wanted])
    return Collection(
        _trajectories(groups[name] for name in chosen),
        _trajectories(groups[name] for name in {*counted, *uniform} - chosen),
        [fault for group in groups.values() for played in group for fault in played.broken],
        sum(len(groups[name]) < size for name, size in sizes.items()),
    )


def _trajectories(groups: Iterable[list[Played]]) -> list[Trajectory]:
    ordered = sorted((played for group in groups for played in group), key=lambda played: played.index)
    return [trajectory for played in ordered for trajectory in played.whole]


def _is_mixed(trajectories: Iterable[Trajectory]) -> bool:
    """Whether attempts of the same group have different rewards."""
    rewards = defaultdict(set)
    for trajectory in trajectories:
        rewards[trajectory.group].add(trajectory.reward)
    return any(len(values) > 1 for values in rewards.values())
