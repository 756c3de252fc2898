"""The online simulator: many episodes in flight over one policy; a fault stops at its own episode."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from apprentice.config.schema import EnvironmentConfig
from apprentice.environments.protocol import Environment
from apprentice.errors import ApprenticeError, PolicyUnavailable
from apprentice.policy.protocol import Completion, Policy, Sampling
from apprentice.processes.limits import max_concurrent_episodes
from apprentice.records import Trajectory, Verdict
from apprentice.records.events import Progress
from apprentice.rollout.busy import BusyTime
from apprentice.rollout.episode import Chat, Episode, Tape, derive_seed, each_episode, plan_episodes, play

__all__ = ["Episode", "Played", "Simulator", "each_episode", "nothing_left", "plan_episodes"]

RETRY_PAUSE_S = 1.0
"""Before the first retry after the policy did not answer; doubled for each further one."""
POLICY_LOST_AFTER = 8
"""Episodes in a row that the policy did not answer, retries included, until it is given up."""


@dataclass
class Played:
    """One episode that came to its end, or was given up."""

    index: int
    """Its place among the episodes."""
    episode: Episode
    faults: list[Trajectory] = field(default_factory=list)
    """The attempts that broke."""
    trajectory: Trajectory | None = None
    """None where every attempt broke."""
    error: Exception | None = None
    """What broke the last attempt."""
    then: "Played | None" = None
    """The episode played after it, in the same place."""

    @property
    def whole(self) -> list[Trajectory]:
        """Its trajectory and those of what was played after it, of what did not break."""
        own = [] if self.trajectory is None else [self.trajectory]
        return own if self.then is None else own + self.then.whole

    @property
    def broken(self) -> list[Trajectory]:
        """Its attempts that broke and those of what was played after it."""
        return self.faults if self.then is None else self.faults + self.then.broken


class Simulator:
    """Plays episodes; `limits.concurrency` of them at the same time, fewer where this process may not open files for as many.

    Args:
        policy: samples the actions.
        chat: how messages become tokens.
        make_environment: a fresh environment for each episode.
        limits: turns, tokens and concurrency.
        temperature: 0 is greedy.
        retries: further attempts at an episode that broke.
        pause_s: before the first retry after the policy did not answer.
    """

    def __init__(
        self,
        policy: Policy,
        chat: Chat,
        make_environment: Callable[[], Environment],
        limits: EnvironmentConfig,
        temperature: float,
        retries: int = 2,
        pause_s: float = RETRY_PAUSE_S,
    ):
        self._policy, self._chat, self._make_environment = policy, chat, make_environment
        self._limits, self._temperature, self._retries, self._pause_s = limits, temperature, retries, pause_s
        self._at_once = min(limits.concurrency, max_concurrent_episodes())
        self.faults: list[Trajectory] = []
        """The attempts of the last `run` that broke."""
        self.sampling = BusyTime()
        """In which the policy had an action to sample; in what is left of a rollout it waits for environments."""

    async def run(self, episodes: Sequence[Episode], progress: Progress | None = None, phase: str = "rollout") -> list[Trajectory]:
        """The trajectories in the order of the episodes, each followed by those played after it, without those that broke: these are in `faults`.

        Raises:
            PolicyUnavailable: the policy stopped answering.
            ApprenticeError: every episode broke.
        """
        good: dict[int, list[Trajectory]] = {}
        self.faults, error, done = [], None, 0
        async with aclosing(self.played(episodes)) as finished:
            async for played in finished:
                self.faults += played.broken
                if played.trajectory is not None:
                    good[played.index] = played.whole
                error, done = error or played.error, done + 1
                if progress:
                    progress.advance(phase, done, len(episodes))
        if error and not good:
            raise nothing_left(error, done) from error
        return [trajectory for index in sorted(good) for trajectory in good[index]]

    async def played(self, episodes: Iterable[Episode]) -> AsyncIterator[Played]:
        """The episodes as they finish; they are taken as places fall free. Those in flight are ended with the iteration.

        Raises:
            PolicyUnavailable: the policy stopped answering.
        """
        waiting: Iterator[tuple[int, Episode]] = enumerate(episodes)
        running: set[asyncio.Task[Played]] = set()
        unanswered = 0
        try:
            while True:
                while len(running) < self._at_once and (following := next(waiting, None)):
                    running.add(asyncio.create_task(self._play(*following)))
                if not running:
                    return
                finished, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for played in sorted((task.result() for task in finished), key=lambda played: played.index):
                    unanswered = unanswered + 1 if isinstance(played.error, PolicyUnavailable) else 0
                    yield played
                    if unanswered >= POLICY_LOST_AFTER:
                        raise PolicyUnavailable(f"the policy stopped answering, {unanswered} episodes in a row: {played.error}") from played.error
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _play(self, index: int, episode: Episode) -> Played:
        """Plays an episode, again under a new id where it broke."""
        played = Played(index, episode)
        for retry in range(self._retries + 1):
            if isinstance(played.error, PolicyUnavailable):
                await asyncio.sleep(self._pause_s * 2 ** (retry - 1))
            trajectory, played.error = await self._attempt(replace(episode, id=f"{episode.id}-r{retry}") if retry else episode)
            if played.error is None:
                played.trajectory = trajectory
                break
            played.faults.append(trajectory)
        if played.trajectory is not None and episode.then is not None:
            played.then = await self._play(index, episode.then(played.trajectory))
        return played

    async def _attempt(self, episode: Episode) -> tuple[Trajectory, Exception | None]:
        tape = Tape(episode, self._temperature)
        try:
            environment = self._make_environment()
            try:
                return await play(tape, environment, self._chat, self._limits, self._sampler(environment, episode)), None
            finally:
                await environment.close()
        # The one boundary where whatever a user's environment, a knowledge base or the policy's engine raises becomes a fault of
        # this episode: it must not reach the siblings, and it must not count as the agent's failure.
        except Exception as error:
            if asyncio.current_task().cancelling():
                raise
            return tape.trajectory("fault", Verdict(success=False, score=0.0), f"{type(error).__name__}: {error}"), error

    def _sampler(self, environment: Environment, episode: Episode):
        async def decide(token_ids: Sequence[int], told: str, room: int, turn: int) -> Completion:
            sampling = Sampling(room, self._temperature, derive_seed(episode.seed, turn), environment.stop, (self._chat.end_token_id,))
            with self.sampling:
                return await self._policy.generate(token_ids, sampling)

        return decide


def nothing_left(error: Exception, episodes: int) -> Exception:
    """What a run raises when none of its episodes came to an end."""
    if isinstance(error, PolicyUnavailable):
        return PolicyUnavailable(f"the policy did not answer any of {episodes} episodes: {error}")
    if isinstance(error, ApprenticeError):
        return error
    return ApprenticeError(
        f"every one of {episodes} episodes broke; the first with {type(error).__name__}: {error}",
        todo="mend the environment, or what it depends on",
    )
