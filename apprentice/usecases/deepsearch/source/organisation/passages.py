"""Writes the knowledge base of a fictional organisation: one short passage per entity, and passages about namesakes."""

from collections.abc import Iterator
from random import Random

from apprentice.records import Passage
from apprentice.usecases.deepsearch.source.organisation import names
from apprentice.usecases.deepsearch.source.organisation.facts import Entity, Organisation, plain_value
from apprentice.usecases.deepsearch.source.organisation.relations import ALIASES, DISTRACTORS, OF_KIND, OPENINGS

DISTRACTOR_SHARE = 0.6
"""Probability that a passage contains a distractor: a fact that no question asks for."""
NAMESAKE_PEOPLE, NAMESAKE_CLUBS = 30, 14
"""Numbers of passages about namesakes of employees and of teams."""


def passage_id(entity: Entity) -> str:
    """Return the id of the passage about an entity."""
    return entity.id.replace(":", "-")


def write_knowledge_base(organisation: Organisation, seed: int) -> list[Passage]:
    """Write all passages, in random order."""
    passages = [_passage(organisation, entity, Random(f"{seed}/passage/{entity.id}")) for entity in organisation.entities.values()]
    passages += _namesakes(organisation, Random(f"{seed}/namesakes"))
    Random(f"{seed}/order").shuffle(passages)
    return passages


def _passage(organisation: Organisation, entity: Entity, rng: Random) -> Passage:
    facts = []
    for relation in OF_KIND[entity.kind]:
        value = organisation.value(entity, relation)
        if value is not None:
            facts.append(rng.choice(relation.sentences).format(v=value))
    if rng.random() < DISTRACTOR_SHARE:
        facts.append(_distractor(organisation, entity, rng))
    rng.shuffle(facts)
    alias = [rng.choice(ALIASES).format(a=entity.mention(entity.alias))] if entity.alias else []
    text = " ".join([rng.choice(OPENINGS[entity.kind]).format(x=entity.name), *alias, *facts])
    return Passage(id=passage_id(entity), title=entity.name, text=text)


def _distractor(organisation: Organisation, entity: Entity, rng: Random) -> str:
    return rng.choice(DISTRACTORS[entity.kind]).format(
        year=plain_value("year", rng),
        city=plain_value("city", rng),
        person=rng.choice(organisation.of_kind("person")).name,
        office=rng.choice(organisation.of_kind("office")).name,
    )


def _namesakes(organisation: Organisation, rng: Random) -> Iterator[Passage]:
    """Yield passages about outsiders who share a first name with an employee, and clubs that share a word with a
    team."""
    taken = {entity.name for entity in organisation.of_kind("person")}
    firsts = sorted({name.split()[0] for name in taken})
    outsiders = [f"{first} {last}" for first in firsts for last in names.LAST_NAMES if f"{first} {last}" not in taken]
    for name in rng.sample(outsiders, NAMESAKE_PEOPLE):
        text = (
            f"{name} is a supplier's contact at {rng.choice(names.COMPANIES)} in {rng.choice(names.CITIES)}, not an employee. "
            f"Under contract since {plain_value('year', rng)}."
        )
        yield Passage(id=f"contact-{name.lower().replace(' ', '-')}", title=name, text=text)
    for word in rng.sample(names.TEAM_WORDS, NAMESAKE_CLUBS):
        text = (
            f"The {word} Club is a {rng.choice(names.CLUBS)} club of the staff in {rng.choice(names.CITIES)}. "
            f"Started in {plain_value('year', rng)} by {rng.choice(organisation.of_kind('person')).name}."
        )
        yield Passage(id=f"club-{word.lower()}", title=f"{word} Club", text=text)
