"""What one episode left behind: exactly what the policy sampled, and what came of it."""

from dataclasses import dataclass
from typing import Literal

Outcome = Literal["success", "failure", "truncated", "fault"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The environment's judgement at the end of an episode."""

    success: bool
    score: float
    """The reward of the last turn."""
    answer: str = ""
    """What the agent answered, as text; empty where it did not."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One action and what the environment said to it."""

    start: int
    """Index into `Trajectory.token_ids` of the action's first token."""
    end: int
    """One past the action's last token."""
    action: str
    """The action as text, for people; training reads the tokens."""
    observation: str
    """The environment's reply; empty at the last turn."""
    kind: str
    """What the environment took the action for, such as `search` or `answer`; `malformed` where it could not."""
    version: int
    """The policy version that sampled the action."""
    calls: tuple[str, ...] = ()
    """What the action asked of the world outside, one entry a call, such as `spotify.login 200`; empty where the environment names none."""
    uses: tuple[str, ...] = ()
    """Names of the functions kept from earlier tasks that the action executed, and that reached the world outside."""


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One episode, token for token.

    `token_ids`, `action_mask` and `logprobs` have one entry a token. The mask is 1 where the policy sampled the token and
    0 where the environment or the chat template wrote it; `logprobs` holds the sampler's log-probability (nats, at the
    sampling temperature) where the mask is 1, and 0.0 elsewhere.
    """

    id: str
    task_id: str
    group: str
    """Episodes of one task that are compared with each other."""
    token_ids: tuple[int, ...]
    action_mask: tuple[int, ...]
    logprobs: tuple[float, ...]
    turns: tuple[Turn, ...]
    reward: float
    """Given at the last turn; 0.0 for a fault, which is never learned from."""
    outcome: Outcome
    answer: str
    seed: int
    temperature: float
    error: str = ""
    """What broke, where the outcome is `fault`; why no turn was made, where the episode was truncated before the first."""

    @property
    def version(self) -> int:
        """The oldest policy version that took part; 0 where no turn was made."""
        return min((turn.version for turn in self.turns), default=0)

    @property
    def action_tokens(self) -> int:
        """How many tokens the policy sampled."""
        return sum(self.action_mask)
