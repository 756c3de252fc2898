"""Scenarios about Venmo, alone and with the phone book: payments, debts, approvals, and reminders."""

from collections import Counter
from collections.abc import Sequence
from textwrap import dedent

from generator.draft import Change, Draft, complete, login, pages
from generator.scene import Scene, scenario


@scenario("train", 1)
def top_recipient_of_month(scene: Scene) -> Draft:
    """Sum the payments of one month per person, sent or received."""
    user = scene.account("venmo")
    month, name, direction = scene.choose(
        [
            ("2024-04", "April 2024", "sent"),
            ("2024-03", "March 2024", "sent"),
            ("2024-02", "February 2024", "sent"),
            ("2024-01", "January 2024", "sent"),
            ("2024-04", "April 2024", "received"),
            ("2023-12", "December 2023", "sent"),
            ("2024-02", "February 2024", "received"),
            ("2024-05", "May 2024", "sent"),
            ("2024-01", "January 2024", "received"),
        ]
    )
    here, there = ("sender", "receiver") if direction == "sent" else ("receiver", "sender")
    sums = Counter()
    for entry in scene.models.venmo.Transaction.find_all(**{f"{here}_id": user.id}):
        if entry.created_at.strftime("%Y-%m") == month:
            sums[getattr(entry, there).name] += entry.amount
    top = max(sorted(sums), key=lambda person: sums[person]) if sums else scene.contacts()[0].name
    friend = next(contact for contact in scene.contacts() if contact.name == top)
    sides = {f"{here}_id": user.id, f"{there}_id": scene.account("venmo", friend).id}
    for day in (6, 17):  # excludes ties
        when = scene.now.set(year=int(month[:4]), month=int(month[5:]), day=day)
        scene.models.venmo.Transaction.create_save(**sides, amount=60.5 + day, description="Rent share", created_at=when, updated_at=when)
    question = "Who did I send the most money to" if direction == "sent" else "Who sent me the most money"
    return Draft(
        instruction=f"{question} on Venmo in {name}, all payments taken together? Give me the full name.",
        answer=top,
        public={"month": month, "direction": direction},
        steps=[
            login("venmo"),
            pages("payments", "venmo.show_transactions", f'direction="{direction}"'),
            dedent(f"""
            totals = {{}}
            for payment in payments:
                if payment["created_at"][:7] == "{month}":
                    name = payment["{there}"]["name"]
                    totals[name] = totals.get(name, 0) + payment["amount"]
            best = max(totals, key=totals.get)
            print(totals, best)
            """),
            complete("best"),
        ],
    )


def _pending_requests(scene: Scene, relations: Sequence[str]) -> tuple[list, dict[int, float]]:
    """Let every contact request money once or twice.

    Returns:
        The requests of contacts with one of `relations`, and the balances by user id after all of these are paid.
    """
    app, user = scene.models.venmo, scene.account("venmo")
    chosen, balances = [], {user.id: user.venmo_balance}
    for contact in scene.contacts():
        other = scene.account("venmo", contact)
        for _ in range(scene.rng.randint(1, 2)):
            when = scene.past(1, 40)
            request = app.PaymentRequest.create_save(
                sender_id=other.id,
                receiver_id=user.id,
                amount=scene.rng.randint(500, 4000) / 100,
                description=scene.rng.choice(["Dinner", "Gas", "Tickets"]),
                created_at=when,
                updated_at=when,
            )
            if set(relations) & set(contact.relationships):
                chosen.append(request)
                balances[user.id] -= request.amount
                balances[other.id] = balances.get(other.id, other.venmo_balance) + request.amount
    return chosen, balances


