"""Wall time and tokens of a run, from its events."""

from apprentice.evaluation.usage import stage_seconds, training_tokens


def events(*rows: tuple[str, float, str]) -> list[dict]:
    return [{"stage": stage, "time": at, "kind": kind} for stage, at, kind in rows]


def step(number: int, tokens: float, at: float = 0.0) -> dict:
    return {"stage": "train", "time": at, "kind": "metrics", "step": number, "values": {"tokens": tokens}}


def test_a_stage_counts_its_last_complete_run():
    assert stage_seconds(events(("train", 0, "begin"), ("train", 600, "end"), ("train", 1000, "begin"), ("train", 1060, "end"))) == {"train": 60}


def test_an_interrupted_run_counts_and_the_pause_does_not():
    assert stage_seconds(events(("train", 0, "begin"), ("train", 60, "note"), ("train", 5000, "begin"), ("train", 5060, "end"))) == {"train": 120}


def test_stages_are_told_apart_and_keep_their_order():
    rows = [("train", 0, "begin"), ("train", 50, "end"), ("prepare", 60, "begin"), ("prepare", 70, "end")]
    rows += [("train", 100, "begin"), ("train", 130, "note"), ("train", 1000, "begin"), ("train", 1020, "end")]
    seconds = stage_seconds(events(*rows))
    assert seconds == {"train": 50, "prepare": 10} and list(seconds) == ["train", "prepare"]


def test_the_tokens_of_a_repeated_step_count_once():
    assert training_tokens([step(0, 100), step(1, 100), step(1, 100)]) == 200


def test_tokens_are_those_of_the_last_run():
    runs = [*events(("train", 0, "begin")), step(0, 100), step(1, 100), *events(("train", 10, "end"), ("train", 20, "begin")), step(0, 70)]
    assert training_tokens(runs) == 70


def test_without_events_nothing_was_used():
    assert stage_seconds([]) == {} and training_tokens([]) == 0
