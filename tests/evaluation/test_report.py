"""The report: self-contained, inert whatever the texts hold, honest in its first sentence."""

import re
from html.parser import HTMLParser

import pytest
from evaluated import NASTY, evaluated_project

from apprentice.evaluation.configuration import parameters, redacted
from apprentice.evaluation.cost import stage_seconds
from apprentice.evaluation.report import report_page
from apprentice.records.events import Progress


class Tags(HTMLParser):
    """Collects the tags and attributes a browser would see."""

    def __init__(self, page: str):
        super().__init__()
        self.tags, self.attributes = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    return evaluated_project(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def page(evaluated):
    return report_page(*evaluated)


def test_hostile_answers_are_inert(page):
    assert "script" not in Tags(page).tags
    assert NASTY not in page
    assert "&lt;script&gt;" in page


def test_hostile_configuration_and_tasks_are_inert(evaluated):
    config, layout, tasks, episodes, figures = evaluated
    config = config.model_copy(update={"description": "<img src=x onerror=alert(1)>"})
    tasks = [task.model_copy(update={"instruction": "<svg onload=alert(1)>", "answers": ("</pre><script>x</script>",)}) for task in tasks]
    seen = Tags(report_page(config, layout, tasks, episodes, figures))
    assert not {"script", "img"} & set(seen.tags)
    assert not [name for name, _ in seen.attributes if name.startswith("on")]


def test_hostile_curves_are_inert(evaluated):
    layout = evaluated[1]
    path, before = layout.curves("difficulty"), layout.curves("difficulty").read_text()
    path.write_text("task_id,pass_rate\n<script>,<script>\na,0.5\n")
    assert "script" not in Tags(report_page(*evaluated)).tags
    path.write_text(before)


def test_nothing_is_loaded_from_elsewhere(page):
    seen = Tags(page)
    assert not {"link", "iframe", "img", "object", "script"} & set(seen.tags)
    assert not [name for name, _ in seen.attributes if name in ("src", "href", "action", "srcset")]
    assert not re.search(r"url\(|@import|https?://", page)


def test_every_chart_is_drawn(page):
    # intervals, hops, difficulty of held-out tasks, three training curves, pass rates of training tasks
    assert Tags(page).tags.count("svg") == 7
    assert not [value for _, value in Tags(page).attributes if re.search(r"\bnan\b|\binf\b", value or "")]


def test_all_kinds_of_examples_are_shown(page):
    assert [title in page for title in ("wrong before, right after", "Still wrong", "without an answer")] == [True] * 3


@pytest.mark.parametrize(("interval", "words"), [([0.1, 0.3], "raised"), ([-0.3, -0.1], "lowered"), ([-0.1, 0.3], "No difference is proven")])
def test_the_verdict_claims_what_the_interval_allows(evaluated, interval, words):
    *rest, figures = evaluated
    changed = {**figures, "trained_minus_before": {"em": 0.1, "em_ci95": interval, "p": 0.5}}
    assert words in report_page(*rest, changed)


def test_a_report_can_be_made_of_the_evaluation_alone(evaluated, tmp_path):
    config, layout, tasks, episodes, figures = evaluated
    page = report_page(config, type(layout)("quick", tmp_path), tasks, episodes, figures)
    assert "No training curves" in page


def test_credentials_are_cut_out_of_addresses(evaluated):
    config = evaluated[0]
    config = config.model_copy(update={"environment": config.environment.model_copy(update={"retriever": "http://me:hush@host:8/retrieve?key=hush"})})
    assert parameters(config)["environment.retriever"] == "http://…@host:8/retrieve?…"
    assert "hush" not in report_page(config, *evaluated[1:])
    assert redacted("see https://a.b/c and s3://k:v@x/y") == "see https://a.b/c and s3://…@x/y"


def test_parameters_are_named_as_in_the_file(evaluated):
    names = parameters(evaluated[0])
    assert {"register.margin", "train.learning_rate", "description"} <= names.keys()


def test_stage_time_counts_interrupted_runs_but_not_the_pause(tmp_path):
    progress, other = Progress(tmp_path / "events.jsonl", "train"), Progress(tmp_path / "events.jsonl", "prepare")
    events = [(progress.begin, 0), (progress.end, 50), (other.begin, 60), (other.end, 70), (progress.begin, 100), (lambda: progress.note("x"), 130)]
    events += [(progress.begin, 1000), (progress.end, 1020)]
    for write, _ in events:
        write()
    lines = (tmp_path / "events.jsonl").read_text().splitlines()
    stamped = [re.sub(r'"time": [0-9.]+', f'"time": {time}', line) for line, (_, time) in zip(lines, events, strict=True)]
    (tmp_path / "events.jsonl").write_text("\n".join([*stamped, '{"time": 1030, "sta']))
    assert stage_seconds(tmp_path / "events.jsonl") == {"train": 50, "prepare": 10}
