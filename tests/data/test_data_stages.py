"""The stages prepare and validate: files in, files out, and what is left behind when the data is not good enough."""

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from apprentice.config import Layout, load_pipeline
from apprentice.data.expectations import check_tasks
from apprentice.data.validation import REASONS, Lengths, validate_candidates
from apprentice.errors import ApprenticeError
from apprentice.evaluation import report
from apprentice.records import Task
from apprentice.records.events import Progress
from apprentice.records.tables import read_passages, read_tasks
from apprentice.stages import prepare, validate
from apprentice.usecases.deepsearch.source.readers import Candidate

PARAMS = Path(__file__).parents[2] / "params.yaml"


@pytest.fixture
def layout(tmp_path):
    return Layout("quick", tmp_path)


@pytest.fixture
def folder(tmp_path):
    """A user's data set: eight training tasks, four held-out ones, a corpus with their answers."""
    source = tmp_path / "source"
    source.mkdir()
    rows = [{"id": f"t{n}", "question": f"Who built house {n}?", "answers": [f"Builder{n}"]} for n in range(12)]
    write(source / "train.jsonl", rows[:8])
    write(source / "dev.jsonl", rows[8:])
    write(source / "corpus.jsonl", [{"id": f"p{n}", "title": f"House {n}", "text": f"Built by Builder{n}."} for n in range(12)])
    return source


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def configured(source=None, max_bad_share=0.2, **data):
    config = load_pipeline("quick", PARAMS)
    data = {"format": "jsonl" if source else "organisation", "source": str(source) if source else None, **data}
    limits = config.validation.model_copy(update={"max_bad_share": max_bad_share})
    return config.model_copy(update={"data": config.data.model_copy(update=data), "validation": limits})


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def run_both(config, layout):
    progress = Progress(layout.events, "test")
    prepare.run(config, layout, progress)
    validate.run(config, layout, progress)


def refused_by(config, layout):
    with pytest.raises(ApprenticeError) as caught:
        run_both(config, layout)
    return str(caught.value)


def test_prepare_writes_the_same_bytes_twice(tmp_path):
    written = []
    for name in ("a", "b"):
        layout = Layout("quick", tmp_path / name)
        prepare.run(configured(train=50, dev=10), layout, Progress(layout.events, "prepare"))
        written.append({path.name: path.read_bytes() for path in sorted(layout.raw.iterdir())})
    assert written[0] == written[1]
    assert list(written[0]) == ["corpus.jsonl", "source.json", "tasks.jsonl"]


def test_prepare_keeps_where_each_record_was_found(folder, layout):
    prepare.run(configured(folder), layout, Progress(layout.events, "prepare"))
    first = lines(layout.raw / "tasks.jsonl")[0]
    assert (first["file"], first["line"], first["error"]) == (f"{folder}/train.jsonl", 1, None)


def test_unparsable_lines_are_kept_where_nothing_is_left_out(folder, layout):
    with (folder / "train.jsonl").open("a") as file:
        file.write('{"question": "trunc')
    prepare.run(configured(folder, train=9, dev=1), layout, Progress(layout.events, "prepare"))
    found = lines(layout.raw / "tasks.jsonl")
    assert [row["record"] and row["record"]["split"] for row in found] == [*["train"] * 8, None, "dev"]
    assert found[8]["split"] == "train"


def test_data_train_draws_bad_lines_in_their_share_of_the_file(folder, layout):
    with (folder / "train.jsonl").open("a") as file:
        file.write('{"question": "trunc\n' * 8)
    prepare.run(configured(folder, train=8, dev=1), layout, Progress(layout.events, "prepare"))
    train = [row for row in lines(layout.raw / "tasks.jsonl") if row["split"] == "train"]
    assert len(train) == 8 and 1 <= sum(row["record"] is None for row in train) <= 7


def test_prepare_says_which_files_it_read(folder, layout):
    prepare.run(configured(folder), layout, Progress(layout.events, "prepare"))
    [said] = [event["text"] for event in lines(layout.events) if "corpus from" in event.get("text", "")]
    assert said == "; ".join(f"{holds} from {folder}/{holds}.jsonl" for holds in ("train", "dev", "corpus"))


