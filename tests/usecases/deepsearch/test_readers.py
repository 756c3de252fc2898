"""Readers: what they read from each format, and the errors of an unavailable source."""

import gzip
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apprentice.config.schema import ValidateConfig
from apprentice.data.validation import Lengths, validate_candidates
from apprentice.errors import ApprenticeError
from apprentice.stages.prepare import limit, trained_variants
from apprentice.usecases.deepsearch.source.readers import read_data

REAL = Path(__file__).parents[3] / ".." / "shared" / "data"
needs_real_data = pytest.mark.skipif(not REAL.is_dir(), reason="no ../shared/data beside the project")
PASSAGE = {"id": "p1", "title": "Rome", "text": "Rome is the capital of Italy."}


def write_lines(path, *values):
    path.write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")


def read(format, folder):
    return read_data(format, str(folder), seed=0, train=10, dev=10)


@pytest.fixture
def folder(tmp_path):
    write_lines(tmp_path / "train.jsonl", {"question": "capital of italy", "answer": ["Rome", "Roma"]})
    write_lines(tmp_path / "dev.jsonl", {"question": "country of rome", "answer": ["Italy"]})
    write_lines(tmp_path / "corpus.jsonl", PASSAGE)
    return tmp_path


@pytest.fixture
def musique(tmp_path):
    paragraphs = [
        {"idx": 0, "title": "Iris", "paragraph_text": "Iris was written by Ann.", "is_supporting": True},
        {"idx": 1, "title": "Noise", "paragraph_text": "Nothing.", "is_supporting": False},
        {"idx": 2, "title": "Ann", "paragraph_text": "Ann was born in Rome.", "is_supporting": True},
    ]
    steps = [
        {"question": "Iris >> author", "answer": "Ann", "paragraph_support_idx": 0},
        {"question": "where was #1 born", "answer": "Rome", "paragraph_support_idx": 2},
    ]
    task = {"id": "2hop__1", "question": "q?", "paragraphs": paragraphs, "question_decomposition": steps, "answer": "Rome", "answer_aliases": ["Roma"]}
    write_lines(tmp_path / "musique_ans_v1.0_train.jsonl", task)
    write_lines(tmp_path / "musique_ans_v1.0_dev.jsonl", {**task, "id": "2hop__2"})
    return tmp_path


def test_nq_needs_question_and_answer_only(folder):
    task = read("nq", folder).tasks[0]
    assert (task.file, task.line) == (f"{folder}/train.jsonl", 1)
    assert task.record["instruction"] == "capital of italy"
    assert task.record["answers"] == ["Rome", "Roma"]
    assert task.record["plan"] == ["capital of italy"]
    assert task.record["id"] == "nq-train-1"


def test_nq_uses_id_and_gold_passage_where_they_are(folder):
    write_lines(folder / "train.jsonl", {"id": "x7", "question": "q", "answer": ["Rome"], "gold_passage_id": "p1"})
    record = read("nq", folder).tasks[0].record
    assert record["id"] == record["scenario"] == "x7"
    assert record["supporting"] == ["p1"]


def test_nq_files_may_have_their_official_names(folder):
    (folder / "train.jsonl").rename(folder / "NQ-open.train.jsonl")
    (folder / "dev.jsonl").rename(folder / "NQ-open.dev.jsonl")
    assert [task.record["split"] for task in read("nq", folder).tasks] == ["train", "dev"]


def test_the_corpus_may_be_gzipped(folder):
    (folder / "corpus.jsonl").unlink()
    (folder / "corpus.jsonl.gz").write_bytes(gzip.compress(json.dumps(PASSAGE).encode()))
    assert [passage.record for passage in read("nq", folder).passages] == [PASSAGE]


def test_a_broken_gzip_file_is_named(folder):
    (folder / "corpus.jsonl").unlink()
    (folder / "corpus.jsonl.gz").write_bytes(gzip.compress(json.dumps(PASSAGE).encode())[:20])
    with pytest.raises(ApprenticeError, match="corpus.jsonl.gz.*compression"):
        read("nq", folder)


def test_musique_plan_fills_in_bridges_and_rewrites_relations(musique):
    assert read("musique", musique).tasks[0].record["plan"] == ["Iris author", "where was Ann born"]


def test_musique_keeps_supporting_passages_aliases_and_hops(musique):
    data = read("musique", musique)
    record, titles = data.tasks[0].record, {passage.record["id"]: passage.record["title"] for passage in data.passages}
    assert [titles[id] for id in record["supporting"]] == ["Iris", "Ann"]
    assert (record["answers"], record["hops"]) == (["Rome", "Roma"], 2)


def test_musique_paragraphs_are_pooled_once(musique):
    passages = read("musique", musique).passages
    assert [passage.record["title"] for passage in passages] == ["Iris", "Noise", "Ann"]
    assert passages[0].file.endswith("train.jsonl")