@scenario("train", 3)
def approve_requests_of_relation(scene: Scene) -> Draft:
    """Approve the requests of people with one or two relations, and no others."""
    relations = scene.choose(
        [
            ["coworker"],
            ["friend"],
            ["roommate"],
            ["parent"],
            ["friend", "sibling"],
            ["sibling"],
            ["roommate", "coworker"],
            ["parent", "friend"],
            ["coworker", "manager"],
        ]
    )
    lists, user = ["contacts", "others"][: len(relations)], scene.account("venmo")
    chosen, balances = _pending_requests(scene, relations)
    return Draft(
        instruction=(
            f"Accept all the Venmo payment requests that are still waiting from any of my {' or '.join(f'{relation}s' for relation in relations)}, "
            "and pay them from my Venmo balance."
        ),
        public={"relations": relations},
        changes=[
            Change("venmo.PaymentRequest", updated={request.id: {"approved_at": scene.now, "denied_at": None} for request in chosen}, upkeep=("updated_at",)),
            Change(
                "venmo.Transaction",
                added=[
                    {"sender_id": user.id, "receiver_id": one.sender_id, "amount": one.amount, "description": one.description, "payment_card_digits": None}
                    for one in chosen
                ],
            ),
            Change("venmo.User", updated={number: {"venmo_balance": balance} for number, balance in balances.items()}),
            Change("venmo.Notification", added=[{"user_id": one.sender_id, "type": "payment_request_approved"} for one in chosen]),
        ],
        steps=[
            login("phone", "venmo"),
            *(pages(name, "phone.search_contacts", f'relationship="{relation}"') for name, relation in zip(lists, relations, strict=True)),
            pages("requests", "venmo.show_received_payment_requests", 'status="pending"'),
            dedent(f"""
            emails = [contact["email"] for contact in {" + ".join(lists)}]
            chosen = [request for request in requests if request["sender"]["email"] in emails]
            for request in chosen:
                apis.venmo.approve_payment_request(payment_request_id=request["payment_request_id"], access_token=venmo_token)
            print([(request["sender"]["name"], request["amount"]) for request in chosen])
            """),
            complete(),
        ],
    )


@scenario("train", 2)
def remind_old_requests(scene: Scene) -> Draft:
    """Send reminders for requests of a certain age."""
    days = scene.choose([14, 21, 30, 10, 45, 18, 60, 25, 90])
    app, user = scene.models.venmo, scene.account("venmo")
    reminded = []
    for contact in scene.contacts():
        age = scene.rng.choice([*(range(2, days - 1) if reminded else ()), *range(days + 2, 2 * days)])
        when = scene.now.subtract(days=age)
        request = app.PaymentRequest.create_save(
            sender_id=user.id,
            receiver_id=scene.account("venmo", contact).id,
            amount=scene.rng.randint(500, 6000) / 100,
            description=scene.rng.choice(["Pizza", "Gas", "Tickets"]),
            created_at=when,
            updated_at=when,
            approved_at=when.add(days=1) if scene.rng.random() < 0.3 and reminded else None,
        )
        if age > days and not request.approved_at:
            reminded.append(request)
    return Draft(
        instruction=f"People are slow to pay me back. Send a Venmo reminder for each of my payment requests that is still pending after more than {days} days.",
        public={"days": days},
        changes=[
            Change(
                "venmo.Notification",
                added=[
                    {
                        "user_id": request.receiver_id,
                        "type": "payment_request_reminded",
                        "data": {"payment_request_id": request.id, "action_by_id": user.id},
                    }
                    for request in reminded
                ],
            )
        ],
        steps=[
            login("venmo"),
            pages("requests", "venmo.show_sent_payment_requests", 'status="pending"'),
            dedent(f"""
            limit = DateTime.now().subtract(days={days}).isoformat()
            late = [request for request in requests if request["created_at"] < limit]
            for request in late:
                apis.venmo.remind_payment_request(payment_request_id=request["payment_request_id"], access_token=venmo_token)
            print(limit, [(request["receiver"]["name"], request["created_at"]) for request in late])
            """),
            complete(),
        ],
    )


