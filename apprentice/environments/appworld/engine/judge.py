"""Judges an episode with AppWorld's own evaluator, from the databases that its world wrote. Never meets the agent's code."""

import os
from pathlib import Path

from appworld.common.path_store import path_store
from appworld.evaluator import evaluate_task


def use_outputs(folder: Path) -> None:
    """Makes AppWorld look for flushed databases in `folder` instead of in the data root."""
    type(path_store).experiment_outputs = property(lambda _store: str(folder))


def judge(task_id: str, episode: str) -> dict:
    """Which tests the flushed databases pass."""
    tracker = evaluate_task(task_id=task_id, experiment_name=episode, suppress_errors=True, save_report=False)
    failures = [entry["requirement"] for entry in tracker.failures]
    return {"success": bool(tracker.success), "passes": tracker.pass_count, "tests": tracker.num_tests, "failures": failures, "judge": os.getpid()}
