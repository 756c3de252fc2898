"""Fills the apps before any task, so that lists have several pages and a task's data does not stand out."""

import random
from collections.abc import Sequence

from generator.people import Person
from generator.words import (
    ALARM_LABELS,
    ARTISTS,
    CHATTER,
    DESCRIPTIONS,
    FILE_STEMS,
    GENRES,
    MAIL_SUBJECTS,
    NOTE_TITLES,
    PLAYLISTS,
    PRODUCTS,
    PROJECTS,
    SELLERS,
    TITLE_HEADS,
    TITLE_TAILS,
    TODO_TITLES,
)


def populate(models, now, rng: random.Random, people: Sequence[Person], supervisors: Sequence[Person]) -> None:
    """Fill every app: the shared catalogues first, then the data of each supervisor."""
    _music(models, now, rng, people)
    _catalogue(models, rng)
    for person in people:
        _cards(models, person)
        _home(models, now, person)
        models.todoist.Project.create_save(user_id=person.accounts["todoist"].id, name="Inbox", is_inbox=True, created_at=now.subtract(days=700))
    for person in supervisors:
        contacts = [other for other in people if other.user.id in person.relations]
        _listening(models, now, rng, person)
        _payments(models, now, rng, person, contacts)
        _messages(models, now, rng, person, contacts)
        _alarms(models, now, rng, person)
        _files(models, now, rng, person)
        _notes(models, now, rng, person)
        _todos(models, now, rng, person)
        _orders(models, now, rng, person)
        _shared_bills(models, now, rng, person, contacts)
        _mails(models, now, rng, person, contacts)


def past(now, rng: random.Random, first_day: int, last_day: int):
    """Return a time between `first_day` and `last_day` days ago, in whole minutes."""
    return now.subtract(days=rng.randint(first_day, last_day), hours=rng.randint(0, 11), minutes=rng.randint(0, 59))


def send_mail(models, sender, recipients: Sequence, subject: str, body: str, created_at, **flags):
    """Create a thread of one mail for the sender and every recipient; `flags` apply to the recipients' copies."""
    mail = models.gmail.Email.create_save(
        sender_id=sender.id, recipient_ids=[user.id for user in recipients], subject=subject, body=body, created_at=created_at
    )
    thread = models.gmail.GlobalEmailThread.create_save(email_ids=[mail.id], created_at=created_at, updated_at=created_at)
    common = {"global_email_thread_id": thread.id, "email_ids": [mail.id], "created_at": created_at, "updated_at": created_at}
    models.gmail.UserEmailThread.create_save(user_id=sender.id, incoming=False, outgoing=True, read=True, **common)
    return [models.gmail.UserEmailThread.create_save(user_id=user.id, incoming=True, outgoing=False, **common, **flags) for user in recipients]


def send_text(models, sender, receiver, message: str, created_at) -> None:
    """Create a text message for the sender and the receiver."""
    text = models.phone.GlobalTextMessage.create_save(sender_id=sender.id, receiver_id=receiver.id, message=message, created_at=created_at)
    for user in (sender, receiver):
        models.phone.UserTextMessage.create_save(global_text_message_id=text.id, user_id=user.id, created_at=created_at)


def add_expense(models, creator, group_id: int | None, payer, debtors: Sequence, amount: float, description: str, created_at):
    """Create an expense that `debtors`, possibly with the payer, share evenly, rounded to cents as in the app."""
    expense = models.splitwise.Expense.create_save(
        user_id=creator.id, group_id=group_id, payer_id=payer.id, amount=amount, description=description, created_at=created_at
    )
    for debtor in debtors:
        models.splitwise.ExpenseShare.create_save(
            expense_id=expense.id, debtor_id=debtor.id, share_amount=round(amount / len(debtors), 2), created_at=created_at
        )
    return expense


def _music(models, now, rng: random.Random, people: Sequence[Person]) -> None:
    app = models.spotify
    artists = [app.Artist.create_save(name=name, genre=GENRES[index % len(GENRES)], created_at=now.subtract(days=2000)) for index, name in enumerate(ARTISTS)]
    titles = [f"{head} {tail}" for head in TITLE_HEADS for tail in TITLE_TAILS]
    rng.shuffle(titles)
    for number in range(30):
        artist = artists[number % len(artists)]
        released = now.subtract(days=rng.randint(200, 4000)).start_of("day")
        album = app.Album.create_save(
            title=titles.pop(),
            artist_ids=[artist.id],
            genre=artist.genre,
            release_date=released,
            rating=rng.randint(20, 50) / 10,
            like_count=rng.randint(0, 40),
        )
        for _ in range(6):
            _song(app, rng, titles.pop(), artist, released, album.id)
    for _ in range(120):
        _song(app, rng, titles.pop(), rng.choice(artists), now.subtract(days=rng.randint(20, 4000)).start_of("day"), None)
    for person in people:
        app.MusicPlayer.create_save(user_id=person.accounts["spotify"].id)
        for artist in rng.sample(artists, 9):
            app.UserArtistFollowing.create_save(user_id=person.accounts["spotify"].id, artist_id=artist.id, created_at=past(now, rng, 5, 600))