@scenario("train", 3)
def sent_to_relation_last_month(scene: Scene) -> Draft:
    """Sum the payments of one month to the contacts with one relation."""
    relation, ago = scene.choose(
        [
            ("friend", 1),
            ("roommate", 1),
            ("coworker", 1),
            ("parent", 1),
            ("friend", 2),
            ("sibling", 1),
            ("coworker", 2),
            ("parent", 2),
            ("roommate", 2),
        ]
    )
    user = scene.account("venmo")
    contacts = scene.contacts(relation)
    start, end = (scene.now.subtract(months=months).start_of("month") for months in (ago, ago - 1))
    for contact in contacts:
        for _ in range(2):
            when = start.add(days=scene.rng.randint(0, 28), hours=9)
            scene.models.venmo.Transaction.create_save(
                sender_id=user.id,
                receiver_id=scene.account("venmo", contact).id,
                amount=scene.rng.randint(400, 5000) / 100,
                description="Snacks",
                created_at=when,
                updated_at=when,
            )
    emails = {contact.email for contact in contacts}
    sent = [one.amount for one in scene.models.venmo.Transaction.find_all(sender_id=user.id) if start <= one.created_at < end and one.receiver.email in emails]
    month = "the last calendar month" if ago == 1 else "the calendar month before last"
    return Draft(
        instruction=f"Add it up for me: how many dollars went from me to my {relation}s over Venmo in {month}?",
        answer=round(sum(sent), 2),
        public={"relation": relation, "month": month},
        steps=[
            login("phone", "venmo"),
            pages("contacts", "phone.search_contacts", f'relationship="{relation}"'),
            pages("payments", "venmo.show_transactions", 'direction="sent"'),
            dedent(f"""
            month = DateTime.now().subtract(months={ago}).strftime("%Y-%m")
            emails = [contact["email"] for contact in contacts]
            chosen = [payment for payment in payments if payment["receiver"]["email"] in emails and payment["created_at"][:7] == month]
            total = round(sum(payment["amount"] for payment in chosen), 2)
            print(month, len(chosen), total)
            """),
            complete("total"),
        ],
    )


@scenario("dev", 3)
def pay_from_table(scene: Scene) -> Draft:
    """Pay each line of a table in a file."""
    what = scene.choose(["Cello lessons", "Football league", "Cabin deposit"])
    user, home = scene.account("venmo"), scene.account("file_system").home_directory_path
    path = f"{home}documents/{what.lower().replace(' ', '_')}.csv"
    balances, paid, lines = {user.id: user.venmo_balance}, [], ["name,email,amount,status"]
    for contact in scene.rng.sample(scene.contacts(), 6):
        amount, owed = scene.rng.randint(1000, 9000) / 100, scene.rng.random() < 0.6 or not paid
        lines.append(f"{contact.name},{contact.email},{amount:.2f},{'owed' if owed else 'settled'}")
        if owed:
            other = scene.account("venmo", contact)
            balances[user.id] -= amount
            balances[other.id] = other.venmo_balance + amount
            paid.append({"sender_id": user.id, "receiver_id": other.id, "amount": amount, "description": what, "payment_card_digits": None})
    scene.models.file_system.File.create_save(
        path=path, user_id=scene.account("file_system").id, content="\n".join(lines), created_at=scene.past(5, 9), updated_at=scene.past(1, 4)
    )
    short = path.replace(home, "~/")
    return Draft(
        instruction=f'In {short} I keep what I owe to whom. Pay everyone whose status there is "owed" on Venmo, out of my balance, with the note "{what}".',
        public={"file": short, "description": what},
        changes=[
            Change("venmo.Transaction", added=paid),
            Change("venmo.User", updated={number: {"venmo_balance": balance} for number, balance in balances.items()}),
            Change("venmo.Notification", added=[{"user_id": one["receiver_id"], "type": "received_money"} for one in paid]),
        ],
        steps=[
            login("file_system", "venmo"),
            dedent(f"""
            table = apis.file_system.show_file(file_path="{short}", access_token=file_system_token)["content"]
            print(table)
            """),
            dedent(f"""
            for line in table.splitlines()[1:]:
                name, email, amount, status = line.split(",")
                if status == "owed":
                    apis.venmo.create_transaction(receiver_email=email, amount=float(amount), description="{what}", access_token=venmo_token)
                    print("paid", name, amount)
            """),
            complete(),
        ],
    )
