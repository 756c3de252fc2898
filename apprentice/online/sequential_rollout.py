"""Chains of two tasks of one scenario: what the agent keeps in the first is at hand in the second (sequential rollout, Wang et al. 2025)."""

import random
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial

from apprentice.environments.protocol import Skills
from apprentice.records import Skill, SkillLibrary, Task, Trajectory
from apprentice.rollout.episode import Episode, derive_seed
from apprentice.rollout.simulator import Played, Simulator


@dataclass(frozen=True)
class Chain:
    """What came of one."""

    index: int
    """Its place among the episodes."""
    kept: bool
    used: tuple[Skill, ...]
    """Of what the first attempt kept, what the second called."""
    solved: bool
    """The second task."""


class SequentialRollout:
    """Plays episodes as a simulator does, each followed by one at another task of its scenario, where the curriculum has one.

    Attempts at a second task form a group of their own: what each is compared with had the same first task before it.

    Args:
        simulator: plays the episodes.
        skills: reads what attempts keep and use.
        curriculum: where second tasks come from.
        reward: added to both rewards of a chain whose second task was solved with a function kept in the first (skill-integrated reward).
        library: takes such functions in.
        seed: chooses the second tasks.
    """

    def __init__(self, simulator: Simulator, skills: Skills, curriculum: Sequence[Task], reward: float, library: SkillLibrary, seed: int):
        self._simulator, self._skills, self._curriculum = simulator, skills, curriculum
        self._reward, self._library, self._seed = reward, library, seed
        self.metrics: dict[str, float] = {}
        """Shares of the last chains played."""
        self.sampling = simulator.sampling

    async def played(self, episodes: Iterable[Episode]) -> AsyncIterator[Played]:
        """The chains as they finish; those in flight are ended with the iteration."""
        chains: list[Chain] = []
        try:
            async with aclosing(self._simulator.played(map(self._followed, episodes))) as finished:
                async for played in finished:
                    if played.then is not None and played.then.trajectory is not None:
                        chains.append(self._rewarded(played))
                    yield played
        finally:
            self._conclude(chains)

    def _followed(self, episode: Episode) -> Episode:
        """The episode, with what comes after it; the same task for all of its group."""
        others = [task for task in self._curriculum if task.scenario == episode.task.scenario and task.id != episode.task.id]
        if not others:
            return episode
        return replace(episode, then=partial(self._second, episode, random.Random(f"{self._seed}/{episode.group}").choice(others)))

    def _second(self, first: Episode, task: Task, trajectory: Trajectory) -> Episode:
        at_hand = SkillLibrary(self._skills.kept(first.task, trajectory)).of(task.scenario)
        tail = f"then-{task.id}"
        return Episode(f"{first.id}-{tail}", task.model_copy(update={"skills": at_hand}), f"{first.group}-{tail}", derive_seed(first.seed, tail))

    def _rewarded(self, played: Played) -> Chain:
        """Adds the reward for skills where it is due."""
        second, at_hand = played.then.trajectory, played.then.episode.task.skills
        chain = Chain(played.index, bool(at_hand), tuple(self._skills.used(at_hand, second)), second.outcome == "success")
        if chain.used and chain.solved:
            for one in (played, played.then):
                one.trajectory = replace(one.trajectory, reward=one.trajectory.reward + self._reward)
        return chain

    def _conclude(self, chains: list[Chain]) -> None:
        """Notes the figures and what has proved its worth, in the order of the episodes."""
        proven = [chain for chain in sorted(chains, key=lambda chain: chain.index) if chain.used and chain.solved]
        for chain in proven:
            self._library.add(chain.used)
        count = max(1, len(chains))
        self.metrics = {
            "chains": float(len(chains)),
            "chains_kept": sum(chain.kept for chain in chains) / count,
            "chains_used": sum(bool(chain.used) for chain in chains) / count,
            "chains_solved": sum(chain.solved for chain in chains) / count,
            "chains_proven": len(proven) / count,
            "skills": float(len(self._library)),
        }
