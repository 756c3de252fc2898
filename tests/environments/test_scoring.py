"""Scores agree with the official SQuAD script on examples worked by hand."""

import pytest

from apprentice.environments.deepsearch.scoring import cover_exact_match, exact_match, f1, normalise


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The Eiffel Tower!", "eiffel tower"),
        ("  a  cat,   an owl and the dog ", "cat owl and dog"),
        ("U.S.A.", "usa"),
        ("rock-'n'-roll", "rocknroll"),
        ("theatre", "theatre"),
        ("Thé", "thé"),
        ("an", ""),
    ],
)
def test_normalisation(text, normal):
    assert normalise(text) == normal


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
