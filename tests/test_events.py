"""Reading the events file of a pipeline."""

import json
from pathlib import Path

import pytest

from apprentice.records.events import EventReader, Progress, read_events


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


def test_the_reader_returns_new_events_and_waits_for_complete_lines(path: Path):
    Progress(path, "train").note("old")
    reader = EventReader(path, from_end=True)
    Progress(path, "train").note("new")
    with path.open("a") as file:
        file.write('{"stage": "tr')
    assert [event["text"] for event in reader.read()] == ["new"]
    with path.open("a") as file:
        file.write('ain", "kind": "end"}\n')
    assert [event["kind"] for event in reader.read()] == ["end"]
    assert not reader.read()


def test_a_line_cut_by_an_interruption_is_skipped(path: Path):
    path.write_text('{"stage": "tr\n' + json.dumps({"stage": "train", "kind": "end"}) + '\n{"stage')
    assert [event["kind"] for event in read_events(path)] == ["end"]


def test_a_missing_file_holds_no_events(path: Path):
    assert read_events(path) == []


def test_events_carry_time_stage_and_kind(path: Path):
    progress = Progress(path, "train")
    progress.begin()
    progress.advance("training", 1, 2)
    progress.metrics(1, {"reward": 0.5})
    progress.end()
    events = read_events(path)
    assert [(event["stage"], event["kind"]) for event in events] == [("train", kind) for kind in ("begin", "progress", "metrics", "end")]
    assert (events[1]["phase"], events[1]["done"], events[1]["total"], events[2]["values"]) == ("training", 1, 2, {"reward": 0.5})
