"""Validation: each reason to reject a record, and what is kept."""

import time

import pytest

from apprentice.config.schema import ValidateConfig
from apprentice.data.validation import Lengths, summarise, validate_candidates
from apprentice.usecases.deepsearch.source.readers import Candidate

LIMITS = ValidateConfig(max_bad_share=0.5, require_answer_in_corpus=True)
LENGTHS = Lengths(len, instruction=100, passage=150)
"""Counts characters as tokens."""
PASSAGES = [{"id": "p", "title": "Rome", "text": "Rome is the capital of Italy. Ptolemy's map (1514–1572) shows it."}]


def task(**changes):
    number = changes.get("id", "t1")
    return {"id": number, "scenario": f"s-{number}", "split": "train", "instruction": f"question {number}?", "answers": ["Rome"]} | changes


def validation(*records, passages=PASSAGES, limits=LIMITS):
    tasks = [record if isinstance(record, Candidate) else Candidate("tasks.jsonl", line, record) for line, record in enumerate(records, 1)]
    return validate_candidates(tasks, [Candidate("corpus.jsonl", line, passage) for line, passage in enumerate(passages, 1)], limits, LENGTHS)


def reasons(result):
    return [reason for entry in result.rejected for reason in entry.quarantine_row()["reasons"]]


def test_a_valid_task_is_kept():
    assert [task.id for task in validation(task()).clean_tasks] == ["t1"]


def test_a_missing_answer_is_refused_with_file_line_and_field():
    record = task(id="t2")
    del record["answers"]
    assert reasons(validation(task(), record)) == ["tasks.jsonl:2:answers: a task that is judged by its answers needs one"]


@pytest.mark.parametrize("answers", [[], [""], ["  "], ["?"], ["the"]])
def test_an_empty_answer_is_refused(answers):
    assert validation(task(answers=answers)).count_reasons()["invalid_field"] == 1


def test_every_problem_of_a_record_is_listed():
    assert len(reasons(validation({"id": "x"}))) == 4


def test_an_unparsable_line_is_refused_with_its_error():
    result = validation(task(), Candidate("tasks.jsonl", 9, None, "is not JSON"))
    assert result.rejected[0].quarantine_row() == {"file": "tasks.jsonl", "line": 9, "record": None, "reasons": ["tasks.jsonl:9: is not JSON"]}


def test_the_second_of_two_equal_ids_is_refused():
    result = validation(task(), task(instruction="another?"))
    assert len(result.clean_tasks) == 1
    assert reasons(result) == ["tasks.jsonl:2:id: 't1' is also the id of tasks.jsonl:1"]


def test_a_refused_record_does_not_make_a_good_one_a_duplicate():
    assert [task.instruction for task in validation(task(answers=[]), task(instruction="good?")).clean_tasks] == ["good?"]


def test_the_same_question_with_the_same_answers_is_refused_once():
    result = validation(task(id="a", instruction="The capital?"), task(id="b", instruction="capital"))
    assert result.count_reasons()["duplicate_task"] == 1


def test_the_same_question_in_two_splits_keeps_the_held_out_one():
    result = validation(task(id="a", instruction="Capital?"), task(id="b", instruction="capital", split="dev"))
    assert [task.split for task in result.clean_tasks] == ["dev"]
    assert reasons(result) == ["tasks.jsonl:1:instruction: the split 'dev' has the same instruction at tasks.jsonl:2"]


def test_a_scenario_in_two_splits_keeps_the_held_out_task():
    result = validation(task(id="a", scenario="s"), task(id="b", scenario="s", split="dev"))
    assert [task.id for task in result.clean_tasks] == ["b"]
    assert result.count_reasons()["leakage"] == 1


def test_variants_within_a_split_may_share_a_scenario():
    assert len(validation(task(id="a", scenario="s"), task(id="b", scenario="s")).clean_tasks) == 2


def test_an_unknown_split_is_refused():
    assert "test" in reasons(validation(task(split="test")))[0]