def _song(app, rng: random.Random, title: str, artist, released, album_id: int | None) -> None:
    app.Song.create_save(
        title=title,
        artist_ids=[artist.id],
        album_id=album_id,
        duration=rng.randint(110, 420),
        genre=artist.genre if rng.random() < 0.6 else rng.choice(GENRES),
        release_date=released,
        play_count=rng.randint(10, 9999),
        rating=rng.randint(15, 50) / 10,
    )


def _catalogue(models, rng: random.Random) -> None:
    app = models.amazon
    sellers = [app.Seller.create_save(name=name, rating=rng.randint(25, 50) / 10) for name in SELLERS]
    for kind, names in PRODUCTS.items():
        for name in names:
            app.Product.create_save(
                product_type=kind,
                name=name,
                description=f"{name}, a {kind} for every day.",
                seller_id=rng.choice(sellers).id,
                price=rng.randint(800, 24000) / 100,
                delivery_days=rng.randint(1, 9),
                inventory_quantity=rng.randint(10, 90),
                weight=rng.randint(10, 400) / 100,
                length=float(rng.randint(2, 30)),
                width=float(rng.randint(2, 30)),
                height=float(rng.randint(2, 30)),
                rating=rng.randint(20, 50) / 10,
            )
    for deliverer in ("UPS", "USPS", "FedEx"):
        app.Deliverer.create_save(name=deliverer)


def _cards(models, person: Person) -> None:
    names = ("owner_name", "card_name", "card_number", "expiry_year", "expiry_month", "cvv_number")
    for card in models.admin.PaymentCard.find_all(main_user_id=person.user.id):
        for app in ("venmo", "spotify", "amazon"):
            models[app].PaymentCard.create_save(user_id=person.accounts[app].id, **{name: getattr(card, name) for name in names})


def _home(models, now, person: Person) -> None:
    user = person.accounts["file_system"]
    home = user.home_directory_path
    for path in ("/", "/home/", home, *(f"{home}{name}/" for name in ("documents", "downloads", "photos", "recycle_bin"))):
        models.file_system.Directory.create_save(path=path, user_id=user.id, created_at=now.subtract(days=900), updated_at=now.subtract(days=30))


def _listening(models, now, rng: random.Random, person: Person) -> None:
    app, user = models.spotify, person.accounts["spotify"]
    songs = rng.sample(app.Song.all(), 70)
    for song in songs[:55]:
        app.UserLibrarySong.create_save(user_id=user.id, song_id=song.id, created_at=past(now, rng, 2, 500))
    for song in rng.sample(songs, 28):
        app.SongLike.create_save(user_id=user.id, song_id=song.id, liked_at=past(now, rng, 2, 500))
    for song in rng.sample(songs, 24):
        app.UserDownloadedSong.create_save(user_id=user.id, song_id=song.id, downloaded_at=past(now, rng, 2, 200))
    for album in rng.sample(app.Album.all(), 8):
        app.UserLibraryAlbum.create_save(user_id=user.id, album_id=album.id, created_at=past(now, rng, 2, 500))
    for title in rng.sample(PLAYLISTS, 4):
        playlist = app.Playlist.create_save(title=title, user_id=user.id, created_at=past(now, rng, 100, 500), is_public=rng.random() < 0.5)
        for song in rng.sample(songs, rng.randint(8, 12)):
            app.PlaylistSong.create_save(playlist_id=playlist.id, song_id=song.id, added_at=past(now, rng, 2, 90))


def _payments(models, now, rng: random.Random, person: Person, contacts: Sequence[Person]) -> None:
    app, user = models.venmo, person.accounts["venmo"]
    for other in contacts:
        friend = other.accounts["venmo"]
        if rng.random() < 0.6 and not app.Friendship.exists(user_id=user.id, friend_id=friend.id):
            for one, two in ((user, friend), (friend, user)):
                app.Friendship.create_save(user_id=one.id, friend_id=two.id, created_at=past(now, rng, 100, 600))
    for _ in range(40):
        pair = [user, rng.choice(contacts).accounts["venmo"]]
        rng.shuffle(pair)
        when = past(now, rng, 1, 150)
        app.Transaction.create_save(
            sender_id=pair[0].id,
            receiver_id=pair[1].id,
            amount=rng.randint(300, 12000) / 100,
            description=rng.choice(DESCRIPTIONS),
            created_at=when,
            updated_at=when,
            private=rng.random() < 0.3,
        )


def _messages(models, now, rng: random.Random, person: Person, contacts: Sequence[Person]) -> None:
    for _ in range(30):
        pair = [person.accounts["phone"], rng.choice(contacts).accounts["phone"]]
        rng.shuffle(pair)
        send_text(models, *pair, rng.choice(CHATTER), past(now, rng, 1, 120))


def _alarms(models, now, rng: random.Random, person: Person) -> None:
    days = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
    for label in rng.sample(ALARM_LABELS, 8):
        models.phone.Alarm.create_save(
            user_id=person.accounts["phone"].id,
            time=f"{rng.randint(5, 21):02d}:{rng.choice((0, 10, 15, 30, 45)):02d}",
            repeat_days=rng.sample(days, rng.randint(1, 4)),
            label=label,
            enabled=rng.random() < 0.6,
            snooze_minutes=rng.choice((5, 10, 15)),
            vibration=True,
            created_at=past(now, rng, 30, 400),
        )


