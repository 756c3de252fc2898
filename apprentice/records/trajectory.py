"""The record of an episode: the tokens that the policy sampled, the turns and the outcome."""

from dataclasses import dataclass
from typing import Literal

Outcome = Literal["success", "failure", "truncated", "fault"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The environment's verdict at the end of an episode."""

    success: bool
    score: float
    """The reward of the last turn."""
    answer: str = ""
    """The agent's answer; empty if it gave none."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One action and the environment's reply."""

    start: int
    """Index of the action's first token in `Trajectory.token_ids`."""
    end: int
    """Index after the action's last token."""
    action: str
    """The action as text, for people; training uses the tokens."""
    observation: str
    """The environment's reply; empty in the last turn."""
    kind: str
    """The kind of action, such as `search` or `answer`; `malformed` if the environment could not parse it."""
    version: int
    """The policy version that sampled the action."""
    calls: tuple[str, ...] = ()
    """API calls that the action made, such as `spotify.login 200`; empty if the environment records none."""
    uses: tuple[str, ...] = ()
    """Names of the functions kept from earlier tasks that the action executed and that made API calls."""


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One episode, token by token.

    `token_ids`, `action_mask` and `logprobs` have one entry per token. The mask is 1 if the policy sampled the token,
    and 0 if the environment or the chat template wrote it. `logprobs` holds the sampler's log-probability (nats, at the
    sampling temperature) where the mask is 1, and 0.0 elsewhere.
    """

    id: str
    task_id: str
    group: str
    """Name of the group of episodes, all of the same task, whose rewards are compared."""
    token_ids: tuple[int, ...]
    action_mask: tuple[int, ...]
    logprobs: tuple[float, ...]
    turns: tuple[Turn, ...]
    reward: float
    """Reward of the last turn; 0.0 for a fault, which is never used for training."""
    outcome: Outcome
    answer: str
    seed: int
    temperature: float
    error: str = ""
    """The error if the outcome is `fault`, or the reason if the episode was truncated before its first turn."""

    @property
    def version(self) -> int:
        """The oldest policy version among the turns; 0 without turns."""
        return min((turn.version for turn in self.turns), default=0)

    @property
    def action_tokens(self) -> int:
        """Number of tokens that the policy sampled."""
        return sum(self.action_mask)
