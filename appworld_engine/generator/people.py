"""The people of a data root, with their relations, their accounts in every app, and their phone books.

The twelve supervisors are the people whom an assistant may serve. They live three to a flat. Each has parents, a sibling
among the other supervisors, a job in one of four companies, and friends outside it.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from appworld.apps.factory_lib import email_from_name, fake_phone_number, fake_street_address, fake_zip_code

FIRST_NAMES = {
    "female": "Alma Bridget Celine Dora Esther Freya Greta Hazel Ingrid Joanna Kira Leona Maren Nadia Odette Paula Quinn Rosa".split(),
    "male": "Anton Bruno Casper Dario Edgar Felix Gideon Hugo Ivan Jonas Kaspar Leon Marco Nils Otto Pablo Rafael Stefan".split(),
}
FAMILY_NAMES = "Abbott Barlow Corwin Dalton Everly Fairley Galloway Hadley Ingram Jarvis Kendall Lomax Mercer Norwood Oakes Presley Quill Redfern".split()
CITIES = [("Portland", "Oregon"), ("Denver", "Colorado"), ("Madison", "Wisconsin"), ("Austin", "Texas")]
COMPANIES = ["Northwind Labs", "Bluefin Press", "Harbor & Finch", "Copperleaf Foods"]
CARDS = ["Visa", "MasterCard", "Discover", "Chase", "HSBC"]
LOGIN_APPS = ["amazon", "phone", "file_system", "spotify", "venmo", "gmail", "splitwise", "simple_note", "todoist"]
SUPERVISORS = 12
PASSWORD_LETTERS = "abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789#%*+"


@dataclass
class Person:
    """One person: the row in the admin app, an account in every app, and the relations to others by user id."""

    user: Any
    accounts: dict[str, Any] = field(default_factory=dict)
    relations: dict[int, list[str]] = field(default_factory=dict)

    def related(self, other: "Person", relation: str) -> None:
        """Record that `other` is this person's `relation`."""
        names = self.relations.setdefault(other.user.id, [])
        if relation not in names:
            names.append(relation)


def populate(models, now, rng: random.Random) -> list[Person]:
    """Create everyone with accounts and phone books; the first `SUPERVISORS` people are the supervisors."""
    people = [_person(models, now, rng, *identity) for identity in _identities(rng)]
    supervisors, parents, others = people[:SUPERVISORS], people[SUPERVISORS : 2 * SUPERVISORS], people[2 * SUPERVISORS :]
    _families(models, supervisors, parents)
    _flats(models, rng, supervisors, parents, others)
    _companies(models, rng, supervisors, others)
    _friendships(models, rng, supervisors, others)
    for person in people:
        _phone_book(models, now, rng, person, people)
    return people


