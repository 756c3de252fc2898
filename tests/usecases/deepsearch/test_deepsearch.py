"""DeepSearch's environment, baselines, and scripted expert on a few passages."""

import asyncio

import pytest

from apprentice.environments.cutting import cut
from apprentice.records import Passage, Task
from apprentice.usecases.deepsearch.config import DeepSearchConfig
from apprentice.usecases.deepsearch.environment.baselines import ClosedBook, PlainRag, first_line
from apprentice.usecases.deepsearch.environment.expert import expert_actions, visible_answer
from apprentice.usecases.deepsearch.environment.retrieval import Bm25Retriever
from apprentice.usecases.deepsearch.environment.search import DeepSearchEnvironment, listing

PASSAGES = (
    Passage(id="a", title="Lisbon", text="Lisbon is the capital of\nPortugal and lies on the Tagus."),
    Passage(id="b", title="Tagus", text="The Tagus is the longest river in Iberia."),
)
LIMITS = DeepSearchConfig(
    use="deepsearch", retriever="bm25", top_k=2, passage_tokens=30, max_turns=3, max_turn_tokens=40, max_failed_turns=3, max_tokens=500, concurrency=4
)
TASK = Task(id="t", scenario="s", split="dev", instruction="What is the capital of Portugal?", answers=("Lisbon", "city of Lisbon"))


def encode(text):
    """Tokenizes into characters."""
    return [ord(character) for character in text]


def play(environment, *actions, task=TASK):
    async def episode():
        world = environment(Bm25Retriever(PASSAGES), LIMITS, encode)
        return [await world.reset(task)] + [await world.step(action) for action in actions], await world.verify()

    return asyncio.run(episode())


def test_the_first_message_is_a_short_instruction_and_the_question():
    (first,), _ = play(DeepSearchEnvironment)
    instruction, question = first.text.split("\n")
    assert question == "Question: What is the capital of Portugal?"
    assert len(instruction.split()) <= 20


def test_a_search_shows_the_first_tokens_of_each_passage_in_whole_words():
    (_, told), _ = play(DeepSearchEnvironment, "<search>longest river Tagus</search>")
    assert told.kind == "search"
    assert told.text == "<information>\n(1) Tagus: The Tagus is the\n(2) Lisbon: Lisbon is the capital\n</information>"


@pytest.mark.parametrize(
    ("title", "text"),
    [("A", "x" * 50_000), ("B", "東京" * 2500), ("C", "word " * 9000), ("D" * 20_000, "text"), ("E", "pre " + "y" * 20_000 + " post")],
    ids=["letters", "CJK", "words", "title", "one word"],
)
def test_a_passage_never_takes_more_tokens_than_it_may(title, text):
    from apprentice.usecases.deepsearch.environment.retrieval import Hit

    shown = listing([Hit(Passage(id="p", title=title, text=text), 1.0)] * 2, 30, encode).splitlines()
    assert len(shown) == 2 and all(20 < len(line.removeprefix(f"({number}) ")) <= 30 for number, line in enumerate(shown, 1))


def test_a_text_is_cut_between_words_where_it_has_words():
    assert cut("one two three", 7, encode) == "one two" and cut("one two three", 9, encode) == "one two"
    assert cut("one two three", 13, encode) == "one two three" and cut("東京都庁", 3, encode) == "東京都"
    assert cut("", 0, encode) == cut("abc", 0, encode) == ""


def test_a_search_without_hits_says_so():
    (_, told), _ = play(DeepSearchEnvironment, "<search>zzzz</search>")
    assert told.text == "<information>\nNothing found.\n</information>"


@pytest.mark.parametrize(("answer", "score"), [("lisbon.", 1.0), ("The City of Lisbon", 1.0), ("Lisbon, Portugal", 0.0)])
def test_the_reward_is_exact_match(answer, score):
    (_, last), verdict = play(DeepSearchEnvironment, f"<answer>{answer}</answer>")
    assert last.done and verdict.score == score and verdict.success == bool(score) and verdict.answer == answer


def test_unknown_is_the_right_answer_to_an_unanswerable_question():
    task = TASK.model_copy(update={"answers": ("unknown",), "answerable": False})
    assert play(DeepSearchEnvironment, "<answer>Unknown</answer>", task=task)[1].success


def test_closed_book_shows_the_question_alone():
    (first, last), verdict = play(ClosedBook, "Lisbon.\nIt is the capital.")
    assert "Tagus" not in first.text and first.text.endswith("Question: What is the capital of Portugal?")
    assert last.done and verdict.success and verdict.answer == "Lisbon."


def test_plain_rag_shows_what_the_question_finds():
    (first, _), verdict = play(PlainRag, "Porto")
    assert "\n(1) Lisbon: Lisbon is the capital\n" in first.text and first.text.endswith("Question: What is the capital of Portugal?")
    assert not verdict.success


@pytest.mark.parametrize(
    ("completion", "answer"),
    [("", ""), ("\n\n Lisbon \nmore", "Lisbon"), ("<answer>Lisbon</answer> indeed", "Lisbon"), ("So: <answer>Lisbon", "Lisbon"), ("<answer></answer>", "")],
)
def test_a_baseline_answers_with_its_first_line(completion, answer):
    assert first_line(completion) == answer


def drive(task, *observations):
    actions = expert_actions(task)
    made = [next(actions)]
    for observation in observations:
        try:
            made.append(actions.send(observation))
        except StopIteration:
            break
    return made


def test_the_expert_searches_its_plan_in_order_and_answers_as_the_passage_writes_it():
    task = TASK.model_copy(update={"plan": ("Portugal", "capital")})
    made = drive(task, "<information>\n(1) X: nothing\n</information>", "<information>\n(1) Y: in LISBON, today\n</information>")
    assert made == ["<search>Portugal</search>", "<search>capital</search>", "<answer>LISBON</answer>"]


def test_the_expert_gives_up_if_no_accepted_answer_is_visible():
    assert drive(TASK.model_copy(update={"plan": ("Portugal",)}), "(1) Lisbonne: rien") == ["<search>Portugal</search>"]


def test_the_expert_searches_the_question_where_it_has_no_plan_and_says_unknown_where_there_is_no_answer():
    task = TASK.model_copy(update={"answers": ("unknown",), "answerable": False})
    assert drive(task, "(1) anything") == ["<search>What is the capital of Portugal?</search>", "<answer>unknown</answer>"]


def test_the_shortest_visible_answer_is_taken():
    assert visible_answer(("Robert De Niro", "De Niro"), ["(1) A: by Robert De Niro."]) == "De Niro"


def test_the_tags_of_an_observation_are_not_evidence():
    assert visible_answer(("1", "information"), ["<information>\n(1) A: text\n</information>"]) is None
    assert visible_answer(("C++",), ["(1) A: in C++."]) == "C++"
