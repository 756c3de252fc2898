"""One step's groups of episodes: as many as the update wants, and no later than that."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from apprentice.records import Trajectory
from apprentice.rollout.simulator import Episode, Played, Simulator, nothing_left


@dataclass(frozen=True)
class Collection:
    """What a step has played."""

    chosen: list[Trajectory]
    """Of the groups to learn from, in the order of the episodes."""
    others: list[Trajectory]
    """Of complete groups that are not learned from."""
    faults: list[Trajectory]
    """The attempts that broke."""
    unfinished: int
    """Groups that were still being played, or never begun, when enough were complete."""


async def collect(simulator: Simulator, episodes: Sequence[Episode], wanted: int, mixed_only: bool) -> Collection:
    """Plays episodes until enough groups are complete; those still in flight are ended.

    Args:
        simulator: plays them.
        episodes: group by group.
        wanted: groups to learn from, in the order in which they became complete.
        mixed_only: groups whose attempts were all rewarded alike do not count; they make up the number where all episodes do not give enough others.

    Raises:
        PolicyUnavailable: the policy stopped answering.
        ApprenticeError: every episode broke.
    """
    sizes = Counter(episode.group for episode in episodes)
    groups: dict[str, list[Played]] = defaultdict(list)
    counting: list[str] = []
    alike: list[str] = []
    error, done = None, 0
    async with aclosing(simulator.played(episodes)) as finished:
        async for played in finished:
            group = groups[played.episode.group]
            group.append(played)
            error, done = error or played.error, done + 1
            if len(group) == sizes[played.episode.group] and (trajectories := _trajectories([group])):
                (alike if mixed_only and not _mixed(trajectories) else counting).append(played.episode.group)
            if len(counting) == wanted:
                break
    if not counting and not alike:
        raise nothing_left(error, done) from error
    chosen = set((counting + alike)[:wanted])
    return Collection(
        _trajectories(groups[name] for name in chosen),
        _trajectories(groups[name] for name in {*counting, *alike} - chosen),
        [fault for group in groups.values() for played in group for fault in played.broken],
        sum(len(groups[name]) < size for name, size in sizes.items()),
    )


def _trajectories(groups: Iterable[list[Played]]) -> list[Trajectory]:
    together = sorted((played for group in groups for played in group), key=lambda played: played.index)
    return [trajectory for played in together for trajectory in played.whole]


def _mixed(trajectories: Iterable[Trajectory]) -> bool:
    """Whether attempts that are compared were rewarded differently."""
    rewards = defaultdict(set)
    for trajectory in trajectories:
        rewards[trajectory.group].add(trajectory.reward)
    return any(len(values) > 1 for values in rewards.values())
