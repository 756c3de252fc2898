"""Scenarios about Simple Note, alone and as the source of payment requests."""

from textwrap import dedent

from generator.draft import Change, Draft, complete, login, pages
from generator.scene import Scene, scenario
from generator.words import TITLE_HEADS, TITLE_TAILS


def _note(scene: Scene, title: str, content: str, tags: list[str]):
    return scene.models.simple_note.Note.create_save(
        user_id=scene.account("simple_note").id,
        title=title,
        content=content,
        tags=tags,
        created_at=scene.past(30, 60),
        updated_at=scene.past(2, 20),
        pinned=False,
    )


def _show_note(title: str) -> str:
    """Return code that assigns the note with this title to `note`."""
    return dedent(f"""
    found = apis.simple_note.search_notes(query="{title}", access_token=simple_note_token)
    note_id = [entry["note_id"] for entry in found if entry["title"] == "{title}"][0]
    note = apis.simple_note.show_note(note_id=note_id, access_token=simple_note_token)
    print(note["content"])
    """)


CHECKLISTS = [
    ("Packing list", ["passport", "rain jacket", "power bank", "sun cream", "sandals", "first aid kit", "headlamp", "earplugs"]),
    ("Shopping list", ["oat milk", "lentils", "basil", "olive oil", "rye bread", "cinnamon", "pears", "yoghurt"]),
    ("Party to-dos", ["send invitations", "buy candles", "rent tables", "order cake", "hang lights", "make playlist", "borrow chairs", "pick up ice"]),
    ("Moving checklist", ["cancel gas", "book van", "label boxes", "return keys", "forward mail", "defrost freezer", "read meters", "patch holes"]),
    ("Hardware store", ["wood screws", "sandpaper", "masking tape", "hinges", "paint roller", "drill bits", "wall plugs", "varnish"]),
    ("Books to borrow", ["Emma", "Dracula", "Middlemarch", "Walden", "Ulysses", "Moby-Dick", "Beowulf", "The Odyssey"]),
    ("Before the holidays", ["empty fridge", "water cactus", "lock shed", "feed goldfish", "charge camera", "download maps", "exchange money", "stop mail"]),
    ("Places to see", ["Cinque Terre", "Petra", "Angkor Wat", "Machu Picchu", "Bergen", "Dubrovnik", "Zanzibar", "Hokkaido"]),
    ("New employee", ["order laptop", "create accounts", "print badge", "assign mentor", "reserve desk", "plan welcome lunch", "sign contract", "give tour"]),
]
"""Titles and items of notes; no item is a prefix of another item of its note."""


@scenario("train", 1)
def best_book_of_year(scene: Scene) -> Draft:
    """Find the maximum over the lines of a note."""
    year, note_title = scene.choose(
        [
            (2022, "Books I have read"),
            (2023, "Books I have read"),
            (2021, "Books I have read"),
            (2019, "Reading diary"),
            (2023, "Finished novels"),
            (2020, "My bookshelf"),
            (2018, "Read and rated"),
            (2021, "Library loans"),
            (2022, "Page turners"),
        ]
    )
    first_year = 2021 if year >= 2021 else 2018
    titles = scene.rng.sample([f"The {head} {tail}" for head in TITLE_HEADS for tail in TITLE_TAILS], 15)
    ratings = scene.rng.sample(range(40, 100), 15)
    books = [(title, first_year + number % 3, rating / 10) for number, (title, rating) in enumerate(zip(titles, ratings, strict=True))]
    best = max((book for book in books if book[1] == year), key=lambda book: book[2])
    lines = [f"- {title} | finished {when}-{scene.rng.randint(1, 12):02d} | {rating}/10" for title, when, rating in books]
    scene.rng.shuffle(lines)
    _note(scene, note_title, "\n".join(lines), ["reading"])
    return Draft(
        instruction=f'In Simple Note there is my list "{note_title}". Which of the books that I finished in {year} got the highest rating?',
        answer=best[0],
        public={"year": year, "title": note_title},
        steps=[
            login("simple_note"),
            _show_note(note_title),
            dedent(f"""
            books = []
            for line in note["content"].splitlines():
                title, finished, rating = line[2:].split(" | ")
                if "{year}" in finished:
                    books.append((float(rating.split("/")[0]), title))
            best = max(books)[1]
            print(len(books), best)
            """),
            complete("best"),
        ],
    )


