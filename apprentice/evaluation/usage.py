"""Resources that a run used, from the events of its stages: wall time of each stage, and training tokens."""

from collections.abc import Iterable, Mapping
from typing import Any


def stage_seconds(events: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Return the wall seconds of each stage's last run, in the order in which the stages first ran.

    An interrupted run counts together with the run that resumed it; the pause between them does not count. A stage that
    has not ended counts up to its latest event.
    """
    spans: dict[str, list[list[float]]] = {}
    finished: set[str] = set()
    for event in events:
        stage, time = event["stage"], event["time"]
        of_stage = spans.setdefault(stage, [])
        if event["kind"] == "begin":
            if stage in finished:
                finished.remove(stage)
                of_stage.clear()
            of_stage.append([time, time])
        elif of_stage:
            of_stage[-1][1] = time
        if event["kind"] == "end":
            finished.add(stage)
    return {stage: sum(last - first for first, last in of_stage) for stage, of_stage in spans.items() if of_stage}


def training_tokens(events: Iterable[Mapping[str, Any]]) -> float:
    """Return the tokens of the last run of the stage train; a step repeated after an interruption counts once."""
    steps: dict[int, float] = {}
    finished = False
    for event in events:
        if event["stage"] != "train":
            continue
        if event["kind"] == "begin" and finished:
            steps.clear()
            finished = False
        elif event["kind"] == "metrics":
            steps[event["step"]] = event["values"].get("tokens", 0.0)
        elif event["kind"] == "end":
            finished = True
    return sum(steps.values())
