"""The report: self-contained, safe against hostile text, honest in its verdict."""

import re
from html.parser import HTMLParser

import pytest
from evaluated import NASTY, assistant_project, evaluated_project

from apprentice.evaluation.comparison import DIFFERENCES
from apprentice.evaluation.configuration import parameters
from apprentice.evaluation.examples import choose_examples, tally
from apprentice.evaluation.report import report_page
from apprentice.usecases.assistant.metrics.goals import MEASURE as ASSISTANT


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


@pytest.fixture(scope="module")
def assistant(tmp_path_factory):
    return assistant_project(tmp_path_factory.mktemp("assistant"))


@pytest.fixture(scope="module")
def assistant_page(assistant):
    return report_page(*assistant)


def test_hostile_answers_are_escaped(page):
    assert "script" not in Tags(page).tags
    assert NASTY not in page
    assert "&lt;script&gt;" in page


def test_hostile_configuration_and_tasks_are_escaped(evaluated):
    config, layout, tasks, episodes, metrics = evaluated
    config = config.model_copy(update={"description": "<img src=x onerror=alert(1)>"})
    tasks = [task.model_copy(update={"instruction": "<svg onload=alert(1)>", "answers": ("</pre><script>x</script>",)}) for task in tasks]
    seen = Tags(report_page(config, layout, tasks, episodes, metrics))
    assert not {"script", "img"} & set(seen.tags)
    assert not [name for name, _ in seen.attributes if name.startswith("on")]


def test_hostile_curves_are_escaped(evaluated):
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


def test_the_report_of_questions_has_this_text(page):
    verdict = (
        "The agent&#39;s exact match on 24 held-out tasks went from 0.125 to 0.792: warm start +0.208 (not proven; 95% interval −0.060 to +0.444, p 0.180)"
    )
    assert f"{verdict}, PPO +0.458 (proven; 95% interval +0.167 to +0.679, p 0.003).</section>" in page
    columns = "".join(
        f"<th>{words}</th>" for words in ("condition", "EM", "95% interval", "cover-EM", "F1", "folded EM", "tasks", "EM sampled", "95% interval")
    )
    assert f"<tr>{columns}</tr>" in page
    row = '<tr class="best"><td>Agent after PPO</td><td>0.792</td><td>0.595 – 0.908</td><td>0.792</td><td>0.792</td><td>0.792</td><td>24</td>'
    assert f"{row}\n<td>0.792</td><td>0.595 – 0.908</td></tr>" in page
    difference = "<td>+0.458</td><td>+0.167 to +0.679</td><td>0.003</td>"
    assert f"<tr><td>Agent after PPO − agent after the warm start</td>{difference}{difference}</tr>" in page
    assert '<span class="badge">3 hops</span>\n    <p class="question">Where does Ada work?</p><p class="soft">Accepted: Oslo</p>' in page


def test_every_chart_is_drawn(page):
    # intervals, hops, difficulty of held-out tasks, three training curves, pass rates of training tasks
    assert Tags(page).tags.count("svg") == 7
    assert not [value for _, value in Tags(page).attributes if re.search(r"\bnan\b|\binf\b", value or "")]


def test_all_kinds_of_examples_are_shown(page):
    assert [title in page for title in ("wrong before, right after", "Still wrong", "An unanswerable question")] == [True] * 3


def row(gain: float, low: float, high: float, p: float, n: int = 80, key: str = "em") -> dict:
    return {key: gain, f"{key}_ci95": [low, high], "p": p, "n": n, "scenarios": n}


PROVEN, NOTHING, HARM = row(0.25, 0.15, 0.35, 0.001), row(0.0, -0.05, 0.05, 1.0), row(-0.2, -0.3, -0.1, 0.001)


@pytest.mark.parametrize(
    ("warm_start", "online", "words", "tone"),
    [
        (PROVEN, NOTHING, ("warm start +0.250 (proven;", "PPO +0.000 (not proven;"), "open"),
        (NOTHING, PROVEN, ("warm start +0.000 (not proven;", "PPO +0.250 (proven;"), "good"),
        (PROVEN, HARM, ("warm start +0.250 (proven;", "PPO −0.200 (proven worse;"), "bad"),
        (NOTHING, row(0.1, 0.01, 0.2, 0.06), ("PPO +0.100 (not proven;",), "open"),
    ],
)
def test_the_verdict_states_the_gain_of_each_part(evaluated, warm_start, online, words, tone):
    *rest, metrics = evaluated
    page = report_page(*rest, {**metrics, "trained_minus_before": PROVEN, "warm_start_minus_before": warm_start, "trained_minus_warm_start": online})
    assert all(part in page for part in words)
    assert f'<section class="verdict {tone}">' in page


def test_without_a_warm_start_the_verdict_states_the_gain_of_online_rl_only(evaluated):
    config, *rest = evaluated
    page = report_page(config.model_copy(update={"distill": config.distill.model_copy(update={"source": "none"})}), *rest)
    assert "went from 0.125 to 0.792: PPO +" in page


