"""Lets a scripted expert play an episode in the agent's place: the same turns, tokens and limits."""

from collections.abc import Sequence

from apprentice.config.schema import EnvironmentConfig
from apprentice.environments.protocol import Environment, Expert
from apprentice.policy.protocol import Completion
from apprentice.records import Task, Trajectory
from apprentice.rollout.episode import Chat, Episode, TrajectoryBuilder, play


class _GaveUp(Exception):
    """The expert has no further action."""


async def enact(task: Task, environment: Environment, chat: Chat, expert: Expert, *, limits: EnvironmentConfig, seed: int) -> Trajectory | None:
    """The expert's successful trajectory, with log-probabilities of 0.0; None where it gave up or did not succeed.

    An action that no stop string ends is ended as the policy would end it, by the end-of-turn token. What the environment raises passes through.
    """
    actions = expert(task)

    async def decide(token_ids: Sequence[int], told: str, room: int, turn: int) -> Completion:
        try:
            action = actions.send(told if turn else None)
        except StopIteration:
            raise _GaveUp from None
        written = tuple(chat.action(action))
        if not action.endswith(environment.stop):
            written += (chat.end_token_id,)
        return Completion(written[:room], (0.0,) * len(written[:room]), "length" if len(written) > room else "stop", version=0)

    builder = TrajectoryBuilder(Episode(f"expert-{task.id}", task, f"expert-{task.id}", seed), temperature=0.0)
    try:
        trajectory = await play(builder, environment, chat, limits, decide)
    except _GaveUp:
        return None
    finally:
        actions.close()
        await environment.close()
    return trajectory if trajectory.outcome == "success" else None
