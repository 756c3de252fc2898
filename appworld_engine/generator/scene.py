"""What a scenario is built from: one supervisor's copy of the databases, a seeded random generator, and a few look-ups."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from generator.draft import Draft

VARIANTS = 3
"""Tasks of a scenario, as AppWorld has them."""
MOST_VARIANTS = 9
"""Of a scenario to learn from."""


@dataclass(frozen=True)
class Scene:
    """One variant in the making.

    Args:
        models: the databases of this task (a ModelCollection): what is added here belongs to this task alone.
        user: the supervisor, as the admin app knows them.
        variant: from 0, up to MOST_VARIANTS - 1.
    """

    models: Any
    user: Any
    now: Any
    rng: random.Random
    variant: int

    def account(self, app: str, other=None):
        """The supervisor's account in `app`, or that of `other` (anything with an email, for phone a phone number)."""
        who = other or self.user
        key = {"phone_number": who.phone_number} if app == "phone" else {"email": who.email}
        return self.models[app].User.find_one(**key)

    def contacts(self, relation: str | None = None) -> list:
        """The supervisor's phone contacts, all or those of one relation, in the order of the phone book."""
        contacts = self.models.phone.Contact.find_all(user_id=self.account("phone").id)
        return [contact for contact in contacts if relation is None or relation in contact.relationships]

    def choose(self, options: Sequence):
        """The option of this variant: variants of a scenario differ."""
        return options[self.variant % len(options)]

    def past(self, first_day: int, last_day: int):
        """A moment between `first_day` and `last_day` days ago, in whole minutes."""
        return self.now.subtract(days=self.rng.randint(first_day, last_day), hours=self.rng.randint(0, 11), minutes=self.rng.randint(0, 59))


@dataclass(frozen=True)
class Scenario:
    """A kind of task; its variants differ in supervisor, data and parameters."""

    name: str
    split: str
    difficulty: int
    build: Callable[[Scene], Draft]


REGISTRY: list[Scenario] = []


def scenario(split: str, difficulty: int) -> Callable[[Callable[[Scene], Draft]], Callable[[Scene], Draft]]:
    """Registers a function that builds one variant; its name is the scenario's."""

    def register(build: Callable[[Scene], Draft]) -> Callable[[Scene], Draft]:
        REGISTRY.append(Scenario(build.__name__, split, difficulty, build))
        return build

    return register