def _files(models, now, rng: random.Random, person: Person) -> None:
    user = person.accounts["file_system"]
    for folder in ("documents", "downloads", "photos"):
        for number in range(10):
            when = past(now, rng, 3, 700)
            ending = "jpg" if folder == "photos" else rng.choice(("txt", "md", "csv"))
            models.file_system.File.create_save(
                path=f"{user.home_directory_path}{folder}/{rng.choice(FILE_STEMS)}_{number:02d}.{ending}",
                user_id=user.id,
                content=f"{rng.choice(CHATTER)}\n",
                created_at=when,
                updated_at=when,
            )


def _notes(models, now, rng: random.Random, person: Person) -> None:
    for title in rng.sample(NOTE_TITLES, 14):
        when = past(now, rng, 5, 300)
        models.simple_note.Note.create_save(
            user_id=person.accounts["simple_note"].id,
            title=title,
            content="\n".join(f"- {line}" for line in rng.sample(CHATTER, 4)),
            tags=rng.sample(["home", "ideas", "later", "work"], 1),
            created_at=when,
            updated_at=when,
            pinned=False,
        )


def _todos(models, now, rng: random.Random, person: Person) -> None:
    app, user = models.todoist, person.accounts["todoist"]
    for name in rng.sample(PROJECTS, 3):
        project = app.Project.create_save(user_id=user.id, name=name, created_at=past(now, rng, 100, 400))
        app.ProjectCollaboratorLink.create_save(project_id=project.id, user_id=user.id, created_at=project.created_at)
        for index, title in enumerate(rng.sample(TODO_TITLES, 8)):
            app.Task.create_save(
                project_id=project.id,
                user_id=user.id,
                title=title,
                due_date=now.add(days=rng.randint(-40, 40)).start_of("day"),
                priority=rng.choice(["high", "medium", "low"]),
                is_completed=rng.random() < 0.4,
                order_index=index,
                created_at=past(now, rng, 45, 90),
            )


def _orders(models, now, rng: random.Random, person: Person) -> None:
    app, user = models.amazon, person.accounts["amazon"]
    home = person.user.home_address
    names = ("street_address", "city", "state", "country", "zip_code")
    address = app.Address.create_save(user_id=user.id, name="Home", **{name: getattr(home, name) for name in names})
    card = app.PaymentCard.find_all(user_id=user.id)[0]
    products = app.Product.all()
    for _ in range(10):
        when = past(now, rng, 15, 420)
        items = rng.sample(products, rng.randint(1, 3))
        order = app.Order.create_save(
            user_id=user.id,
            address_id=address.id,
            payment_card_id=card.id,
            tax=rng.randint(50, 900) / 100,
            delivery_fee=5.0,
            created_at=when,
            address_text=home.text,
            payment_card_digits=card.last_four_digits,
        )
        for product in items:
            app.OrderItem.create_save(
                order_id=order.id,
                product_id=product.id,
                ordered_quantity=rng.randint(1, 3),
                returned_quantity=0,
                gift_wrap_quantity=0,
                price=product.price,
                expected_delivery_at=when.add(days=product.delivery_days),
                delivered_at=when.add(days=product.delivery_days),
            )
    for product in rng.sample(products, 9):
        app.WishListEntry.create_save(user_id=user.id, product_id=product.id, quantity=1)


def _shared_bills(models, now, rng: random.Random, person: Person, contacts: Sequence[Person]) -> None:
    """Create a group for the flat with a year's bills; only the flatmate with the lowest account id creates it."""
    app, user = models.splitwise, person.accounts["splitwise"]
    flat = [user, *(other.accounts["splitwise"] for other in contacts if "roommate" in person.relations[other.user.id])]
    if user.id != min(member.id for member in flat):
        return
    group = app.Group.create_save(user_id=user.id, name="Flat", created_at=past(now, rng, 380, 400), invitation_code=f"{rng.getrandbits(20):05x}")
    for member in flat:
        app.GroupMember.create_save(group_id=group.id, user_id=member.id, joined_at=group.created_at)
    for _ in range(16):
        payer = rng.choice(flat)
        add_expense(models, payer, group.id, payer, flat, rng.randint(30, 240) * 3 / 2, rng.choice(DESCRIPTIONS), past(now, rng, 20, 360))


def _mails(models, now, rng: random.Random, person: Person, contacts: Sequence[Person]) -> None:
    for _ in range(22):
        other = rng.choice(contacts)
        pair = [person.accounts["gmail"], other.accounts["gmail"]]
        rng.shuffle(pair)
        send_mail(
            models,
            pair[0],
            [pair[1]],
            rng.choice(MAIL_SUBJECTS),
            f"{rng.choice(CHATTER)}\n{pair[0].first_name}",
            past(now, rng, 2, 200),
            read=rng.random() < 0.7,
        )