def test_a_users_own_rows_keep_their_optional_fields(folder):
    row = {"id": 7, "question": "q", "answers": 1972, "scenario": "s", "plan": ["a", "b"], "hops": 2, "remark": "mine"}
    write_lines(folder / "train.jsonl", row)
    record = read("jsonl", folder).tasks[0].record
    expected = {"id": "7", "scenario": "s", "split": "train", "instruction": "q", "answers": ["1972"], "plan": ["a", "b"], "hops": 2}
    assert record == expected


def test_a_missing_answer_stays_missing(folder):
    write_lines(folder / "train.jsonl", {"question": "q"})
    assert "answers" not in read("jsonl", folder).tasks[0].record


def test_an_answer_of_the_wrong_type_is_left_for_validation_to_refuse(folder):
    write_lines(folder / "train.jsonl", {"question": "q", "answers": ["Rome", {"text": "Roma"}, "Rome"]})
    assert read("jsonl", folder).tasks[0].record["answers"] == ["Rome", {"text": "Roma"}]


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (b'{"question": "who', "truncated"),
        ('{"question": "café"}'.encode("latin-1"), "not UTF-8"),
        (b"[1, 2]", "not an object"),
    ],
    ids=["truncated", "latin-1", "no object"],
)
def test_a_line_that_cannot_be_parsed_is_kept_with_its_error(folder, raw, error):
    with (folder / "train.jsonl").open("ab") as file:
        file.write(raw + b"\n")
    good, bad, _ = read("jsonl", folder).tasks
    assert good.record is not None
    assert (bad.record, bad.line) == (None, 2) and error in bad.error


def test_blank_lines_count_in_line_numbers_only(folder):
    (folder / "train.jsonl").write_text('\n\n{"question": "q", "answer": "a"}\n', encoding="utf-8")
    assert [task.line for task in read("jsonl", folder).tasks] == [3, 1]