@scenario("train", 2)
def tick_off_items(scene: Scene) -> Draft:
    """Edit some lines of a note and leave the others unchanged."""
    title, things = scene.choose(CHECKLISTS)
    done = scene.rng.sample(things, 3)
    before = {thing: thing not in done and scene.rng.random() < 0.3 for thing in things}
    content = "\n".join(f"[{'x' if before[thing] else ' '}] {thing}" for thing in things)
    expected = "\n".join(f"[{'x' if before[thing] or thing in done else ' '}] {thing}" for thing in things)
    note = _note(scene, title, content, ["home"])
    return Draft(
        instruction=(
            f'Tick off "{done[0]}", "{done[1]}" and "{done[2]}" on my Simple Note "{title}". '
            'Open items look like "[ ] thing" there, done ones like "[x] thing".'
        ),
        public={"title": title, "done": done},
        changes=[Change("simple_note.Note", updated={note.id: {"content": expected}}, upkeep=("updated_at",))],
        steps=[
            login("simple_note"),
            _show_note(title),
            dedent(f"""
            content = note["content"]
            for thing in {done!r}:
                content = content.replace("[ ] " + thing, "[x] " + thing)
            apis.simple_note.update_note(note_id=note_id, content=content, access_token=simple_note_token)
            print(content)
            """),
            complete(),
        ],
    )


@scenario("train", 3)
def request_shares_from_note(scene: Scene) -> Draft:
    """Request money on Venmo from the people who, according to a note, have not paid."""
    trip = scene.choose(["Yosemite", "Lake Tahoe", "Yellowstone", "Key West", "Grand Canyon", "New Orleans", "Acadia", "Big Sur", "Mount Rainier"])
    user = scene.account("venmo")
    lines, expected = ["What everyone owes me:"], []
    for number, contact in enumerate(scene.rng.sample(scene.contacts(), 6)):
        amount, paid = scene.rng.randint(10, 90), number in (1, 4)
        lines.append(f"- {contact.name}: ${amount} ({'paid' if paid else 'open'})")
        if not paid:
            other = scene.account("venmo", contact)
            expected.append({"sender_id": user.id, "receiver_id": other.id, "amount": float(amount), "description": f"{trip} trip", "private": True})
    _note(scene, f"{trip} trip costs", "\n".join(lines), ["travel"])
    return Draft(
        instruction=(
            f'I wrote down everyone\'s share of our trip in my Simple Note "{trip} trip costs". From each person whose share is still open, request it on '
            f'Venmo as a private payment request with the description "{trip} trip". You find their emails in my phone contacts.'
        ),
        public={"trip": trip},
        changes=[
            Change("venmo.PaymentRequest", added=expected),
            Change("venmo.Notification", added=[{"user_id": one["receiver_id"], "type": "payment_request_received"} for one in expected]),
        ],
        steps=[
            login("simple_note", "phone", "venmo"),
            _show_note(f"{trip} trip costs"),
            pages("contacts", "phone.search_contacts"),
            dedent(f"""
            emails = {{contact["first_name"] + " " + contact["last_name"]: contact["email"] for contact in contacts}}
            for line in note["content"].splitlines():
                if line.endswith("(open)"):
                    name, rest = line[2:].split(": $")
                    amount = float(rest.split()[0])
                    apis.venmo.create_payment_request(
                        user_email=emails[name], amount=amount, description="{trip} trip", private=True, access_token=venmo_token
                    )
                    print("requested", amount, "from", name)
            """),
            complete(),
        ],
    )
