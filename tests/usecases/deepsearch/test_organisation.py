"""The generated organisation: answers from facts, splits without shared chains, findable evidence."""

import asyncio
from collections import Counter

import pytest

from apprentice.usecases.deepsearch.environment.retrieval import Bm25Retriever
from apprentice.usecases.deepsearch.environment.scoring import normalise
from apprentice.usecases.deepsearch.source.organisation.facts import sample_organisation
from apprentice.usecases.deepsearch.source.organisation.generate import UNKNOWN, generate

SHOWN_WORDS, TOP_K = 40, 2


@pytest.fixture(scope="module")
def organisation():
    return generate(seed=0, train=1000, dev=200)


@pytest.fixture(scope="module")
def shown(organisation):
    """The text that a search shows for each query."""
    tasks, passages = organisation
    retriever = Bm25Retriever(passages)

    def show(queries):
        found = asyncio.run(retriever.search(queries, TOP_K))
        return [" ".join(f"{hit.passage.title}: {' '.join(hit.passage.text.split()[:SHOWN_WORDS])}" for hit in hits) for hits in found]

    return show


def share_visible(tasks, texts):
    return sum(task.answers[0] in text for task, text in zip(tasks, texts, strict=True)) / len(tasks)


def of_hops(tasks, hops):
    return [task for task in tasks if task.hops == hops and task.answerable]


def test_same_seed_gives_the_same_bytes(organisation):
    again = generate(seed=0, train=1000, dev=200)
    assert [record.model_dump_json() for records in again for record in records] == [record.model_dump_json() for records in organisation for record in records]


def test_another_seed_gives_another_organisation(organisation):
    assert {task.instruction for task in generate(seed=1, train=100, dev=20)[0]} != {task.instruction for task in organisation[0]}


def test_there_are_as_many_tasks_as_asked_for(organisation):
    assert Counter(task.split for task in organisation[0]) == {"train": 1000, "dev": 200}


def test_ids_and_questions_are_distinct(organisation):
    tasks, passages = organisation
    assert len({task.id for task in tasks}) == len({normalise(task.instruction) for task in tasks}) == len(tasks)
    assert len({passage.id for passage in passages}) == len(passages)


def test_shares_of_hops_and_unanswerable_questions(organisation):
    train = [task for task in organisation[0] if task.split == "train"]
    assert [len(of_hops(train, hops)) for hops in (1, 2, 3)] == [500, 300, 100]
    assert sum(not task.answerable for task in train) == 100


def test_splits_share_no_chain_and_no_answering_fact(organisation):
    facts = {split: set() for split in ("train", "dev")}
    scenarios = {split: set() for split in ("train", "dev")}
    for task in organisation[0]:
        facts[task.split].add((task.supporting[-1], task.scenario.split("/")[-1]))
        scenarios[task.split].add(task.scenario)
    assert not facts["train"] & facts["dev"]
    assert not scenarios["train"] & scenarios["dev"]


def test_held_out_tasks_do_not_depend_on_the_number_of_training_tasks(organisation):
    few = generate(seed=0, train=10, dev=200)[0]
    assert [task for task in few if task.split == "dev"] == [task for task in organisation[0] if task.split == "dev"]


def test_answers_are_short_and_stand_in_the_last_supporting_passage(organisation):
    tasks, passages = organisation
    text = {passage.id: " ".join(passage.text.split()[:SHOWN_WORDS]) for passage in passages}
    for task in tasks:
        assert len(task.answers[0].split()) <= 3
        assert not task.answerable or task.answers[0] in text[task.supporting[-1]]


def test_answers_agree_with_the_fact_graph(organisation):
    graph = sample_organisation(0)
    for task in organisation[0]:
        value, *relations = task.scenario.split("/")
        for relation in relations:
            value = graph.facts.get((value, relation))
        expected = graph.entities[value].name if value in graph.entities else value or UNKNOWN[0]
        assert task.answers[0] == expected


def test_a_question_without_an_answer_is_about_an_entity_that_exists(organisation):
    tasks, passages = organisation
    ids = {passage.id for passage in passages}
    unanswerable = [task for task in tasks if not task.answerable]
    assert unanswerable and all(task.answers == UNKNOWN and set(task.supporting) <= ids for task in unanswerable)


def test_passages_are_short_and_several_hundred(organisation):
    passages = organisation[1]
    assert 400 <= len(passages) <= 600
    assert max(len(passage.text.split()) for passage in passages) <= 40


def test_a_plan_has_one_search_a_hop_and_names_the_bridges(organisation):
    tasks, passages = organisation
    titles = {passage.id: passage.title for passage in passages}
    for task in tasks:
        assert len(task.plan) == task.hops
        assert all(titles[id] in query for id, query in list(zip(task.supporting, task.plan, strict=True))[1:])


def test_many_questions_use_an_alias(organisation):
    tasks, passages = organisation
    titles = {passage.id: passage.title.lower() for passage in passages}
    assert sum(titles[task.supporting[0]] not in task.instruction.lower() for task in tasks) > 50


@pytest.mark.parametrize(("hops", "least"), [(1, 0.9), (2, 0.8), (3, 0.8)])
def test_following_the_plan_shows_the_answer(organisation, shown, hops, least):
    tasks = of_hops(organisation[0], hops)
    assert share_visible(tasks, shown([task.plan[-1] for task in tasks])) >= least


def test_searching_the_bare_question_shows_most_answers_one_hop_away(organisation, shown):
    tasks = of_hops(organisation[0], 1)
    assert share_visible(tasks, shown([task.instruction for task in tasks])) >= 0.8


def test_longer_chains_need_more_than_the_bare_question(organisation, shown):
    tasks = of_hops(organisation[0], 2)
    assert share_visible(tasks, shown([task.instruction for task in tasks])) <= 0.2
