"""One episode: actions are appended as they were sampled, observations as the chat format writes them; nothing is tokenised twice."""

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
    """What an episode needs of a chat format."""

    end_token_id: int

    def prompt(self, user_text: str) -> list[int]: ...
    def reply(self, text: str, ended: bool) -> list[int]: ...
    def action(self, text: str) -> list[int]: ...
    def encode(self, text: str) -> list[int]: ...
    def decode(self, ids: Sequence[int]) -> str: ...


Decide = Callable[[Sequence[int], str, int, int], Awaitable[Completion]]
"""Takes the tokens so far, the last observation as text, how many tokens it may sample, and the turn's number from 0."""


@dataclass(frozen=True, slots=True)
class Episode:
    """One attempt at a task."""

    id: str
    task: Task
    group: str
    seed: int
    then: "Callable[[Trajectory], Episode] | None" = None
    """What is played after it, in the same place, as its own trajectory allows."""


def derive_seed(*parts: str | int) -> int:
    """A seed of 31 bits from names and numbers; the same in every process."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def each_episode(tasks: Iterable[Task], attempts: int, seed: int, tag: str) -> Iterator[Episode]:
    """`attempts` episodes of each task, made as they are asked for; those of a task form a group."""
    for task in tasks:
        for attempt in range(attempts):
            yield Episode(f"{tag}-{task.id}-{attempt}", task, f"{tag}-{task.id}", derive_seed(seed, tag, task.id, attempt))


def plan_episodes(tasks: Iterable[Task], attempts: int, seed: int, tag: str) -> list[Episode]:
    """`attempts` episodes of each task, in order."""
    return list(each_episode(tasks, attempts, seed, tag))


@dataclass(slots=True)
class TrajectoryBuilder:
    """What an episode has left behind so far."""

    episode: Episode
    temperature: float
    token_ids: list[int] = field(default_factory=list)
    action_mask: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)

    def given(self, token_ids: Sequence[int]) -> None:
        """Appends tokens that the policy did not sample."""
        self.token_ids.extend(token_ids)
        self.action_mask.extend([0] * len(token_ids))
        self.logprobs.extend([0.0] * len(token_ids))

    def sampled(self, completion: Completion, action: str) -> None:
        """Appends an action's tokens and its turn."""
        if not completion.token_ids or len(completion.logprobs) != len(completion.token_ids):
            raise ValueError(f"the policy gave {len(completion.logprobs)} log-probabilities for {len(completion.token_ids)} tokens")
        start = len(self.token_ids)
        self.token_ids.extend(completion.token_ids)
        self.action_mask.extend([1] * len(completion.token_ids))
        self.logprobs.extend(completion.logprobs)
        self.turns.append(Turn(start, len(self.token_ids), action, "", "", completion.version))

    def answered(self, told: str, observation: Observation) -> None:
        """Notes what the environment took the last action for, and what the agent is told."""
        self.turns[-1] = replace(self.turns[-1], observation=told, kind=observation.kind, calls=observation.calls, uses=observation.uses)

    def failed_turns(self) -> int:
        """How many of the last turns failed, one after the other."""
        return next((index for index, turn in enumerate(reversed(self.turns)) if turn.kind not in FAILED), len(self.turns))

    def trajectory(self, outcome: Outcome, verdict: Verdict, error: str = "") -> Trajectory:
        """The finished record."""
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
    """Plays an episode to its end: the environment is done, the turns are used up, too many in a row failed, or no token is left.

    An observation is appended only where another action follows it, and is cut where it would leave no room for one. An episode whose
    first message leaves no room is truncated before its first turn, without a reward. Texts on either side are made plain: neither an
    environment nor a tokenizer meets characters that it cannot take. Whatever is raised passes through; `builder` then holds what was
    played until then.
    """
    told = plain((await environment.reset(builder.episode.task)).text)
    given = chat.prompt(told)
    if len(given) >= limits.max_tokens:
        reason = f"the first message takes {len(given)} tokens, and the whole episode may take {limits.max_tokens} (environment.max_tokens)"
        return builder.trajectory("truncated", Verdict(success=False, score=0.0), reason)
    done = over = False
    while not over:
        builder.given(given)
        room = min(limits.max_turn_tokens, limits.max_tokens - len(builder.token_ids))
        completion = await decide(builder.token_ids, told, room, len(builder.turns))
        action = plain(chat.decode(completion.token_ids))
        builder.sampled(completion, action)
        observation = await _answered(environment, action, completion)
        told, done, given = plain(observation.text), observation.done, []
        if not done:
            ended = completion.token_ids[-1] == chat.end_token_id
            told, given = _reply(chat, told, ended, limits.max_tokens - len(builder.token_ids), limits.max_turn_tokens)
        builder.answered(told, observation)
        over = done or len(builder.turns) == limits.max_turns or builder.failed_turns() == limits.max_failed_turns
        over = over or len(builder.token_ids) + len(given) >= limits.max_tokens
    builder.turns[-1] = replace(builder.turns[-1], observation="")
    verdict = await environment.verify()
    return builder.trajectory(_outcome(verdict, done), verdict)


def _reply(chat: Chat, told: str, ended: bool, room: int, turn: int) -> tuple[str, list[int]]:
    """What the agent is told, and its tokens; cut to leave room for a turn where it would leave none."""
    given = chat.reply(told[: room * MAX_TOKEN_CHARS], ended)
    spare = room - turn - len(chat.reply("", ended))
    if len(given) < room or spare < 1:
        return told, given
    told = cut(told, spare, chat.encode)
    return told, chat.reply(told, ended)


async def _answered(environment: Environment, action: str, completion: Completion) -> Observation:
    if completion.finish_reason == "length" and not environment.takes_cut_actions:
        return CUT_OFF
    return await environment.step(action)


def _outcome(verdict: Verdict, done: bool) -> Outcome:
    if verdict.success:
        return "success"
    return "failure" if done else "truncated"
