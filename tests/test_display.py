"""The display of a stage's progress, with and without a terminal."""

import io

import pytest
from rich.console import Console

from apprentice.display import StageDisplay, StageProgress, clock


def advance(progress: StageProgress, phase: str, done: int, total: int, at: float) -> None:
    progress.take({"time": at, "stage": progress.stage, "kind": "progress", "phase": phase, "done": done, "total": total})


def test_the_time_left_follows_from_the_average_pace():
    progress = StageProgress("train", 0.0)
    advance(progress, "training", 0, 10, 0.0)
    advance(progress, "training", 4, 10, 20.0)
    assert progress.leading[1].left(20.0) == pytest.approx(30.0)


def test_the_pace_of_a_resumed_stage_counts_from_where_it_resumed():
    progress = StageProgress("train", 0.0)
    advance(progress, "training", 6, 10, 0.0)
    advance(progress, "training", 8, 10, 10.0)
    assert progress.leading[1].left(10.0) == pytest.approx(10.0)


def test_the_outer_phase_leads_and_the_inner_one_is_shown():
    progress = StageProgress("train", 0.0)
    advance(progress, "training", 1, 4, 0.0)
    advance(progress, "episodes", 5, 32, 1.0)
    assert progress.words(65.0) == "training 1/4 · episodes 5/32 · 1:05"


def test_metrics_are_shown():
    progress = StageProgress("train", 0.0)
    progress.take({"time": 1.0, "stage": "train", "kind": "metrics", "step": 0, "values": {"reward": 0.25, "other": 1.0}})
    assert "reward 0.25" in progress.words(1.0) and "other" not in progress.words(1.0)


def test_events_of_other_stages_are_ignored():
    progress = StageProgress("train", 0.0)
    progress.take({"time": 1.0, "stage": "filter", "kind": "progress", "phase": "p", "done": 1, "total": 2})
    assert not progress.phases


def test_without_a_terminal_plain_lines_are_printed():
    console = Console(file=io.StringIO(), force_terminal=False, width=60)
    with StageDisplay("train", console) as display:
        display.update([{"time": 1.0, "stage": "train", "kind": "note", "text": "a note that is longer than the console is wide and must not be wrapped"}])
    lines = console.file.getvalue().splitlines()
    assert lines[0] == "train: starting" and "must not be wrapped" in lines[1] and lines[-1].startswith("✓ train")


def test_a_terminal_shows_a_live_line():
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with StageDisplay("train", console) as display:
        display.update([{"time": 1.0, "stage": "train", "kind": "progress", "phase": "training", "done": 1, "total": 2}])
    assert "training 1/2" in console.file.getvalue()


@pytest.mark.parametrize(("seconds", "words"), [(0, "0:00"), (65.9, "1:05"), (3_725, "1:02:05"), (-3, "0:00")])
def test_clock(seconds: float, words: str):
    assert clock(seconds) == words
