"""Episodes of a scripted expert, with the turns, tokens and limits of the agent's episodes."""

from collections.abc import Sequence

from apprentice.config.schema import EnvironmentConfig
from apprentice.environments.protocol import Environment, Expert
from apprentice.policy.protocol import Completion
from apprentice.records import Task, Trajectory
from apprentice.rollout.episode import Chat, Episode, TrajectoryBuilder, play


class _GaveUp(Exception):
    """The expert has no further action."""


async def enact(task: Task, environment: Environment, chat: Chat, expert: Expert, *, limits: EnvironmentConfig, seed: int) -> Trajectory | None:
    """Play an episode with the expert's actions.

    An action that does not end with a stop string ends with the end-of-turn token, as the policy's actions do. Errors
    of the environment propagate.

    Returns:
        The successful trajectory, with log-probabilities of 0.0; None if the expert gave up or failed.
    """
    actions = expert(task)

    async def decide(token_ids: Sequence[int], observation: str, room: int, turn: int) -> Completion:
        try:
            action = actions.send(observation if turn else None)
        except StopIteration:
            raise _GaveUp from None
        tokens = tuple(chat.action(action))
        if not action.endswith(environment.stop):
            tokens += (chat.end_token_id,)
        return Completion(tokens[:room], (0.0,) * len(tokens[:room]), "length" if len(tokens) > room else "stop", version=0)

    builder = TrajectoryBuilder(Episode(f"expert-{task.id}", task, f"expert-{task.id}", seed), temperature=0.0)
    try:
        trajectory = await play(builder, environment, chat, limits, decide)
    except _GaveUp:
        return None
    finally:
        actions.close()
        await environment.close()
    return trajectory if trajectory.outcome == "success" else None
