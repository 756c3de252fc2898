"""The input of a scenario: one supervisor's copy of the databases, a seeded random generator, and a few look-ups."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from generator.draft import Draft

VARIANTS = 3
"""Tasks per scenario, as in AppWorld."""
MAX_VARIANTS = 9
"""Maximum number of tasks per training scenario."""


@dataclass(frozen=True)
class Scene:
    """One variant of a scenario while it is built.

    Args:
        models: the databases of this task (a ModelCollection); additions belong to this task alone.
        user: the supervisor, as the admin app knows them.
        variant: from 0 to MAX_VARIANTS - 1.
    """

    models: Any
    user: Any
    now: Any
    rng: random.Random
    variant: int

    def account(self, app: str, other=None):
        """Return the supervisor's account in `app`, or that of `other`, which has an email (for phone, a phone number)."""
        who = other or self.user
        key = {"phone_number": who.phone_number} if app == "phone" else {"email": who.email}
        return self.models[app].User.find_one(**key)

    def contacts(self, relation: str | None = None) -> list:
        """Return the supervisor's phone contacts, all or those of one relation, in the order of the phone book."""
        contacts = self.models.phone.Contact.find_all(user_id=self.account("phone").id)
        return [contact for contact in contacts if relation is None or relation in contact.relationships]

    def choose(self, options: Sequence):
        """Return the option of this variant, so that the variants of a scenario differ."""
        return options[self.variant % len(options)]

    def past(self, first_day: int, last_day: int):
        """Return a time between `first_day` and `last_day` days ago, in whole minutes."""
        return self.now.subtract(days=self.rng.randint(first_day, last_day), hours=self.rng.randint(0, 11), minutes=self.rng.randint(0, 59))


@dataclass(frozen=True)
class Scenario:
    """A kind of task, whose variants differ in supervisor, data, and parameters."""

    name: str
    split: str
    difficulty: int
    build: Callable[[Scene], Draft]


REGISTRY: list[Scenario] = []


def scenario(split: str, difficulty: int) -> Callable[[Callable[[Scene], Draft]], Callable[[Scene], Draft]]:
    """Register a function that builds one variant; the scenario has its name."""

    def register(build: Callable[[Scene], Draft]) -> Callable[[Scene], Draft]:
        REGISTRY.append(Scenario(build.__name__, split, difficulty, build))
        return build

    return register
