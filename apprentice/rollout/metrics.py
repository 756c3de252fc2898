"""Metrics of a set of trajectories: flat, with stable names."""

from collections import defaultdict
from collections.abc import Sequence

from apprentice.environments.protocol import MALFORMED
from apprentice.records import Trajectory


def rollout_metrics(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """Compute the metrics: means per episode unless the name says otherwise, and 0.0 without trajectories.

    Args:
        trajectories: episodes that ended; faults must not be among them.
    """
    turns = [turn for trajectory in trajectories for turn in trajectory.turns]
    groups = defaultdict(set)
    for trajectory in trajectories:
        groups[trajectory.group].add(trajectory.reward)

    def per_episode(total: float) -> float:
        return total / max(1, len(trajectories))

    return {
        "episodes": float(len(trajectories)),
        "success_rate": per_episode(sum(trajectory.outcome == "success" for trajectory in trajectories)),
        "reward": per_episode(sum(trajectory.reward for trajectory in trajectories)),
        "truncated_share": per_episode(sum(trajectory.outcome == "truncated" for trajectory in trajectories)),
        "malformed_share": sum(turn.kind == MALFORMED for turn in turns) / max(1, len(turns)),
        "mixed_groups_share": sum(len(rewards) > 1 for rewards in groups.values()) / max(1, len(groups)),
        "turns": per_episode(len(turns)),
        "searches": per_episode(sum(turn.kind == "search" for turn in turns)),
        "action_tokens_per_episode": per_episode(sum(trajectory.action_tokens for trajectory in trajectories)),
        "tokens_per_episode": per_episode(sum(len(trajectory.token_ids) for trajectory in trajectories)),
    }
