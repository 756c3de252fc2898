"""Generates questions about a fictional organisation: each asks for the end of a chain of facts in words.

Splits: every chain ends in one fact (entity, relation), recorded or not. A quarter of these facts belong to `dev`, the
rest to `train`, and a question belongs to the split of its last fact. No chain is therefore in both splits, and no
train question reveals the answer of a dev question. The scenario is the chain, and each chain is asked once. The
questions of one split do not depend on the size of the other.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from random import Random

from apprentice.records import Passage, Task
from apprentice.records.task import UNKNOWN
from apprentice.usecases.deepsearch.source.organisation.facts import Entity, Organisation, sample_organisation
from apprentice.usecases.deepsearch.source.organisation.passages import passage_id, write_knowledge_base
from apprentice.usecases.deepsearch.source.organisation.relations import OF_KIND, Relation

MAX_HOPS = 3
DEV_SHARE = 0.25
ALIAS_SHARE = 0.5
"""Probability that a question names its entity by the alias, if there is one."""
SHARES = {"2 hops": 0.3, "3 hops": 0.1, "unanswerable": 0.1}
"""Group -> its share of the tasks; the remaining tasks have one hop."""


@dataclass(frozen=True, slots=True)
class Chain:
    """A path through the fact graph: each relation leads to the next entity, and the last one to the answer."""

    entities: tuple[Entity, ...]
    relations: tuple[Relation, ...]
    answers: tuple[str, ...] | None
    """Accepted answers, the one written in the passage first; None if the last fact is not recorded."""

    @property
    def scenario(self) -> str:
        return "/".join((self.entities[0].id, *(relation.name for relation in self.relations)))

    @property
    def final_fact(self) -> str:
        return f"{self.entities[-1].id}/{self.relations[-1].name}"

    @property
    def group(self) -> str:
        """The group in `SHARES` that it counts towards, or `1 hop`."""
        hops = len(self.relations)
        return "unanswerable" if self.answers is None else "1 hop" if hops == 1 else f"{hops} hops"


def generate(seed: int, train: int, dev: int) -> tuple[list[Task], list[Passage]]:
    """Generate tasks and their knowledge base; the result is deterministic for a seed.

    Args:
        seed: seed of the organisation, its passages, and the questions.
        train: number of training tasks; fewer if the organisation has fewer chains.
        dev: number of held-out tasks; fewer likewise.
    """
    organisation = sample_organisation(seed)
    chains = list(_chains(organisation))
    dev_facts = _dev_facts(chains, Random(f"{seed}/splits"))
    tasks = []
    for split, count in (("train", train), ("dev", dev)):
        own = [chain for chain in chains if (chain.final_fact in dev_facts) == (split == "dev")]
        tasks += [_task(chain, split, seed) for chain in _chosen(own, count, Random(f"{seed}/{split}"))]
    return tasks, write_knowledge_base(organisation, seed)


def _chains(organisation: Organisation) -> Iterator[Chain]:
    for entity in organisation.entities.values():
        yield from _extended(organisation, (entity,), ())


def _extended(organisation: Organisation, entities: tuple[Entity, ...], relations: tuple[Relation, ...]) -> Iterator[Chain]:
    """Yield every chain that extends this path without returning to an entity."""
    for relation in OF_KIND[entities[-1].kind]:
        value = organisation.facts.get((entities[-1].id, relation.name))
        reached = organisation.entities.get(value) if value else None
        if reached in entities:
            continue
        path = (*relations, relation)
        if value is not None or len(path) < MAX_HOPS:
            yield Chain(entities, path, _answers(reached, relation, value))
        if reached and len(path) < MAX_HOPS:
            yield from _extended(organisation, (*entities, reached), path)


def _answers(reached: Entity | None, relation: Relation, value: str | None) -> tuple[str, ...] | None:
    if value is None:
        return None
    if reached:
        short = (reached.name.removesuffix(" Team"),) if reached.kind == "team" else ()
        return tuple(dict.fromkeys((reached.name, *short, *((reached.alias,) if reached.alias else ()))))
    return (value, f"{value} {relation.unit}") if relation.unit else (value,)


def _dev_facts(chains: Iterable[Chain], rng: Random) -> set[str]:
    """Sample the held-out facts, the same share of every relation."""
    by_relation: dict[tuple, set[str]] = {}
    for chain in chains:
        by_relation.setdefault((chain.relations[-1].subject, chain.relations[-1].name, chain.answers is None), set()).add(chain.final_fact)
    return {fact for facts in by_relation.values() for fact in rng.sample(sorted(facts), round(DEV_SHARE * len(facts)))}


def _chosen(chains: Sequence[Chain], count: int, rng: Random) -> list[Chain]:
    """Choose `count` chains with the shares of SHARES, shuffled; remaining answerable chains replace those that a group
    lacks."""
    groups: dict[str, list[Chain]] = {"1 hop": [], "2 hops": [], "3 hops": [], "unanswerable": []}
    for chain in chains:
        groups[chain.group].append(chain)
    ordered = {name: _varied(members, rng) for name, members in groups.items()}
    sizes = {name: round(count * share) for name, share in SHARES.items()}
    sizes["1 hop"] = count - sum(sizes.values())
    chosen = [chain for name, members in ordered.items() for chain in members[: sizes[name]]]
    spare = [chain for name, members in ordered.items() for chain in members[sizes[name] :] if name != "unanswerable"]
    chosen += spare[: count - len(chosen)]
    rng.shuffle(chosen)
    return chosen


def _varied(chains: Iterable[Chain], rng: Random) -> list[Chain]:
    """Shuffle the chains so that kinds of questions alternate, and so do numbers of hops."""
    by_pattern: dict[tuple, list[Chain]] = {}
    for chain in chains:
        by_pattern.setdefault(chain.relations, []).append(chain)
    keyed = []
    for members in by_pattern.values():
        rng.shuffle(members)
        keyed += [(turn, rng.random(), chain) for turn, chain in enumerate(members)]
    by_hops: dict[int, list[Chain]] = {}
    for _, _, chain in sorted(keyed, key=lambda item: item[:2]):
        by_hops.setdefault(len(chain.relations), []).append(chain)
    return [chain for turn in zip_longest(*by_hops.values()) for chain in turn if chain]


def _task(chain: Chain, split: str, seed: int) -> Task:
    rng = Random(f"{seed}/question/{chain.scenario}")
    start = chain.entities[0]
    name = start.alias if start.alias and rng.random() < ALIAS_SHARE else start.name
    words = start.mention(name)
    for relation in chain.relations[:-1]:
        words = rng.choice(relation.phrases).format(x=words)
    first, *bridges = zip((name, *(entity.name for entity in chain.entities[1:])), chain.relations, strict=True)
    return Task(
        id=f"org-{chain.scenario}",
        scenario=chain.scenario,
        split=split,
        instruction=rng.choice(chain.relations[-1].questions).format(x=words),
        answers=chain.answers or UNKNOWN,
        answerable=chain.answers is not None,
        hops=len(chain.relations),
        supporting=tuple(passage_id(entity) for entity in chain.entities),
        plan=tuple(f"{entity} {relation.keyword}" for entity, relation in (first, *bridges)),
    )
