"""The simulator: it plays many episodes at once with one policy, and a fault affects only its own episode."""

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
from apprentice.rollout.episode import Chat, Episode, TrajectoryBuilder, derive_seed, each_episode, plan_episodes, play

__all__ = ["Episode", "Played", "Simulator", "each_episode", "nothing_left", "plan_episodes"]

RETRY_PAUSE_S = 1.0
"""Pause before the first retry after the policy did not answer; it doubles with each further retry."""
POLICY_LOST_AFTER = 8
"""Consecutive episodes without an answer of the policy, retries included, after which the run ends."""


@dataclass
class Played:
    """An episode that ended, or whose every attempt failed with a fault."""

    index: int
    """Index of the episode in the run."""
    episode: Episode
    faults: list[Trajectory] = field(default_factory=list)
    """Attempts that failed with a fault."""
    trajectory: Trajectory | None = None
    """None if every attempt failed."""
    error: Exception | None = None
    """Error of the last attempt; None if it ended."""
    then: "Played | None" = None
    """The episode that was played next in the same slot."""

    @property
    def whole(self) -> list[Trajectory]:
        """The trajectories of this episode and of those played next, without failed attempts."""
        own = [] if self.trajectory is None else [self.trajectory]
        return own if self.then is None else own + self.then.whole

    @property
    def broken(self) -> list[Trajectory]:
        """The failed attempts of this episode and of those played next."""
        return self.faults if self.then is None else self.faults + self.then.broken


class Simulator:
    """Plays `limits.concurrency` episodes at the same time, or fewer if this process cannot open files for as many.

    Args:
        policy: samples the actions.
        chat: converts messages to tokens.
        make_environment: creates the environment of an episode.
        limits: turns, tokens and concurrency.
        temperature: sampling temperature; 0 selects greedy decoding.
        retries: further attempts at an episode that failed with a fault.
        pause_s: pause before the first retry after the policy did not answer.
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
        """Failed attempts of the last `run`."""
        self.sampling = BusyTime()
        """Time in which the policy sampled actions; for the rest of a rollout it waits for environments."""

    async def run(self, episodes: Sequence[Episode], progress: Progress | None = None, phase: str = "rollout") -> list[Trajectory]:
        """Play the episodes, and put failed attempts into `faults`.

        Args:
            episodes: the episodes to play.
            progress: receives the number of episodes that have ended.
            phase: name of the progress.

        Returns:
            The trajectories in the order of `episodes`, each followed by those of the episodes played next in its slot.

        Raises:
            PolicyUnavailable: the policy stopped answering.
            ApprenticeError: every episode failed with a fault.
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
        """Yield the episodes as they end, and take further ones as slots become free.

        Episodes in flight are cancelled when the iteration ends.

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
        """Play an episode, and retry it under a new id if it fails with a fault."""
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
        builder = TrajectoryBuilder(episode, self._temperature)
        try:
            environment = self._make_environment()
            try:
                return await play(builder, environment, self._chat, self._limits, self._sampler(environment, episode)), None
            finally:
                await environment.close()
        # This boundary turns every error of a user's environment, a knowledge base or the policy's engine into a fault
        # of this episode, so that it neither reaches other episodes nor counts as the agent's failure.
        except Exception as error:
            if asyncio.current_task().cancelling():
                raise
            return builder.trajectory("fault", Verdict(success=False, score=0.0), f"{type(error).__name__}: {error}"), error

    def _sampler(self, environment: Environment, episode: Episode):
        async def decide(token_ids: Sequence[int], _observation: str, room: int, turn: int) -> Completion:
            sampling = Sampling(room, self._temperature, derive_seed(episode.seed, turn), environment.stop, (self._chat.end_token_id,))
            with self.sampling:
                return await self._policy.generate(token_ids, sampling)

        return decide


def nothing_left(error: Exception, episodes: int) -> Exception:
    """Return the error of a run in which every episode failed with a fault."""
    if isinstance(error, PolicyUnavailable):
        return PolicyUnavailable(f"the policy did not answer any of {episodes} episodes: {error}")
    if isinstance(error, ApprenticeError):
        return error
    return ApprenticeError(
        f"all of {episodes} episodes failed; the first error is {type(error).__name__}: {error}",
        todo="fix the environment, or what it depends on",
    )
