"""The summary at the end of a run, from files."""

import io
import json
import re
from pathlib import Path

import pytest
from evaluated import assistant_project, evaluated_project
from rich.console import Console

from apprentice.config import Layout, load_pipeline
from apprentice.errors import ApprenticeError
from apprentice.records.files import write_json
from apprentice.summary import Place, summary
from apprentice.usecases.deepsearch.metrics.measure import CONDITIONS

CONFIG = load_pipeline("quick", Path(__file__).parents[1] / "params.yaml")


def evaluated(root: Path) -> Layout:
    layout = Layout("quick", root)
    rows = {key: {"em": 0.1 * i, "cover_em": 0.2, "f1": 0.3, "n": 120, "em_ci95": [0.1 * i - 0.05, 0.1 * i + 0.05]} for i, key in enumerate(CONDITIONS)}
    counts = {"n": 120, "scenarios": 120}
    pairs = {name: {"em": 0.2, "em_ci95": [0.1, 0.3], "p": 0.0001, **counts} for name in ("trained_minus_before", "warm_start_minus_before")}
    pairs["trained_minus_warm_start"] = {"em": -0.01, "em_ci95": [-0.05, 0.03], "p": 0.6, **counts}
    write_json(layout.metrics("evaluation"), {**rows, **pairs})
    return layout


def shown(layout: Layout, places: tuple[Place, ...] = (), width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(summary(CONFIG, layout, places), crop=False)
    return console.file.getvalue()


def test_every_condition_has_a_row_with_its_interval(tmp_path: Path):
    text = shown(evaluated(tmp_path))
    shown_words = ("base model, no retrieval", "base model, plain RAG", "agent before training", "after the warm start", "after PPO")
    assert all(f"({letter}) {words} " in text for letter, words in zip("abcde", shown_words, strict=True))
    assert "0.400 [0.350, 0.450]" in text


def test_differences_show_their_sign_interval_and_p(tmp_path: Path):
    text = shown(evaluated(tmp_path))
    assert "+0.200 [+0.100, +0.300]" in text and "< 0.001" in text
    assert "-0.010 [-0.050, +0.030]" in text and "0.600" in text


def test_both_parts_of_the_gain_are_stated(tmp_path: Path):
    assert "EM 0.200 to 0.400: warm start +0.200 (proven), PPO -0.010 (not proven)" in shown(evaluated(tmp_path))


def test_commands_are_never_wrapped(tmp_path: Path):
    command = "open " + "x" * 100
    text = shown(evaluated(tmp_path), (Place("Report", command, "http://127.0.0.1:5000/" + "y" * 90, "why"),))
    assert command in text and "y" * 90 in text and "why" in text


def test_a_missing_evaluation_is_one_error(tmp_path: Path):
    with pytest.raises(ApprenticeError, match="is missing"):
        summary(CONFIG, Layout("quick", tmp_path))


def test_an_evaluation_by_another_version_is_one_error_that_names_the_command(tmp_path: Path):
    layout = evaluated(tmp_path)
    metrics = json.loads(layout.metrics("evaluation").read_text())
    write_json(layout.metrics("evaluation"), {name: row for name, row in metrics.items() if name != "warm_start_minus_before"})
    with pytest.raises(ApprenticeError, match="lacks warm_start_minus_before") as caught:
        summary(CONFIG, layout)
    assert "dvc repro evaluate@quick" in str(caught.value)


def events(*rows: tuple[str, float, str]) -> list[dict]:
    return [{"stage": stage, "time": at, "kind": kind} for stage, at, kind in rows]


def test_the_peak_memory_is_that_of_the_stage_that_took_most(tmp_path: Path):
    layout = evaluated(tmp_path)
    assert "memory" not in shown(layout)
    write_json(layout.memory, {"train": 3 * 2**30, "evaluate": 2**30})
    assert "3.0 GiB of peak memory" in shown(layout, width=200)


def test_without_events_no_time_is_stated(tmp_path: Path):
    layout = evaluated(tmp_path)
    assert "Used" not in shown(layout)
    write_json(layout.memory, {"train": 3 * 2**30})
    assert "Used: 3.0 GiB of peak memory" in shown(layout)


def test_a_line_cut_by_an_interruption_is_skipped(tmp_path: Path):
    layout = evaluated(tmp_path)
    layout.events.parent.mkdir(parents=True)
    rows = [json.dumps(event) for event in events(("train", 0, "begin"), ("train", 60, "end"))]
    layout.events.write_text("\n".join(rows) + '\n{"stage": "tra')
    assert "Used: 1.0 minutes (train 1.0)" in shown(layout)


def test_the_summary_of_questions_has_these_lines(tmp_path: Path):
    text = shown(evaluated_project(tmp_path)[1])
    rows = [line.strip() for line in text.splitlines()]
    assert rows[0] == "quick: held-out tasks, greedy"
    assert rows[2] == "EM [95% interval]   cover-EM      F1    n"
    assert rows[4] == "(a) base model, no retrieval   0.125 [0.043, 0.310]      0.125   0.125   24"
    assert "(e) - (d), sampled   +0.458 [+0.167, +0.679]     0.003" in rows


def test_the_assistant_has_a_table_for_each_set(tmp_path: Path):
    config, layout, *_ = assistant_project(tmp_path)
    console = Console(file=io.StringIO(), width=80)
    console.print(summary(config, layout), crop=False)
    first, second, over_first, over_second = re.split(r"assistant: |Paired", console.file.getvalue())[1:]
    assert first.startswith("held-out variants, greedy") and second.startswith("held-out scenarios, greedy")
    assert [words in first for words in ("TGC [95% interval]", "SGC", "scenarios")] == [True] * 3
    assert "(a) agent before training   0.125 [0.038, 0.337]   0.000   24          12" in first
    assert "(c) after PPO               0.750 [0.321, 0.950]   0.250   12           4" in second
    assert "in TGC, held-out variants" in over_first and "(c) - (a)            +0.667" in over_first
    assert "in TGC, held-out scenarios" in over_second and "(c) - (b), sampled   +0.417" in over_second