def test_too_few_tasks_prove_nothing(evaluated):
    *rest, metrics = evaluated
    few = row(0.9, 0.5, 1.0, 0.001, n=12)
    page = report_page(*rest, {**metrics, **dict.fromkeys(DIFFERENCES, few)})
    assert "PPO +0.900 (not proven;" in page
    assert "12 tasks of 12 scenarios are too few to prove anything; at least 20 tasks of 10 scenarios are needed" in page


def test_the_report_needs_the_evaluation_only(evaluated, tmp_path):
    config, layout, tasks, episodes, metrics = evaluated
    page = report_page(config, type(layout)("quick", tmp_path), tasks, episodes, metrics)
    assert "No training curves" in page


def test_credentials_are_removed_from_urls(evaluated):
    config = evaluated[0]
    config = config.model_copy(update={"environment": config.environment.model_copy(update={"retriever": "http://me:hush@host:8/retrieve?key=hush"})})
    assert parameters(config)["environment.retriever"] == "http://…@host:8/retrieve?…"
    assert "hush" not in report_page(config, *evaluated[1:])


def test_parameters_have_the_names_of_the_file(evaluated):
    names = parameters(evaluated[0])
    assert {"register.margin", "train.learning_rate", "description"} <= names.keys()


def test_the_assistants_verdict_begins_with_the_headline_set(assistant_page):
    assert "The agent&#39;s task goal completion on 24 tasks of held-out variants went from 0.125 to 0.792: warm start +0.208" in assistant_page
    assert "On 12 tasks of held-out scenarios it went from 0.167 to 0.750: warm start +0.167" in assistant_page
    assert "12 tasks of 4 scenarios are too few to prove anything" in assistant_page


def test_every_condition_and_set_has_its_row(assistant, assistant_page):
    for label in ASSISTANT.conditions.values():
        for words in ("held-out variants", "held-out scenarios"):
            assert assistant_page.count(f"{label}, {words}<") == 2  # in the chart and in the table
    assert "<th>TGC</th><th>95% interval</th><th>SGC</th><th>tasks</th><th>scenarios</th><th>TGC sampled</th>" in assistant_page
    row = assistant[-1]["trained"]["heldout_scenarios"]
    low, high = row["tgc_ci95"]
    assert f"<td>{row['tgc']:.3f}</td><td>{low:.3f} – {high:.3f}</td><td>{row['sgc']:.3f}</td><td>12</td><td>4</td>" in assistant_page


def test_every_chart_of_the_assistant_is_drawn(assistant_page):
    # intervals, levels of two sets, three training curves, pass rates of training tasks, each behaviour metric
    assert Tags(assistant_page).tags.count("svg") == 7 + len(ASSISTANT.behaviour)
    assert not [value for _, value in Tags(assistant_page).attributes if re.search(r"\bnan\b|\binf\b", value or "")]


def test_hostile_code_and_output_are_escaped(assistant, assistant_page):
    assert NASTY not in assistant_page and "&lt;script&gt;" in assistant_page
    config, layout, tasks, episodes, metrics = assistant
    tasks = [task.model_copy(update={"instruction": "<svg onload=alert(1)>"}) for task in tasks]
    seen = Tags(report_page(config, layout, tasks, episodes, metrics))
    assert "script" not in seen.tags
    assert not [name for name, _ in seen.attributes if name.startswith("on")]


def test_an_assistants_episode_is_shown_turn_by_turn_before_and_after(assistant_page):
    before, after = assistant_page.partition("Improved: failed before, solved after")[2].partition('<div class="example">')[0].split("<h3>After</h3>")
    assert "Judged by the environment" in before and "Accepted" not in assistant_page
    assert "held-out variants</span>" in before and "level 3</span>" in before and "hop" not in before
    assert ">failed<" in before and "turn 1: error" in before and "calls: spotify.login 401" in before
    assert ">solved<" in after and "turn 3: complete" in after and "calls: spotify.login 200 · spotify.like_song 200 (12 times)" in after


def test_the_harder_example_is_shown(assistant):
    _, _, tasks, episodes, _ = assistant
    improved, failed = choose_examples(ASSISTANT, tasks, episodes["before"], episodes["trained"])
    assert (improved.before.solved, improved.after.solved, improved.task.difficulty) == (False, True, 3)
    assert (failed.after.solved, failed.task.difficulty) == (False, 3)


def test_consecutive_equal_calls_are_merged():
    assert tally(["a.x 200", "a.x 200", "a.x 401", "a.x 200"]) == ["a.x 200 (2 times)", "a.x 401", "a.x 200"]


def test_a_set_that_was_not_evaluated_is_not_shown(assistant):
    config, layout, tasks, episodes, _ = assistant
    tasks = [task for task in tasks if task.split == "dev"]
    page = report_page(config, layout, tasks, episodes, ASSISTANT.compare(tasks, episodes, config.evaluate, dict.fromkeys(episodes, 1.0)))
    assert "on 12 tasks of held-out scenarios" in page
    assert "Agent after PPO, held-out variants" not in page


def test_searches_are_drawn_for_agents_that_search(evaluated, assistant):
    for project, drawn in ((evaluated, True), (assistant, False)):
        path = project[1].curves("training")
        before = path.read_text()
        path.write_text("step,reward,searches\n0,0.2,0\n1,0.4,1\n")
        assert ("Searches per episode" in report_page(*project)) is drawn
        path.write_text(before)
