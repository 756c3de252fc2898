"""What a pipeline's stages cost in wall time, from their events."""

import json
from collections import defaultdict
from pathlib import Path


def stage_seconds(events: Path) -> dict[str, float]:
    """Wall seconds of each stage's last piece of work, in the order in which the stages first ran.

    A piece of work is everything since the stage last ended well: interrupted runs count with the one that finished them, the
    time between them does not. A stage that has not ended yet counts up to its latest event.
    """
    runs: dict[str, list[list[float]]] = {}
    finished: dict[str, bool] = defaultdict(bool)
    for event in _read(events):
        stage = event["stage"]
        of_stage = runs.setdefault(stage, [])
        if event["kind"] == "begin":
            if finished[stage]:
                of_stage.clear()
            finished[stage] = False
            of_stage.append([event["time"], event["time"]])
        elif of_stage:
            of_stage[-1][1] = event["time"]
        finished[stage] = event["kind"] == "end"
    return {stage: sum(last - first for first, last in spans) for stage, spans in runs.items() if spans}


def _read(events: Path) -> list[dict]:
    if not events.exists():
        return []
    lines = events.read_text(encoding="utf-8").splitlines()
    return [event for line in lines if (event := _event(line))]


def _event(line: str) -> dict | None:
    """None for a line cut short by an interruption."""
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return None