@pytest.mark.parametrize("name", ["train.jsonl", "dev.jsonl", "corpus.jsonl"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(ApprenticeError, match=name):
        read("nq", folder)


@pytest.mark.parametrize("name", ["train.jsonl", "dev.jsonl", "corpus.jsonl"])
def test_an_empty_file_is_named(folder, name):
    (folder / name).write_text("\n", encoding="utf-8")
    with pytest.raises(ApprenticeError, match=f"{name}: is empty"):
        read("jsonl", folder)


def test_two_files_for_one_split_are_refused(folder):
    (folder / "train.jsonl").rename(folder / "a_train.jsonl")
    write_lines(folder / "b_train.jsonl", {})
    with pytest.raises(ApprenticeError, match="a_train.jsonl, b_train.jsonl"):
        read("nq", folder)


@pytest.mark.parametrize("format", ["nq", "musique"])
def test_no_source_says_how_to_get_the_data_and_how_to_pass_it(format):
    with pytest.raises(ApprenticeError) as caught:
        read_data(format, None, 0, 1, 1)
    message = str(caught.value)
    assert f'make run PIPELINE={format} ARGS="data.source=/path/to/folder"' in message
    assert "jsonl" in message and "Hugging Face" in message


def test_a_folder_that_is_not_there_is_an_error():
    with pytest.raises(ApprenticeError, match="no such folder"):
        read("nq", "/nowhere/at/all")


def test_a_data_set_id_without_a_network_is_an_error(monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ApprenticeError, match="nobody/nothing-at-all: is not a folder, and cannot be downloaded"):
        read("nq", "nobody/nothing-at-all")


def test_the_fingerprint_names_each_file_with_its_hash(folder):
    files = read("nq", folder).fingerprint["files"]
    assert [file["path"] for file in files] == [f"{folder}/{name}" for name in ("train.jsonl", "dev.jsonl", "corpus.jsonl")]
    assert all(len(file["sha256"]) == 64 and file["bytes"] > 0 for file in files)


def full(tmp_path, *questions, split="train"):
    """MuSiQue-Full with these questions in one split, and an unrelated question in the other."""
    other = {"id": "2hop__9", "question": "other?", "paragraphs": [paragraph(0, "Noise")], "answer": "x", "answerable": True}
    write_lines(tmp_path / f"musique_full_v1.0_{split}.jsonl", *questions)
    write_lines(tmp_path / f"musique_full_v1.0_{'dev' if split == 'train' else 'train'}.jsonl", other)
    return read("musique", tmp_path)


def paragraph(idx, title, supporting=False):
    return {"idx": idx, "title": title, "paragraph_text": f"{title} is here.", "is_supporting": supporting}


def question(answerable, *paragraphs, id="2hop__1", answer="Rome", place=0):
    step = {"question": "where", "answer": answer, "paragraph_support_idx": place}
    return {
        "id": id,
        "question": f"q {id}?",
        "paragraphs": list(paragraphs),
        "question_decomposition": [step],
        "answer": answer,
        "answer_aliases": [],
        "answerable": answerable,
    }


def test_an_unanswerable_twin_is_left_out_where_the_pooled_paragraphs_answer_it(tmp_path):
    twins = question(True, paragraph(0, "Rome", True)), question(False, paragraph(0, "Noise"), place=None)
    data = full(tmp_path, *twins)
    assert [(task.record["id"], task.record["answerable"]) for task in data.tasks if task.split == "train"] == [("2hop__1", True)]
    assert "1 of 1 unanswerable questions are left out" in data.notes[1]


def test_an_unanswerable_question_nothing_answers_is_kept_with_the_agreed_answer_and_an_id_of_its_own(tmp_path):
    twins = question(True, id="2hop__1"), question(False, paragraph(0, "Noise"), place=None)
    kept = full(tmp_path, *twins).tasks[1].record
    assert (kept["id"], kept["scenario"], kept["answers"], kept["answerable"]) == ("2hop__1-unanswerable", "2hop__1", ["unknown"], False)


@pytest.mark.parametrize(("title", "left"), [("Rome", []), ("Romeo", ["3hop__2-unanswerable"])])
def test_an_unanswerable_question_without_a_twin_is_kept_where_no_paragraph_holds_what_it_lacks(tmp_path, title, left):
    alone = question(False, paragraph(0, "Noise"), id="3hop__2", place=None)
    data = full(tmp_path, question(True, paragraph(0, title, True), id="2hop__5", answer=title), alone)
    assert [task.record["id"] for task in data.tasks if not task.record["answerable"]] == left


def test_an_unanswerable_question_that_says_nothing_of_what_it_lacks_is_left_out(tmp_path):
    silent = {"id": "x", "question": "q?", "paragraphs": [paragraph(0, "Noise")], "answerable": False}
    assert all(task.record["answerable"] for task in full(tmp_path, silent).tasks)


def test_the_answerable_files_are_preferred_and_the_others_named(musique):
    (musique / "musique_full_v1.0_train.jsonl").write_text("{}")
    [chosen] = read("musique", musique).notes
    assert chosen.startswith(f"train from {musique}/musique_ans_v1.0_train.jsonl (not from musique_full_v1.0_train.jsonl); dev from")


@pytest.mark.parametrize(("aliases", "answers"), [(5, ["Rome", "5"]), ("Roma", ["Rome", "Roma"]), (None, ["Rome"])])
def test_musique_aliases_may_be_a_single_value(musique, aliases, answers):
    [row] = [json.loads(line) for line in (musique / "musique_ans_v1.0_train.jsonl").read_text().splitlines()]
    write_lines(musique / "musique_ans_v1.0_train.jsonl", {**row, "answer_aliases": aliases})
    assert read("musique", musique).tasks[0].record["answers"] == answers


def test_one_file_is_never_both_splits(tmp_path):
    write_lines(tmp_path / "train_dev.jsonl", {"question": "q", "answer": "a"})
    write_lines(tmp_path / "corpus.jsonl", PASSAGE)
    with pytest.raises(ApprenticeError, match="train_dev.jsonl: matches both splits"):
        read("nq", tmp_path)


def test_a_server_that_searches_needs_no_corpus_here(folder):
    (folder / "corpus.jsonl").unlink()
    assert read_data("jsonl", str(folder), 0, 1, 1, needs_corpus=False).passages == ()
    write_lines(folder / "corpus.jsonl", PASSAGE)
    assert len(read_data("jsonl", str(folder), 0, 1, 1, needs_corpus=False).passages) == 1


@needs_real_data
def test_real_natural_questions_are_read_whole():
    data = read("nq", REAL / "nq")
    assert (len(data.tasks), len(data.passages)) == (1555, 2600)
    ids = {passage.record["id"] for passage in data.passages}
    assert all(set(task.record["supporting"]) <= ids for task in data.tasks)


@needs_real_data
def test_real_musique_plans_have_no_open_reference():
    data = read("musique", REAL / "musique")
    plans = [task.record["plan"] for task in data.tasks]
    assert len(plans) == 160 and all(2 <= len(plan) <= 4 for plan in plans)
    assert not any("#" in query or ">>" in query for plan in plans for query in plan)


scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(st.characters(exclude_categories=()), max_size=5)
)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3), max_leaves=8)
names = st.sampled_from(
    "id scenario question answer answers answer_aliases answerable hops plan supporting gold_passage_id paragraphs question_decomposition".split()
)
inside = st.dictionaries(st.sampled_from("idx title paragraph_text is_supporting question answer paragraph_support_idx".split()), values)


@given(st.dictionaries(names, values | st.lists(inside, max_size=3)), st.sampled_from(["nq", "jsonl", "musique"]))
def test_no_record_whatever_its_types_breaks_a_reader_or_validation(value, format):
    with TemporaryDirectory() as folder:
        for split, record in (("train", value), ("dev", {"question": "held out?", "answer": "a"})):
            (Path(folder) / f"{split}.jsonl").write_text(json.dumps(record) + "\n")
        data = read_data(format, folder, 0, 1, 1, needs_corpus=False)
    taken = trained_variants(limit(data.tasks, "train", 1, 0))
    validation = validate_candidates(taken, data.passages, ValidateConfig(max_bad_share=1, require_answer_in_corpus=True), Lengths(len, 400, 400))
    assert [entry.candidate.split for entry in validation.tasks][-1] == "dev"
    for entry in (*validation.tasks, *validation.passages):
        json.dumps(entry.quarantine_row())