def _identities(rng: random.Random) -> list[tuple[str, str, str]]:
    """Return (first name, last name, sex) of everyone; siblings and their parents share a family name."""
    women, men = rng.sample(FIRST_NAMES["female"], 18), rng.sample(FIRST_NAMES["male"], 18)
    names = rng.sample(FAMILY_NAMES, 18)
    pool = [pair for couple in zip([(name, "female") for name in women], [(name, "male") for name in men], strict=True) for pair in couple]
    family = [names[index // 2 % 6] for index in range(SUPERVISORS)]
    family += [names[index // 2] for index in range(SUPERVISORS)]
    family += names[6:]
    return [(first, last, sex) for (first, sex), last in zip(pool, family, strict=True)]


def _person(models, now, rng: random.Random, first: str, last: str, sex: str) -> Person:
    age = rng.randint(24, 44)
    user = models.admin.MainUser.create_save(
        first_name=first,
        last_name=last,
        sex=sex,
        birthday=f"{now.year - age}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}",
        email=_unused(models, "email", lambda: email_from_name(first, last)),
        phone_number=_unused(models, "phone_number", fake_phone_number),
    )
    for card in rng.sample(CARDS, 2):
        models.admin.PaymentCard.create_save(
            main_user_id=user.id,
            owner_name=user.name,
            card_name=card,
            card_number=rng.randint(10**15, 10**16 - 1),
            expiry_year=now.year + rng.randint(1, 4),
            expiry_month=rng.randint(1, 12),
            cvv_number=rng.randint(100, 999),
            balance=float(rng.randint(2000, 6000)),
        )
    person = Person(user)
    for app in LOGIN_APPS:
        person.accounts[app] = _account(models, now, rng, user, app)
    return person


def _unused(models, name: str, draw: Callable[[], str]) -> str:
    """Return a value that nobody has yet, which AppWorld's factories do not check."""
    return next(value for value in iter(draw, None) if not models.admin.MainUser.exists(**{name: value}))


def _account(models, now, rng: random.Random, user, app: str):
    password = "".join(rng.choices(PASSWORD_LETTERS, k=9))
    models.admin.AccountPassword.create_save(main_user_id=user.id, account_name=app, password=password)
    created_at = now.subtract(days=rng.randint(800, 1100), hours=rng.randint(0, 12))
    fields = {"first_name": user.first_name, "last_name": user.last_name, "password": password, "created_at": created_at}
    fields["last_logged_in"] = now.subtract(days=rng.randint(1, 20))
    fields |= {"phone_number": user.phone_number} if app == "phone" else {"email": user.email}
    fields |= {} if app in ("phone", "gmail") else {"verified": True}
    fields |= {"venmo_balance": float(rng.randint(2500, 4500))} if app == "venmo" else {}
    return models[app].User.create_save(**fields)


def _families(models, supervisors: Sequence[Person], parents: Sequence[Person]) -> None:
    for index in range(0, SUPERVISORS, 2):
        children, (mother, father) = supervisors[index : index + 2], parents[index : index + 2]
        models.admin.Family.create_save(husband_id=father.user.id, wife_id=mother.user.id, child_ids=[child.user.id for child in children])
        mother.related(father, "husband")
        father.related(mother, "wife")
        for child, sibling in (children, children[::-1]):
            child.related(sibling, "sibling")
            for parent in (mother, father):
                child.related(parent, "parent")
                parent.related(child, "child")


def _flats(models, rng: random.Random, supervisors: Sequence[Person], parents: Sequence[Person], others: Sequence[Person]) -> None:
    # Every fourth supervisor, so that siblings do not share a flat.
    flats = [(list(supervisors[start::4]), "roommates") for start in range(4)]
    couples = [(list(parents[start : start + 2]), "family") for start in range(0, SUPERVISORS, 2)]
    for residents, kind in [*flats, *couples, *(([person], "single") for person in others)]:
        residence = models.admin.Residence.create_save(resident_ids=[person.user.id for person in residents], residence_type=kind)
        city, state = rng.choice(CITIES)
        address = models.admin.GlobalAddress.create_save(
            residence_id=residence.id, street_address=fake_street_address(), city=city, state=state, country="United States", zip_code=fake_zip_code()
        )
        for person in residents:
            models.admin.UserAddress.create_save(main_user_id=person.user.id, global_address_id=address.id, name="Home")
            for other in residents:
                if kind == "roommates" and other is not person:
                    person.related(other, "roommate")


def _companies(models, rng: random.Random, supervisors: Sequence[Person], others: Sequence[Person]) -> None:
    for index, name in enumerate(COMPANIES):
        # Three supervisors from different flats and families, and three others, the first of whom is the manager.
        staff = [*others[3 * index : 3 * index + 3], *(supervisors[(3 * index + 5 * step) % SUPERVISORS] for step in range(3))]
        manager = staff[0]
        company = models.admin.Company.create_save(name=name, manager_id=manager.user.id, weekly_standup_time=f"{rng.randint(9, 11):02d}:30")
        city, state = rng.choice(CITIES)
        address = models.admin.GlobalAddress.create_save(
            company_id=company.id, street_address=fake_street_address(), city=city, state=state, country="United States", zip_code=fake_zip_code()
        )
        for person in staff:
            models.admin.CompanyEmployee.create_save(company_id=company.id, main_user_id=person.user.id, is_manager=person is manager)
            models.admin.UserAddress.create_save(main_user_id=person.user.id, global_address_id=address.id, name="Work")
            for other in staff:
                if other is not person:
                    person.related(other, "manager" if other is manager else "coworker")


def _friendships(models, rng: random.Random, supervisors: Sequence[Person], others: Sequence[Person]) -> None:
    for person in supervisors:
        strangers = [other for other in [*supervisors, *others] if other is not person and other.user.id not in person.relations]
        for friend in rng.sample(strangers, 4):
            for one, two in ((person, friend), (friend, person)):
                if "friend" not in one.relations.get(two.user.id, []):
                    models.admin.Friendship.create_save(main_user_id=one.user.id, friend_id=two.user.id)
                    one.related(two, "friend")


def _phone_book(models, now, rng: random.Random, person: Person, people: Sequence[Person]) -> None:
    by_id = {other.user.id: other.user for other in people}
    for number, relations in sorted(person.relations.items()):
        other = by_id[number]
        models.phone.Contact.create_save(
            user_id=person.accounts["phone"].id,
            first_name=other.first_name,
            last_name=other.last_name,
            email=other.email,
            phone_number=other.phone_number,
            relationships=relations,
            birthday=other.birthday,
            home_address=other.home_address.text,
            work_address=other.work_address.text if other.work_address else None,
            created_at=now.subtract(days=rng.randint(300, 700)),
        )