def test_ids_that_restart_in_each_file_lose_no_task(folder, layout):
    write(folder / "train.jsonl", [{"id": n, "question": f"Who built house {n}?", "answers": [f"Builder{n}"]} for n in range(8)])
    write(folder / "dev.jsonl", [{"id": n, "question": f"Who built house {n + 8}?", "answers": [f"Builder{n + 8}"]} for n in range(4)])
    progress = Progress(layout.events, "test")
    prepare.run(configured(folder), layout, progress)
    found = [row["record"] for row in lines(layout.raw / "tasks.jsonl")]
    assert [record["id"] for record in found if record["split"] == "dev"] == [f"dev/{n}" for n in range(4)]
    assert "4" in [record["id"] for record in found]
    validation = validate_candidates(
        [Candidate(**row) for row in lines(layout.raw / "tasks.jsonl")], passages_of(layout), configured().validation, Lengths(len, 400, 400)
    )
    assert validation.rejected == []
    assert any("4 ids are in both splits" in event.get("text", "") for event in lines(layout.events))


def passages_of(layout):
    return [Candidate(**row) for row in lines(layout.raw / "corpus.jsonl")]


def test_a_scenario_that_is_no_text_reaches_the_quarantine(folder, layout):
    write(folder / "train.jsonl", [{"id": ["x"], "question": "q", "answers": ["Builder1"], "scenario": ["s"]}])
    prepare.run(configured(folder), layout, Progress(layout.events, "prepare"))
    [row] = [row for row in lines(layout.raw / "tasks.jsonl") if row["split"] == "train"]
    assert (row["record"]["id"], row["record"]["scenario"]) == (["x"], ["s"])


def test_prepare_takes_whole_scenarios_in_a_seeded_order(folder, layout):
    write(folder / "train.jsonl", [{"question": f"q{n}", "answers": ["a"], "scenario": f"s{n // 2}"} for n in range(8)])
    prepare.run(configured(folder, train=5), layout, Progress(layout.events, "prepare"))
    taken = [row["record"]["scenario"] for row in lines(layout.raw / "tasks.jsonl") if row["record"]["split"] == "train"]
    assert len(taken) == 4 and all(taken.count(scenario) == 2 for scenario in taken)


def test_prepare_says_what_it_left_out(folder, layout):
    prepare.run(configured(folder, train=5), layout, Progress(layout.events, "prepare"))
    assert any("3 more tasks of the split train" in event.get("text", "") for event in lines(layout.events))


def test_too_many_bad_records_stop_the_stage_and_lose_nothing(folder, layout):
    write(folder / "corpus.jsonl", [{"id": "p", "title": "Nothing", "text": "No answers here."}])
    message = refused_by(configured(folder), layout)
    assert "12 of 12 tasks (100.0%)" in message and "validation.max_bad_share=0.2" in message and "answer_absent 12" in message
    assert len(lines(layout.quarantine)) == 12
    assert json.loads(layout.metrics("validation").read_text())["refused_answer_absent"] == 12
    assert not layout.tasks.exists() and not layout.corpus.exists()


def test_clean_tables_of_an_earlier_run_do_not_outlive_bad_data(folder, layout):
    layout.data.mkdir(parents=True)
    layout.tasks.write_bytes(b"old")
    write(folder / "corpus.jsonl", [{"id": "p", "title": "Nothing", "text": "No answers here."}])
    refused_by(configured(folder), layout)
    assert not layout.tasks.exists()


def test_a_split_without_usable_tasks_names_its_file(folder, layout):
    write(folder / "dev.jsonl", [{"id": "d", "question": "q"}])
    message = refused_by(configured(folder), layout)
    assert f"{folder}/dev.jsonl: the split 'dev' has no valid task" in message


def test_a_corpus_without_ids_is_blamed_first(folder, layout):
    write(folder / "corpus.jsonl", [{"title": f"House {n}", "text": f"Built by Builder{n}."} for n in range(12)])
    message = refused_by(configured(folder), layout)
    assert "12 of 12 passages (100.0%)" in message and "(invalid_field 12)" in message and "corpus.jsonl:1:id: field required" in message


