"""One episode: its tokens are appended as they are sampled or rendered, and no token is tokenised again."""

import hashlib
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from apprentice.config.schema import EnvironmentConfig
from apprentice.environments.cutting import MAX_TOKEN_CHARS, cut
from apprentice.environments.protocol import ERROR, MALFORMED, Environment, Observation
from apprentice.policy.protocol import Completion
from apprentice.records import Outcome, Task, Trajectory, Turn, Verdict
from apprentice.records.text import plain

FAILED = (MALFORMED, ERROR)
CUT_OFF = Observation("That was too long. Write less.", kind=MALFORMED)


class Chat(Protocol):
    """The chat format that an episode needs."""

    end_token_id: int

    def prompt(self, user_text: str) -> list[int]: ...
    def reply(self, text: str, ended: bool) -> list[int]: ...
    def action(self, text: str) -> list[int]: ...
    def encode(self, text: str) -> list[int]: ...
    def decode(self, ids: Sequence[int]) -> str: ...


Decide = Callable[[Sequence[int], str, int, int], Awaitable[Completion]]
"""Chooses an action, given the tokens so far, the last observation, the action's token limit, and the turn's index."""


@dataclass(frozen=True, slots=True)
class Episode:
    """One attempt at a task."""

    id: str
    task: Task
    group: str
    seed: int
    then: "Callable[[Trajectory], Episode] | None" = None
    """Creates an episode that is played next in the same slot, given this episode's trajectory."""


def derive_seed(*parts: str | int) -> int:
    """Derive a seed of 31 bits from names and numbers; it is the same in every process."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def each_episode(tasks: Iterable[Task], attempts: int, seed: int, tag: str) -> Iterator[Episode]:
    """Yield `attempts` episodes of each task, task by task; the episodes of a task form a group."""
    for task in tasks:
        for attempt in range(attempts):
            yield Episode(f"{tag}-{task.id}-{attempt}", task, f"{tag}-{task.id}", derive_seed(seed, tag, task.id, attempt))


def plan_episodes(tasks: Iterable[Task], attempts: int, seed: int, tag: str) -> list[Episode]:
    """Return the episodes of `each_episode` as a list."""
    return list(each_episode(tasks, attempts, seed, tag))


@dataclass(slots=True)
class TrajectoryBuilder:
    """The tokens and turns of an episode so far, from which its trajectory is built."""

    episode: Episode
    temperature: float
    token_ids: list[int] = field(default_factory=list)
    action_mask: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)

    def append_context(self, token_ids: Sequence[int]) -> None:
        """Append tokens that the policy did not sample."""
        self.token_ids.extend(token_ids)
        self.action_mask.extend([0] * len(token_ids))
        self.logprobs.extend([0.0] * len(token_ids))

    def append_action(self, completion: Completion, action: str) -> None:
        """Append the tokens of an action, and its turn."""
        if not completion.token_ids or len(completion.logprobs) != len(completion.token_ids):
            raise ValueError(f"the policy returned {len(completion.logprobs)} log-probabilities for {len(completion.token_ids)} tokens")
        start = len(self.token_ids)
        self.token_ids.extend(completion.token_ids)
        self.action_mask.extend([1] * len(completion.token_ids))
        self.logprobs.extend(completion.logprobs)
        self.turns.append(Turn(start, len(self.token_ids), action, "", "", completion.version))

    def set_observation(self, text: str, observation: Observation) -> None:
        """Record the environment's observation of the last action, with the text that the agent reads."""
        self.turns[-1] = replace(self.turns[-1], observation=text, kind=observation.kind, calls=observation.calls, uses=observation.uses)

    def failed_turns(self) -> int:
        """Return the number of consecutive failed turns at the end."""
        return next((index for index, turn in enumerate(reversed(self.turns)) if turn.kind not in FAILED), len(self.turns))

    def trajectory(self, outcome: Outcome, verdict: Verdict, error: str = "") -> Trajectory:
        """Build the trajectory."""
        return Trajectory(
            id=self.episode.id,
            task_id=self.episode.task.id,
            group=self.episode.group,
            token_ids=tuple(self.token_ids),
            action_mask=tuple(self.action_mask),
            logprobs=tuple(self.logprobs),
            turns=tuple(self.turns),
            reward=verdict.score,
            outcome=outcome,
            answer=verdict.answer,
            seed=self.episode.seed,
            temperature=self.temperature,
            error=error,
        )


async def play(builder: TrajectoryBuilder, environment: Environment, chat: Chat, limits: EnvironmentConfig, decide: Decide) -> Trajectory:
    """Play an episode until the environment is done or a limit of turns, consecutive failed turns or tokens is reached.

    An observation is appended only if another action follows, and is shortened if it would leave no room for one. An
    episode whose first message leaves no room is truncated before its first turn, with a reward of 0. Texts are cleaned
    of characters that an environment or a tokenizer cannot handle. Errors propagate, and `builder` then contains the
    episode up to the error.
    """
    text = plain((await environment.reset(builder.episode.task)).text)
    context = chat.prompt(text)
    if len(context) >= limits.max_tokens:
        reason = f"the first message takes {len(context)} tokens, and the whole episode may take {limits.max_tokens} (environment.max_tokens)"
        return builder.trajectory("truncated", Verdict(success=False, score=0.0), reason)
    done = over = False
    while not over:
        builder.append_context(context)
        room = min(limits.max_turn_tokens, limits.max_tokens - len(builder.token_ids))
        completion = await decide(builder.token_ids, text, room, len(builder.turns))
        action = plain(chat.decode(completion.token_ids))
        builder.append_action(completion, action)
        observation = await _step(environment, action, completion)
        text, done, context = plain(observation.text), observation.done, []
        if not done:
            ended = completion.token_ids[-1] == chat.end_token_id
            text, context = _reply(chat, text, ended, limits.max_tokens - len(builder.token_ids), limits.max_turn_tokens)
        builder.set_observation(text, observation)
        over = done or len(builder.turns) == limits.max_turns or builder.failed_turns() == limits.max_failed_turns
        over = over or len(builder.token_ids) + len(context) >= limits.max_tokens
    builder.turns[-1] = replace(builder.turns[-1], observation="")
    verdict = await environment.verify()
    return builder.trajectory(_outcome(verdict, done), verdict)


def _reply(chat: Chat, text: str, ended: bool, room: int, turn_tokens: int) -> tuple[str, list[int]]:
    """Return an observation's text and tokens, shortened if they would leave no room for another turn."""
    tokens = chat.reply(text[: room * MAX_TOKEN_CHARS], ended)
    spare = room - turn_tokens - len(chat.reply("", ended))
    if len(tokens) < room or spare < 1:
        return text, tokens
    text = cut(text, spare, chat.encode)
    return text, chat.reply(text, ended)


async def _step(environment: Environment, action: str, completion: Completion) -> Observation:
    if completion.finish_reason == "length" and not environment.takes_cut_actions:
        return CUT_OFF
    return await environment.step(action)


def _outcome(verdict: Verdict, done: bool) -> Outcome:
    if verdict.success:
        return "success"
    return "failure" if done else "truncated"
