"""Sequential rollout (Wang et al. 2025): chains of two tasks of a scenario that share the skills kept in the first."""

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
    """The outcome of one chain."""

    index: int
    """Its position among the episodes."""
    kept: bool
    """Whether the first attempt kept a skill."""
    used: tuple[Skill, ...]
    """The skills kept by the first attempt that the second called."""
    solved: bool
    """Whether the second task was solved."""

    @property
    def proven(self) -> bool:
        """Whether the second task was solved with a skill kept in the first."""
        return bool(self.used) and self.solved


class SequentialRollout:
    """Plays episodes as a simulator does, each followed by one at another task of its scenario, if there is one.

    The attempts at a second task form a group of their own, so that all attempts of a group had the same first task.

    Args:
        simulator: plays the episodes.
        skills: extracts the skills that attempts keep and use.
        curriculum: provides the second tasks.
        reward: skill-integrated reward, added to both rewards of a chain whose second task was solved with a skill kept
            in the first.
        library: receives such skills.
        seed: selects the second tasks.
    """

    def __init__(self, simulator: Simulator, skills: Skills, curriculum: Sequence[Task], reward: float, library: SkillLibrary, seed: int):
        self._simulator, self._skills, self._curriculum = simulator, skills, curriculum
        self._reward, self._library, self._seed = reward, library, seed
        self.metrics: dict[str, float] = {}
        """Shares of the chains in the latest call of `played`."""
        self.sampling = simulator.sampling

    async def played(self, episodes: Iterable[Episode]) -> AsyncIterator[Played]:
        """Yields the chains as they finish; closing the iterator ends those in flight."""
        chains: list[Chain] = []
        try:
            async with aclosing(self._simulator.played(map(self._with_second, episodes))) as finished:
                async for played in finished:
                    if played.then is not None and played.then.trajectory is not None:
                        chains.append(self._reward_skills(played))
                    yield played
        finally:
            self._conclude(chains)

    def _with_second(self, episode: Episode) -> Episode:
        """The episode with its follow-up, which has the same task for the whole group."""
        others = [task for task in self._curriculum if task.scenario == episode.task.scenario and task.id != episode.task.id]
        if not others:
            return episode
        return replace(episode, then=partial(self._second, episode, random.Random(f"{self._seed}/{episode.group}").choice(others)))

    def _second(self, first: Episode, task: Task, trajectory: Trajectory) -> Episode:
        available = SkillLibrary(self._skills.kept(first.task, trajectory)).of(task.scenario)
        suffix = f"then-{task.id}"
        return Episode(f"{first.id}-{suffix}", task.model_copy(update={"skills": available}), f"{first.group}-{suffix}", derive_seed(first.seed, suffix))

    def _reward_skills(self, played: Played) -> Chain:
        """Adds the skill-integrated reward to both trajectories of a chain that earned it."""
        second, available = played.then.trajectory, played.then.episode.task.skills
        chain = Chain(played.index, bool(available), tuple(self._skills.used(available, second)), second.outcome == "success")
        if chain.proven:
            for one in (played, played.then):
                one.trajectory = replace(one.trajectory, reward=one.trajectory.reward + self._reward)
        return chain

    def _conclude(self, chains: list[Chain]) -> None:
        """Records the metrics, and adds the proven skills to the library in the order of the episodes."""
        proven = [chain for chain in sorted(chains, key=lambda chain: chain.index) if chain.proven]
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
