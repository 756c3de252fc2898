"""Samples the fact graph of a fictional organisation: who works where, who leads what, and what was never recorded."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from random import Random
from types import MappingProxyType

from apprentice.usecases.deepsearch.source.organisation import names
from apprentice.usecases.deepsearch.source.organisation.relations import ALWAYS_RECORDED, OF_KIND, Relation

PEOPLE, PRODUCTS, EVENTS = 230, 90, 76
UNRECORDED_SHARE = 0.15
"""Share of unrecorded facts outside the backbone (`ALWAYS_RECORDED`)."""
ALIAS_SHARE = 0.3
"""Probability that an entity has an alias, while unused aliases remain."""
WITH_ARTICLE = {"team", "policy", "event"}
"""Kinds of entities whose names take the article `the` in a sentence."""


@dataclass(frozen=True, slots=True)
class Entity:
    """A person, team, office, product, policy, or event."""

    id: str
    kind: str
    name: str
    """Unique over all entities."""
    alias: str = ""
    """Another unique name; empty if there is none."""

    def mention(self, name: str = "") -> str:
        """Return `name`, or else the entity's name, with an article if its kind needs one."""
        return f"the {name or self.name}" if self.kind in WITH_ARTICLE else name or self.name


@dataclass(frozen=True, slots=True)
class Organisation:
    """Entities and the facts recorded about them."""

    entities: Mapping[str, Entity]
    """Id -> entity."""
    facts: Mapping[tuple[str, str], str]
    """(entity id, relation name) -> id of an entity, or a plain value as text. Unrecorded facts are absent."""

    def of_kind(self, kind: str) -> list[Entity]:
        return [entity for entity in self.entities.values() if entity.kind == kind]

    def value(self, entity: Entity, relation: Relation) -> str | None:
        """Return the value as written in a passage; None if it is not recorded."""
        value = self.facts.get((entity.id, relation.name))
        return self.entities[value].name if value in self.entities else value


def sample_organisation(seed: int) -> Organisation:
    """Sample an organisation; the result is deterministic for a seed."""
    entities = {entity.id: entity for entity in _entities(Random(f"{seed}/entities"))}
    facts = dict(_facts(entities, Random(f"{seed}/facts")))
    return Organisation(MappingProxyType(entities), MappingProxyType(facts))


def _entities(rng: Random) -> Iterator[Entity]:
    people = rng.sample([f"{first} {last}" for first in names.FIRST_NAMES for last in names.LAST_NAMES], PEOPLE)
    products = rng.sample([head + tail for head in names.PRODUCT_HEADS for tail in names.PRODUCT_TAILS], PRODUCTS)
    events = rng.sample([f"{word} {ending}" for word in names.EVENT_WORDS for ending in names.EVENT_ENDINGS], EVENTS)
    yield from _named("person", people, names.NICKNAMES, rng)
    yield from _named("team", [f"{word} Team" for word in names.TEAM_WORDS], names.TEAM_NICKNAMES, rng)
    yield from _named("office", [f"{word} {rng.choice(names.OFFICE_ENDINGS)}" for word in names.OFFICE_WORDS], (), rng)
    yield from _named("product", products, [f"Project {word}" for word in names.CODE_NAMES], rng)
    yield from _named("policy", [f"{topic} Policy" for topic in names.POLICY_TOPICS], (), rng)
    yield from _named("event", events, (), rng)


def _named(kind: str, full_names: list[str], aliases: tuple[str, ...] | list[str], rng: Random) -> Iterator[Entity]:
    free = rng.sample(aliases, len(aliases))
    for name in full_names:
        alias = free.pop() if free and rng.random() < ALIAS_SHARE else ""
        yield Entity(f"{kind}:{name.lower().replace(' ', '-')}", kind, name, alias)


def _facts(entities: Mapping[str, Entity], rng: Random) -> Iterator[tuple[tuple[str, str], str]]:
    by_kind = {kind: [entity.id for entity in entities.values() if entity.kind == kind] for kind in OF_KIND}
    teams = by_kind["team"]
    members: dict[str, list[str]] = {team: [] for team in teams}
    for place, person in enumerate(rng.sample(by_kind["person"], PEOPLE)):
        team = teams[place] if place < len(teams) else rng.choice(teams)  # every team has a member who can lead it
        members[team].append(person)
        yield (person, "team"), team
    for entity in entities.values():
        for relation in OF_KIND[entity.kind]:
            pair = (entity.kind, relation.name)
            if pair == ("person", "team") or (pair not in ALWAYS_RECORDED and rng.random() < UNRECORDED_SHARE):
                continue
            candidates = members[entity.id] if pair == ("team", "lead") else by_kind.get(relation.object, ())
            yield (entity.id, relation.name), _value(entity, relation, candidates, rng)


def _value(entity: Entity, relation: Relation, candidates: list[str] | tuple[()], rng: Random) -> str:
    if candidates:
        return rng.choice([candidate for candidate in candidates if candidate != entity.id])
    if relation.object == "number":
        return str(_number(relation.name, rng))
    return plain_value("role" if relation.name == "role" else relation.object, rng)


def plain_value(kind: str, rng: Random) -> str:
    """Sample a year, a city, a role, or a field of work."""
    if kind == "year":
        return str(rng.randint(1978, 2024))
    return rng.choice({"city": names.CITIES, "role": names.ROLES, "words": names.SUBJECTS}[kind])


def _number(relation: str, rng: Random) -> int:
    return {
        "members": lambda: rng.randint(5, 60),
        "floors": lambda: rng.randint(2, 19),
        "price": lambda: rng.randint(4, 99) * 5,
        "review": lambda: rng.randint(3, 40),
        "guests": lambda: rng.randint(3, 60) * 10,
    }[relation]()
