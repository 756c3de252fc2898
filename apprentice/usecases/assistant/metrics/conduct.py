"""Metrics of an agent's behaviour, independent of the outcome of its tasks."""

import io
import re
import tokenize
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from apprentice.environments.protocol import MALFORMED
from apprentice.evaluation.comparison import rounded
from apprentice.records import Trajectory, Turn
from apprentice.records.metrics import mean
from apprentice.usecases.assistant.environment.appworld import BLOCK, COMPLETE, ERROR, KILLED, code_blocks

LOOK_UP = re.compile(r"api_docs\.show_api_doc\((.+)\)")
ASIDE = ("api_docs", "supervisor")
"""Apps that an agent may call without looking up their documentation."""
ASSUMING = re.compile(
    r"\b(?:assum(?:e|es|ed|ing|ption|ptions)|presum(?:e|es|ed|ing|ably)|suppos(?:e|ing|edly)|probably|likely|perhaps|maybe|might be|may be|hopefully"
    r"|guess(?:ing)?)\b",
    re.IGNORECASE,
)
PLACEHOLDER = re.compile(
    r"\byour[_-]\w+|['\"]<[a-z][\w -]+>['\"]|\bexample\.(?:com|org|net)\b|(?<![a-z])(?:placeholder|dummy|change_?me|replace_with)(?![a-z])", re.IGNORECASE
)

METRICS = {
    "turns": "turns per episode",
    "code_characters": "characters of code per turn",
    "several_blocks": "turns with more than one block of code",
    "execution_errors": "execution errors per turn",
    "given_up": "endpoints abandoned after an error",
    "documentation_lookups": "documentation look-ups per episode",
    "documented_first_calls": "first calls of an endpoint after reading its documentation",
    "assumption_words": "assumption words per turn",
    "placeholders": "episodes with placeholder values in code",
    "completed": "episodes that reported the task as complete",
    "truncated": "episodes that ran out of turns or tokens",
    "malformed": "malformed actions",
}
"""Description of each metric that `conduct` returns."""
SHARES = ("several_blocks", "given_up", "documented_first_calls", "placeholders", "completed", "truncated", "malformed")
"""The metrics that are shares; the others are means."""


@dataclass(frozen=True, slots=True)
class Call:
    """An API call, parsed from `Turn.calls`."""

    endpoint: str
    """App and API, separated by a dot."""
    ok: bool
    documents: str = ""
    """The endpoint whose documentation the call requested; empty for other calls."""

    @property
    def app(self) -> str:
        return self.endpoint.partition(".")[0]


def conduct(trajectories: Iterable[Trajectory]) -> dict[str, float]:
    """Compute the metrics named in `METRICS`, without the episodes that ended in a fault.

    - `given_up`: the share of endpoints that failed in an episode and had no successful call after their first failure.
    - `documented_first_calls`: the share of endpoints called in an episode, except documentation and supervisor, whose
      documentation had been shown before.
    - `execution_errors`: blocks that raised or were killed.
    - `assumption_words`: counted in prose and comments.
    - `placeholders`: counted in code without comments.

    Returns:
        The metrics by name; 0 if there is nothing to divide by.
    """
    episodes = [trajectory for trajectory in trajectories if trajectory.outcome != "fault"]
    turns = [turn for episode in episodes for turn in episode.turns]
    calls = [calls_of(episode.turns) for episode in episodes]
    metrics = {
        "turns": mean(len(episode.turns) for episode in episodes),
        "code_characters": mean(sum(map(len, code_blocks(turn.action))) for turn in turns),
        "several_blocks": mean(len(code_blocks(turn.action)) > 1 for turn in turns),
        "execution_errors": mean(turn.kind in (ERROR, KILLED) for turn in turns),
        "given_up": mean(given_up for of_episode in calls for given_up in _given_up(of_episode)),
        "documentation_lookups": mean(sum(call.app == "api_docs" for call in of_episode) for of_episode in calls),
        "documented_first_calls": mean(documented for of_episode in calls for documented in _documented(of_episode)),
        "assumption_words": mean(assumptions(turn.action) for turn in turns),
        "placeholders": mean(any(has_placeholder(turn.action) for turn in episode.turns) for episode in episodes),
        "completed": mean(any(turn.kind == COMPLETE for turn in episode.turns) for episode in episodes),
        "truncated": mean(episode.outcome == "truncated" for episode in episodes),
        "malformed": mean(turn.kind == MALFORMED for turn in turns),
    }
    return {name: rounded(value) for name, value in metrics.items()}


def calls_of(turns: Iterable[Turn]) -> list[Call]:
    """Return the calls of an episode in order."""
    return [_call(entry) for turn in turns for entry in turn.calls]


def assumptions(action: str) -> int:
    """Count the assumption words in the prose and the comments of a message."""
    prose = BLOCK.sub(" ", action)
    comments = [comment for block in code_blocks(action) for comment in _split(block)[1]]
    return sum(len(ASSUMING.findall(text)) for text in (prose, *comments))


def has_placeholder(action: str) -> bool:
    """Return whether a message's code contains a placeholder value."""
    return any(PLACEHOLDER.search(_split(block)[0]) for block in code_blocks(action))


def _call(entry: str) -> Call:
    name, _, status = entry.rpartition(" ")
    looked_up = LOOK_UP.fullmatch(name)
    return Call(name.partition("(")[0], status == "200", looked_up.group(1) if looked_up else "")


def _given_up(calls: Sequence[Call]) -> Iterator[bool]:
    """Yield one value per endpoint that failed."""
    given_up: dict[str, bool] = {}
    for call in calls:
        if not call.ok:
            given_up.setdefault(call.endpoint, True)
        elif call.endpoint in given_up:
            given_up[call.endpoint] = False
    yield from given_up.values()


def _documented(calls: Sequence[Call]) -> Iterator[bool]:
    """Yield one value per endpoint, at its first call."""
    shown, called = set(), set()
    for call in calls:
        if call.documents and call.ok:
            shown.add(call.documents)
        if call.app not in ASIDE and call.endpoint not in called:
            called.add(call.endpoint)
            yield call.endpoint in shown


def _split(code: str) -> tuple[str, list[str]]:
    """Return code without its comments, and the comments. In invalid Python, everything after a # is a comment."""
    try:
        comments = [token for token in tokenize.generate_tokens(io.StringIO(code).readline) if token.type == tokenize.COMMENT]
    except (tokenize.TokenError, SyntaxError):
        return re.sub(r"#.*", "", code), re.findall(r"#.*", code)
    lines = list(io.StringIO(code))
    for token in comments:
        row, column = token.start
        lines[row - 1] = lines[row - 1][:column] + "\n"
    return "".join(lines), [token.string for token in comments]