def test_an_answer_that_no_passage_holds_is_refused():
    assert validation(task(answers=["Paris"])).count_reasons()["answer_absent"] == 1


@pytest.mark.parametrize("answer", ["the Capital", "Ptolemy", "1572", "rome"])
def test_an_answer_is_found_whatever_its_case_articles_and_punctuation(answer):
    assert validation(task(answers=[answer])).clean_tasks


def test_a_part_of_a_word_is_not_an_occurrence():
    assert not validation(task(answers=["Ital"])).clean_tasks


def test_one_answer_in_the_corpus_is_enough():
    assert validation(task(answers=["Paris", "Rome"])).clean_tasks


def test_a_task_without_an_answer_needs_none_in_the_corpus():
    assert validation(task(answerable=False, answers=["unknown"])).clean_tasks


def test_a_task_without_an_answer_must_not_name_one():
    assert validation(task(answerable=False)).count_reasons()["invalid_field"] == 1


def test_absent_answers_are_let_through_where_they_are_not_required_in_the_corpus():
    assert validation(task(answers=["Paris"]), limits=LIMITS.model_copy(update={"require_answer_in_corpus": False})).clean_tasks


def test_over_long_texts_are_refused():
    result = validation(task(instruction="word " * 21), passages=[*PASSAGES, {"id": "q", "title": "", "text": "word " * 31}])
    assert result.count_reasons()["too_long"] == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x" * 50_000, "50000 characters, far more than 100 tokens"),
        ("東京" * 2500, "5000 tokens, more than 100 (a quarter of environment.max_tokens)"),
        ("Who is " + "y" * 9_000, "9007 tokens, more than 100"),
    ],
    ids=["letters", "CJK", "one word"],
)
def test_a_long_text_of_few_words_is_refused(text, said):
    [reason] = reasons(validation(task(instruction=text)))
    assert reason.startswith(f"tasks.jsonl:1:instruction: {said}")
    [entry] = validation(passages=[*PASSAGES * 1, {"id": "q", "title": text, "text": "t"}]).rejected
    assert [(problem.reason, problem.field) for problem in entry.problems] == [("too_long", "title")]


def test_a_short_text_is_not_counted():
    def never(text):
        raise AssertionError(text)

    assert validate_candidates([Candidate("tasks.jsonl", 1, task())], [], LIMITS, Lengths(never, 100, 100)).rejected == []


@pytest.mark.parametrize("field", ["plan", "supporting", "scenario"])
def test_half_a_surrogate_pair_is_refused_in_every_field(field):
    text = "a\ud800b"
    assert len(validation(task(**{field: text if field == "scenario" else [text]})).rejected) == 1


@pytest.mark.parametrize("nothing", ["", "  ", "?", "the", None])
def test_an_alias_that_says_nothing_drops_only_itself(nothing):
    result = validation(task(answers=["Rome", nothing]))
    assert [one.answers for one in result.clean_tasks] == [("Rome",)]
    assert summarise(result)["answers_dropped"] == 1


@pytest.mark.parametrize(("changes", "said"), [({"plan": ["s"] * 40}, "plan: 40 steps, more than 30"), ({"hops": 11}, "hops: 11 hops, more than 10")])
def test_a_row_that_would_fail_the_whole_set_is_refused_by_itself(changes, said):
    assert reasons(validation(task(), task(id="t2", **changes))) == [f"tasks.jsonl:2:{said}"]


def test_the_same_question_with_the_same_first_answer_is_refused_once():
    result = validation(task(id="a", instruction="Capital?", answers=["Rome", "Roma"]), task(id="b", instruction="Capital?"))
    assert result.count_reasons()["duplicate_task"] == 1


