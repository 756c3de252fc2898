"""Checks the contract of trajectories before training uses them."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import get_args

from apprentice.records import Outcome, Trajectory

OUTCOMES = get_args(Outcome)


def check_trajectories(trajectories: Sequence[Trajectory]) -> dict[str, list[str]]:
    """Return trajectory id -> problems, for each trajectory that has any; a repeated id is a problem."""
    problems: dict[str, list[str]] = {}
    for trajectory in trajectories:
        if found := check_trajectory(trajectory):
            problems.setdefault(trajectory.id, []).extend(found)
    for id, times in Counter(trajectory.id for trajectory in trajectories).items():
        if times > 1:
            problems.setdefault(id, []).append(f"id: {times} trajectories share it")
    return problems


def checked(trajectories: Sequence[Trajectory], faults: Sequence[Trajectory] = ()) -> tuple[list[Trajectory], list[dict]]:
    """Return the valid trajectories, and a quarantine row with reasons for each invalid one and each fault."""
    problems = check_trajectories(trajectories)
    good = [trajectory for trajectory in trajectories if trajectory.id not in problems]
    rejected = [(trajectory, problems[trajectory.id]) for trajectory in trajectories if trajectory.id in problems]
    rejected += [(fault, [fault.error]) for fault in faults]
    return good, [{"id": trajectory.id, "task_id": trajectory.task_id, "problems": reasons} for trajectory, reasons in rejected]


def check_trajectory(trajectory: Trajectory) -> list[str]:
    """Return the problems of a trajectory, each as `field: reason`."""
    if problem := _misaligned(trajectory):
        return [problem]  # the other checks need aligned fields
    return [*_labels(trajectory), *_logprobs(trajectory), *_turns(trajectory), *_reward(trajectory)]


def _misaligned(trajectory: Trajectory) -> str | None:
    tokens, mask, logprobs = len(trajectory.token_ids), len(trajectory.action_mask), len(trajectory.logprobs)
    if not tokens == mask == logprobs:
        return f"action_mask: {tokens} tokens, {mask} mask entries and {logprobs} log-probabilities are not aligned"
    return None


def _labels(trajectory: Trajectory) -> Iterator[str]:
    for name in ("id", "task_id", "group"):
        if not getattr(trajectory, name):
            yield f"{name}: is empty"
    if trajectory.outcome not in OUTCOMES:
        yield f"outcome: {trajectory.outcome!r} is not one of {', '.join(OUTCOMES)}"
    if bad := [place for place, bit in enumerate(trajectory.action_mask) if bit not in (0, 1)]:
        yield f"action_mask: neither 0 nor 1 at token {_first(bad)}"
    if bad := [place for place, token in enumerate(trajectory.token_ids) if token < 0]:
        yield f"token_ids: negative at token {_first(bad)}"


def _logprobs(trajectory: Trajectory) -> Iterator[str]:
    pairs = list(enumerate(zip(trajectory.action_mask, trajectory.logprobs, strict=True)))
    if bad := [place for place, (_, logprob) in pairs if not math.isfinite(logprob)]:
        yield f"logprobs: not finite at token {_first(bad)}"
    if bad := [place for place, (_, logprob) in pairs if logprob > 0]:
        yield f"logprobs: above 0 at token {_first(bad)}"
    if bad := [place for place, (bit, logprob) in pairs if not bit and logprob != 0]:
        yield f"logprobs: not 0 where the mask is 0, at token {_first(bad)}"


def _turns(trajectory: Trajectory) -> Iterator[str]:
    """Turns are ordered, disjoint, and within the tokens; the mask is 1 inside them and 0 elsewhere."""
    expected, reached, version = [0] * len(trajectory.token_ids), 0, None
    for place, turn in enumerate(trajectory.turns):
        if turn.start >= turn.end:
            yield f"turns.{place}: the action is empty ({turn.start} to {turn.end})"
        if turn.start < reached or turn.end > len(expected):
            yield f"turns.{place}: {turn.start} to {turn.end} overlaps the previous turn or exceeds the {len(expected)} tokens"
        if version is not None and turn.version < version:
            yield f"turns.{place}: version {turn.version} after version {version}"
        reached, version = max(reached, turn.end), turn.version
        span = range(max(turn.start, 0), min(turn.end, len(expected)))
        expected[span.start : span.stop] = [1] * len(span)
    if bad := [place for place, (bit, inside) in enumerate(zip(trajectory.action_mask, expected, strict=True)) if bit != inside]:
        yield f"action_mask: disagrees with the turns at token {_first(bad)}"


def _reward(trajectory: Trajectory) -> Iterator[str]:
    """The reward belongs to the last turn, so it is 0 without a turn; it is also 0 for a fault."""
    if not math.isfinite(trajectory.reward):
        yield f"reward: {trajectory.reward} is not finite"
    elif trajectory.outcome == "fault" and trajectory.reward != 0:
        yield f"reward: a fault has the reward {trajectory.reward}, not 0"
    elif not trajectory.turns and trajectory.reward != 0:
        yield f"reward: {trajectory.reward} without a turn"
    if trajectory.outcome != "fault" and not trajectory.turns:
        yield f"turns: none, though the outcome is {trajectory.outcome!r}" + (f": {trajectory.error}" if trajectory.error else "")


def _first(places: Iterable[int]) -> str:
    places = list(places)
    return f"{places[0]}" if len(places) == 1 else f"{places[0]} and {len(places) - 1} more"
