"""Scenarios about Splitwise, alone, with notes, and with payments on Venmo."""

from collections import Counter
from collections.abc import Sequence
from textwrap import dedent

from generator.content import add_expense
from generator.draft import Change, Draft, complete, login, pages
from generator.scene import Scene, scenario


def _debts(scene: Scene) -> dict[int, float]:
    """Return Splitwise user id -> the balance that the supervisor owes them, negative if they owe it."""
    app, user = scene.models.splitwise, scene.account("splitwise")
    debts: Counter = Counter()
    for expense in app.Expense.find_all(deleted=False):
        for share in expense.expense_shares:
            if share.debtor_id == user.id != expense.payer_id:
                debts[expense.payer_id] += share.share_amount
            if expense.payer_id == user.id != share.debtor_id:
                debts[share.debtor_id] -= share.share_amount
    for payment in app.Payment.find_all(deleted=False):
        if user.id == payment.payer_id:
            debts[payment.receiver_id] -= payment.amount
        if user.id == payment.receiver_id:
            debts[payment.payer_id] += payment.amount
    return {number: round(amount, 2) for number, amount in debts.items()}


def _advance(scene: Scene, contact, amount: float, lent: bool = False) -> None:
    """Let the contact pay something for the supervisor, outside any group; with `lent`, the other way round."""
    payer, debtor = scene.account("splitwise", contact), scene.account("splitwise")
    if lent:
        payer, debtor = debtor, payer
    add_expense(scene.models, payer, None, payer, [debtor], amount, scene.rng.choice(["Museum", "Train tickets", "Brunch"]), scene.past(3, 50))


RANKS = {
    "most": (-1, 'max(owed, key=lambda entry: entry["amount"])'),
    "second most": (-2, 'sorted(owed, key=lambda entry: entry["amount"])[-2]'),
    "third most": (-3, 'sorted(owed, key=lambda entry: entry["amount"])[-3]'),
    "least": (0, 'min(owed, key=lambda entry: entry["amount"])'),
}
"""The position of a rank among all people sorted by amount, and the code that finds it."""


@scenario("train", 1)
def biggest_creditor(scene: Scene) -> Draft:
    """Find the person with a rank, mostly the first, among the balances in one direction."""
    direction, rank = scene.choose(
        [
            ("you_owe_them", "most"),
            ("you_owe_them", "most"),
            ("you_owe_them", "most"),
            ("you_owe_them", "second most"),
            ("they_owe_you", "most"),
            ("you_owe_them", "third most"),
            ("they_owe_you", "second most"),
            ("you_owe_them", "least"),
            ("they_owe_you", "least"),
        ]
    )
    mine = direction == "you_owe_them"
    contacts = scene.contacts("friend")
    for contact in contacts:
        for _ in range(2):
            _advance(scene, contact, scene.rng.randint(1000, 9000) / 100, lent=not mine)
    _advance(scene, scene.choose(contacts), 200.0, lent=not mine)
    while len(set((debts := _debts(scene)).values())) < len(debts):  # a tie
        _advance(scene, scene.rng.choice([*contacts, *scene.contacts("roommate")]), 1.0)
    owed = sorted((abs(amount), number) for number, amount in debts.items() if amount and (amount > 0) == mine)
    position, code = RANKS[rank]
    question = f"which person do I currently owe the {rank}?" if mine else f"which person currently owes me the {rank}?"
    return Draft(
        instruction=f"Taking all groups and single expenses on Splitwise together: {question} I need first and last name.",
        answer=scene.models.splitwise.User.by_id(owed[position][1]).name,
        public={"direction": direction, "rank": rank},
        steps=[
            login("splitwise"),
            dedent(f"""
            balance = apis.splitwise.show_people_balance(access_token=splitwise_token)
            owed = [entry for entry in balance["breakdown"] if entry["direction"] == "{direction}"]
            best = {code}
            print([(entry["name"], entry["amount"]) for entry in owed])
            """),
            complete('best["name"]'),
        ],
    )


def _recorded(group, members: Sequence, bills: Sequence[tuple[str, int]]) -> list[Change]:
    """Return the changes after the first of four members has entered all bills as shared expenses of the group."""
    payer, *others = members
    expenses = [{"group_id": group.id, "payer_id": payer.id, "amount": float(amount), "description": what} for what, amount in bills]
    shares = [{"expense.description": what, "debtor_id": member.id, "share_amount": float(amount / 4)} for what, amount in bills for member in members]
    notifications = [{"user_id": member.id, "type": "expense_added"} for _ in bills for member in others]
    return [
        Change("splitwise.Expense", added=expenses),
        Change("splitwise.ExpenseShare", added=shares),
        Change("splitwise.Notification", added=notifications),
    ]