HELD = [
    ("Malm\u006f\u0308 city", "Malm\u00f6"),
    ("Malm\u00f6 city", "Malmo\u0308"),
    ("called \u201cThe Wall\u201d in 1979", '"The Wall"'),
    ("O\u2019Brien\u2019s house", "O'Brien"),
    ("\u0631\u0648\u0645\u0627\u060c \u0625\u064a\u0637\u0627\u0644\u064a\u0627", "\u0631\u0648\u0645\u0627"),
    ("日本の首都は東京です。", "東京"),
    ("ソニーはSonyの東京本社", "Sony"),
    ("กรุงเทพมหานครเป็นเมืองหลวง", "กรุงเทพมหานคร"),
    ("Rome,Italy;Paris", "Italy"),
    ("the U.S. army", "US"),
    ("ＲＯＭＥ １９６４", "Rome 1964"),
    ("co\u00adoperation\u200b now", "cooperation now"),
    ("STRASSE 5", "straße 5"),
]


@pytest.mark.parametrize(("text", "answer"), HELD)
def test_an_answer_is_found_in_every_script_and_unicode_form(text, answer):
    assert validation(task(answers=[answer]), passages=[{"id": "p", "title": "T", "text": text}]).clean_tasks


@pytest.mark.parametrize(("text", "answer"), [("Ptolemaic", "Ptolemy"), ("Italy", "Ital"), ("東北の京", "東京"), ("1514", "15"), ("Малина", "Мали")])
def test_what_a_passage_does_not_say_is_not_found(text, answer):
    assert not validation(task(answers=[answer]), passages=[{"id": "p", "title": "T", "text": text}]).clean_tasks


def test_a_corpus_without_ids_is_blamed_and_not_the_answers():
    result = validation(task(), passages=[{"title": "Rome", "text": "Rome."}])
    assert reasons(result) == ["corpus.jsonl:1:id: field required"]


def test_without_a_corpus_here_no_answer_is_looked_for():
    assert validation(task(answers=["Paris"]), passages=[]).clean_tasks


def test_empty_texts_are_refused():
    result = validation(task(instruction=" "), passages=[*PASSAGES, {"id": "q", "title": "", "text": ""}])
    assert result.count_reasons()["invalid_field"] == 2


@pytest.mark.parametrize("text", ["caf\ufffd", "a\x00b", "a\x1bb", "cafÃ©", "itâ€™s", "Â£5", "ï»¿x"])
def test_broken_encodings_are_refused(text):
    assert validation(task(instruction=text)).count_reasons()["broken_encoding"] == 1


@pytest.mark.parametrize("text", ["café", "São Paulo", "SÃO PAULO", "Ångström", "50 € – «été»", "東京", "a\tb\nc", "Â"])
def test_sound_texts_in_other_alphabets_are_kept(text):
    assert validation(task(instruction=text)).clean_tasks


def test_half_a_surrogate_pair_is_refused():
    assert not validation(task(instruction="a\ud800b")).clean_tasks


def test_a_duplicate_passage_id_is_refused():
    result = validation(task(), passages=[*PASSAGES, {"id": "p", "title": "x", "text": "y"}])
    assert reasons(result) == ["corpus.jsonl:2:id: 'p' is also the id of corpus.jsonl:1"]


def test_metrics_are_numbers_with_the_same_names_whatever_the_data():
    good, bad = summarise(validation(task())), summarise(validation())
    assert list(good) == list(bad)
    assert all(isinstance(value, int | float) for value in (*good.values(), *bad.values()))


def test_metrics_count_tasks_and_reasons():
    metrics = summarise(validation(task(id="a", hops=2), task(id="b", split="dev"), task(id="c", answers=["Paris"])))
    expected = {"tasks_read": 3, "tasks_clean": 2, "tasks_dev": 1, "tasks_2_hops": 1, "refused_answer_absent": 1, "bad_share": 0.333333}
    assert {name: metrics[name] for name in expected} == expected


def test_a_corpus_of_a_million_characters_is_searched_in_seconds():
    text = "“Quoted” words, with a dash – and 東京. " * 100
    began = time.monotonic()
    result = validation(task(answers=["東京"]), passages=[{"id": str(n), "title": "", "text": text[:150]} for n in range(7000)])
    assert result.clean_tasks and time.monotonic() - began < 15
