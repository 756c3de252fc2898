"""Scores agree with the official script of NQ-open, and the folded ones go further."""

import re
import string
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apprentice.usecases.deepsearch.environment.scoring import (
    cover_exact_match,
    exact_match,
    f1,
    fold,
    folded_exact_match,
    loses_meaning,
    normalise,
    punctuation_warning,
)


def official(text: str) -> str:
    """The steps of NQ-open's script: NFD, lower case, no ASCII punctuation, no articles, single spaces."""
    text = "".join(char for char in unicodedata.normalize("NFD", text).lower() if char not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The Eiffel Tower!", "eiffel tower"),
        ("  a  cat,   an owl and the dog ", "cat owl and dog"),
        ("U.S.A.", "usa"),
        ("rock-'n'-roll", "rocknroll"),
        ("theatre", "theatre"),
        ("Beyonce\u0301", "beyonce\u0301"),
        ("Beyoncé", "beyonce\u0301"),
        ("an", ""),
    ],
)
def test_normalisation(text, normal):
    assert normalise(text) == normal


@given(st.one_of(st.text(max_size=30), st.text("aàtheén '’-–Ａ５.,가", max_size=20)))
def test_normalisation_is_the_official_one_to_the_letter(text):
    assert normalise(text) == official(text)


def test_composed_and_decomposed_letters_are_one_answer():
    assert exact_match(unicodedata.normalize("NFC", "Beyoncé"), [unicodedata.normalize("NFD", "Beyoncé")]) == 1.0


@pytest.mark.parametrize(
    ("prediction", "gold"),
    [
        ("Levi's Stadium", "Levi’s Stadium"),
        ("1914-1918", "1914–1918"),
        ("ＡＢＣ１２３", "ABC123"),
        ("“Hamlet”", "Hamlet"),
        ("O'Brien", "OʼBrien"),
        ("Straße", "STRASSE"),
        ("東京。", "東京"),
    ],
)
def test_folding_accepts_what_the_official_script_keeps_apart(prediction, gold):
    assert exact_match(prediction, [gold]) == 0.0
    assert folded_exact_match(prediction, [gold]) == 1.0


def test_folding_keeps_different_answers_apart():
    assert folded_exact_match("Paris", ["London"]) == folded_exact_match("café", ["cafe"]) == folded_exact_match("—", ["…"]) == 0.0
    assert fold("Thé") == "thé"


@given(st.text(max_size=12), st.text(max_size=12))
def test_folded_exact_match_holds_wherever_exact_match_does(prediction, gold):
    assert folded_exact_match(prediction, [gold]) >= exact_match(prediction, [gold])
    assert folded_exact_match(gold, [gold]) == 1.0


@pytest.mark.parametrize("answer", ["C#", "C++", "-5", "−5", "3.5", "grade A+", "1/2", "10:30", "< 3", ".NET", "minus (-3)", "about -.5"])
def test_punctuation_that_carries_meaning_is_seen(answer):
    assert loses_meaning(answer)


@pytest.mark.parametrize("answer", ["U.S.A.", "Jean-Luc", "1914-1918", "1,000", "rock 'n' roll", "AT&T", "Dr. No", "5%", "No. 5", "x", "a - b", "Yahoo!"])
def test_punctuation_without_meaning_is_not(answer):
    assert not loses_meaning(answer)


def test_the_warning_counts_the_answers_and_names_the_first():
    warning = punctuation_warning([("a.jsonl:1", "Oslo"), ("a.jsonl:2", "C#"), ("a.jsonl:9", "-5")])
    assert "2 accepted answers" in warning and "a.jsonl:2 accepts 'C#', which is scored as 'c'" in warning
    assert punctuation_warning([("a.jsonl:1", "Oslo")]) == ""


def test_exact_match_accepts_any_gold_answer():
    assert exact_match("the Denver Broncos.", ["Carolina Panthers", "Denver Broncos"]) == 1.0
    assert exact_match("Broncos", ["Denver Broncos"]) == 0.0


def test_f1_by_hand():
    # prediction {santa, clara, california}, gold {levis, stadium, in, santa, clara}: precision 2/3, recall 2/5
    assert f1("Santa Clara, California", ["Levi's Stadium in Santa Clara"]) == pytest.approx(0.5)
    # common words are counted as often as both have them: 2 of 3 and 2 of 2
    assert f1("New York New", ["New York"]) == pytest.approx(0.8)
    assert f1("Paris", ["London"]) == 0.0


def test_f1_takes_the_best_gold_answer():
    assert f1("Denver Broncos", ["Broncos", "the Denver Broncos"]) == 1.0


def test_f1_of_nothing_matches_only_nothing():
    assert f1("the", ["a"]) == 1.0
    assert f1("", ["Paris"]) == 0.0


def test_cover_exact_match_needs_whole_words_in_one_piece():
    assert cover_exact_match("It was Marie Curie, in 1903.", ["Marie Curie"]) == 1.0
    assert cover_exact_match("Marie Sklodowska Curie", ["Marie Curie"]) == 0.0
    assert cover_exact_match("Parisian", ["Paris"]) == 0.0
    assert cover_exact_match("anything", ["the"]) == 0.0


def test_cover_exact_match_holds_wherever_exact_match_does():
    assert cover_exact_match("The", ["a"]) == exact_match("The", ["a"]) == 1.0