@pytest.mark.slow
def test_a_server_that_searches_needs_no_corpus_and_one_bad_row_fails_only_itself(folder, layout):
    (folder / "corpus.jsonl").unlink()
    with (folder / "train.jsonl").open("a") as file:
        file.write(json.dumps({"id": "t40", "question": "Long plan?", "answers": ["x"], "plan": ["s"] * 40}) + "\n")
    config = configured(folder)
    by_url = config.environment.model_copy(update={"retriever": "http://127.0.0.1:8000/retrieve"})
    run_both(config.model_copy(update={"environment": by_url}), layout)
    assert len(read_tasks(layout.tasks)) == 12 and read_passages(layout.corpus) == []
    assert [row["reasons"] for row in lines(layout.quarantine)] == [[f"{folder}/train.jsonl:9:plan: 40 steps, more than 30"]]


def test_validate_without_prepare_says_so(layout):
    with pytest.raises(ApprenticeError, match="tasks.jsonl: is missing"):
        validate.run(configured(), layout, Progress(layout.events, "validate"))


@pytest.mark.slow
def test_bad_records_are_quarantined_and_the_rest_goes_on_with_data_docs(folder, layout):
    with (folder / "train.jsonl").open("ab") as file:
        file.write(b'{"id": "t0", "question": "Who built house 0 again?", "answers": ["Builder0"]}\n')
        file.write('{"question": "café?", "answers": ["Builder1"]}\n'.encode("latin-1"))
        file.write(b'{"id": "n", "question": "Who?"}\n{"question": "trunc')
    run_both(configured(folder, max_bad_share=0.5), layout)

    metrics = json.loads(layout.metrics("validation").read_text())
    assert metrics["tasks_clean"] == 12 and metrics["tasks_quarantined"] == 4
    assert {reason: metrics[f"refused_{reason}"] for reason in REASONS if metrics[f"refused_{reason}"]} == {
        "unparsable": 2,
        "invalid_field": 1,
        "duplicate_id": 1,
    }
    assert metrics["expectations_passed"] == metrics["expectations_total"] > 10
    assert [row["line"] for row in lines(layout.quarantine)] == [9, 10, 11, 12]
    assert len(read_tasks(layout.tasks, "train")) == 8 and len(read_passages(layout.corpus)) == 12

    page = (layout.data_docs / "index.html").read_text(encoding="utf-8")
    assert "Expectation" in page and "http" not in page.replace("http-equiv", "")
    validate.run(configured(folder, max_bad_share=0.5), layout, Progress(layout.events, "validate"))
    assert (layout.data_docs / "index.html").read_text(encoding="utf-8") == page


@pytest.mark.slow
def test_what_a_data_set_says_stays_text_on_the_page_about_it(tmp_path):
    class Elements(HTMLParser):
        """What a browser makes of a page."""

        def __init__(self):
            super().__init__()
            self.found, self.text = [], ""

        def handle_starttag(self, tag, attrs):
            self.found.append((tag, dict(attrs)))

        def handle_data(self, data):
            self.text += data

    hostile = "<svg onload=alert(1)></svg></td> <script>alert(2)</script> <a href='javascript:alert(3)'>$v__0 <!-- <script"
    task = Task(id=hostile, scenario=hostile, split="train", instruction=hostile, answers=(hostile,))
    outcome = check_tasks([task, task, *(task.model_copy(update={"split": split}) for split in ("dev", "test"))], Lengths(len, 20, 100), tmp_path)
    assert any(hostile.partition("'")[0] in failure for failure in outcome.failures)

    page = Elements()
    page.feed((tmp_path / "index.html").read_text(encoding="utf-8"))
    head = [tag for tag, _ in page.found].index("head")
    tag, attributes = page.found[head + 1]
    policy = f'content="{attributes["content"]}"'
    assert (tag, attributes["http-equiv"]) == ("meta", "Content-Security-Policy") and policy in (report.TEMPLATES / "report.html.jinja").read_text()
    assert not {"script", "svg", "img", "link", "iframe", "object"} & {tag for tag, _ in page.found}
    assert not [attributes for _, attributes in page.found if "alert(" in str(attributes)]
    assert hostile in page.text