@scenario("train", 3)
def expenses_from_note(scene: Scene) -> Draft:
    """Enter the lines of a note as expenses of a group, split evenly."""
    name = scene.choose(
        ["Cabin weekend", "Canoe tour", "City trip", "Ski hut", "Beach house 2024", "Jazz festival", "Family reunion", "Road trip west", "Wine tasting"]
    )
    app, user = scene.models.splitwise, scene.account("splitwise")
    members = [user, *(scene.account("splitwise", contact) for contact in scene.rng.sample(scene.contacts(), 3))]
    group = app.Group.create_save(user_id=user.id, name=name, created_at=scene.past(20, 30), invitation_code=f"{scene.rng.getrandbits(20):05x}")
    for member in members:
        app.GroupMember.create_save(group_id=group.id, user_id=member.id, joined_at=group.created_at)
    bills = [(what, 4 * scene.rng.randint(4, 40)) for what in scene.rng.sample(["Firewood", "Groceries", "Petrol", "Entrance fees", "Bakery", "Parking"], 4)]
    scene.models.simple_note.Note.create_save(
        user_id=scene.account("simple_note").id,
        title=f"Expenses {name}",
        content="I paid for all of us:\n" + "\n".join(f"- {what}: ${amount}" for what, amount in bills),
        tags=["travel"],
        created_at=scene.past(6, 8),
        updated_at=scene.past(2, 4),
    )
    return Draft(
        instruction=(
            f'Everything that I list in my Simple Note "Expenses {name}" was paid by me. Enter each line as an expense in the Splitwise group "{name}", '
            "with the same description, shared equally by all members of the group including me."
        ),
        public={"group": name},
        changes=_recorded(group, members, bills),
        steps=[
            login("simple_note", "splitwise"),
            dedent(f"""
            found = apis.simple_note.search_notes(query="Expenses {name}", access_token=simple_note_token)
            note_id = [entry["note_id"] for entry in found if entry["title"] == "Expenses {name}"][0]
            note = apis.simple_note.show_note(note_id=note_id, access_token=simple_note_token)
            print(note["content"])
            """),
            pages("groups", "splitwise.show_groups"),
            dedent(f"""
            group = [group for group in groups if group["name"] == "{name}"][0]
            emails = [member["email"] for member in group["members"]]
            for line in note["content"].splitlines()[1:]:
                what, amount = line[2:].split(": $")
                apis.splitwise.record_expense(
                    description=what, paid_amount=float(amount), payer_email=profile["email"], debtor_emails=emails,
                    group_id=group["group_id"], access_token=splitwise_token
                )
                print("recorded", what, amount)
            """),
            complete(),
        ],
    )


@scenario("test_normal", 3)
def settle_on_venmo(scene: Scene) -> Draft:
    """Pay the balances of one app in another."""
    what = scene.choose(["Splitwise debts", "All square", "What I owed you"])
    for contact in scene.rng.sample(scene.contacts(), 4):
        _advance(scene, contact, scene.rng.randint(1000, 7000) / 100)
    user, by_id = scene.account("venmo"), scene.models.splitwise.User.by_id
    debts = [(scene.account("venmo", by_id(number)), amount) for number, amount in _debts(scene).items() if amount > 0]
    balances = {user.id: user.venmo_balance - sum(amount for _, amount in debts)} | {other.id: other.venmo_balance + amount for other, amount in debts}
    return Draft(
        instruction=(
            "Clear my debts: whatever I owe anybody on Splitwise, send it to them on Venmo from my balance, one payment a person, "
            f'with the description "{what}". Leave Splitwise itself alone.'
        ),
        public={"description": what},
        changes=[
            Change(
                "venmo.Transaction",
                added=[{"sender_id": user.id, "receiver_id": one.id, "amount": amount, "description": what} for one, amount in debts],
            ),
            Change("venmo.User", updated={number: {"venmo_balance": balance} for number, balance in balances.items()}),
            Change("venmo.Notification", added=[{"user_id": one.id, "type": "received_money"} for one, _ in debts]),
        ],
        steps=[
            login("splitwise", "venmo"),
            dedent("""
            balance = apis.splitwise.show_people_balance(access_token=splitwise_token)
            owed = [entry for entry in balance["breakdown"] if entry["direction"] == "you_owe_them"]
            print([(entry["name"], entry["amount"]) for entry in owed])
            """),
            dedent(f"""
            for entry in owed:
                amount = round(entry["amount"], 2)
                apis.venmo.create_transaction(receiver_email=entry["email"], amount=amount, description="{what}", access_token=venmo_token)
                print("paid", amount, "to", entry["name"])
            """),
            complete(),
        ],
    )
