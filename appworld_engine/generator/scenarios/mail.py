"""Scenarios about Gmail: finding a fact, tidying up, and alarms from mails."""

from textwrap import dedent

from generator.content import send_mail
from generator.draft import Change, Draft, complete, login, pages
from generator.scene import Scene, scenario


@scenario("train", 1)
def booking_reference(scene: Scene) -> Draft:
    """Find a fact in one of several similar mails."""
    wanted = scene.choose(["Oslo", "Kyoto", "Lisbon", "Nairobi", "Montreal", "Prague", "Buenos Aires", "Seville", "Hanoi"])
    cities = dict.fromkeys(["Lisbon", "Oslo", "Kyoto", "Lima", "Vienna", wanted])
    agent, references = scene.account("gmail", scene.choose(scene.contacts("coworker"))), {}
    for city in cities:
        references[city] = "".join(scene.rng.choices("ABCDFGHJKLMNPQRSTVWXZ", k=6))
        body = f"Your room is booked.\nHotel in: {city}\nBooking reference: {references[city]}\nNights: {scene.rng.randint(1, 6)}"
        send_mail(scene.models, agent, [scene.account("gmail")], f"Your stay in {city}", body, scene.past(5, 80))
    return Draft(
        instruction=f"I am at the hotel's front desk in {wanted} and they want my booking reference. It must be somewhere in my Gmail inbox.",
        answer=references[wanted],
        public={"city": wanted},
        steps=[
            login("gmail"),
            pages("threads", "gmail.show_inbox_threads", f'query="{wanted}"'),
            dedent(f"""
            thread_id = [thread["email_thread_id"] for thread in threads if thread["subject"] == "Your stay in {wanted}"][0]
            thread = apis.gmail.show_thread(email_thread_id=thread_id, access_token=gmail_token)
            body = thread["emails"][0]["body"]
            reference = body.split("Booking reference: ")[1].split()[0]
            print(body, reference)
            """),
            complete("reference"),
        ],
    )


@scenario("train", 2)
def archive_newsletters(scene: Scene) -> Draft:
    """Archive the old mails of one kind."""
    name, days = scene.choose(
        [
            ("The Sourdough Letter", 30),
            ("Cyclist Weekly", 45),
            ("Attic Finds", 60),
            ("Tiny House Digest", 20),
            ("Birdwatchers' Bulletin", 75),
            ("Monday Crossword", 50),
            ("Startup Gazette", 14),
            ("The Knitting Circle", 90),
            ("Chess Corner", 35),
        ]
    )
    editor, gone = scene.account("gmail", scene.choose(scene.contacts("friend"))), []
    for issue in range(14):
        age = 8 * issue + scene.rng.randint(1, 5)
        age += 2 if age == days else 0
        threads = send_mail(
            scene.models, editor, [scene.account("gmail")], f"{name} No. {200 - issue}", "This week's issue.", scene.now.subtract(days=age), read=issue % 3 > 0
        )
        if age > days:
            gone.append(threads[0].id)
    return Draft(
        instruction=f'Archive every issue of the newsletter "{name}" in my Gmail inbox that arrived more than {days} days ago.',
        public={"newsletter": name, "days": days},
        changes=[Change("gmail.UserEmailThread", updated={number: {"archived": True} for number in gone}, upkeep=("updated_at",))],
        steps=[
            login("gmail"),
            pages("threads", "gmail.show_inbox_threads", f'query="{name}"'),
            dedent(f"""
            limit = DateTime.now().subtract(days={days}).isoformat()
            old = [thread for thread in threads if thread["subject"].startswith("{name}") and thread["created_at"] < limit]
            for thread in old:
                apis.gmail.mark_thread_archived(email_thread_id=thread["email_thread_id"], access_token=gmail_token)
            print(len(threads), [thread["subject"] for thread in old])
            """),
            complete(),
        ],
    )


@scenario("test_normal", 3)
def alarm_before_flight(scene: Scene) -> Draft:
    """Set an alarm some hours before a time in a mail."""
    city, hours, label = scene.choose([("Reykjavik", 3, "Leave for airport"), ("Dublin", 2, "Taxi to airport"), ("Naples", 4, "Start packing")])
    sender = scene.account("gmail", scene.choose(scene.contacts("coworker")))
    for other in ("Boston", city, "Tampa"):
        hour, minute = scene.rng.randint(9, 21), scene.rng.randrange(5, 60, 5)
        day = scene.now.add(days=scene.rng.randint(1, 9)).strftime("%Y-%m-%d")
        body = f"Ticket confirmed.\nDestination: {other}\nDeparture: {day} {hour:02d}:{minute:02d}\nHave a good flight!"
        send_mail(scene.models, sender, [scene.account("gmail")], f"Your flight to {other}", body, scene.past(2, 20))
        if other == city:
            time = f"{hour - hours:02d}:{minute:02d}"
    return Draft(
        instruction=(
            f"There is a mail about my flight to {city} in my Gmail inbox. Set a phone alarm {hours} hours before the departure time given there, "
            f'labelled "{label}", with the usual settings and without repetition.'
        ),
        public={"city": city, "hours": hours, "label": label},
        changes=[
            Change("phone.Alarm", added=[{"user_id": scene.account("phone").id, "time": time, "label": label, "enabled": True, "repeat_days": None}]),
        ],
        steps=[
            login("gmail", "phone"),
            pages("threads", "gmail.show_inbox_threads", f'query="{city}"'),
            dedent(f"""
            thread_id = [thread["email_thread_id"] for thread in threads if thread["subject"] == "Your flight to {city}"][0]
            thread = apis.gmail.show_thread(email_thread_id=thread_id, access_token=gmail_token)
            body = thread["emails"][0]["body"]
            departure = body.split("Departure: ")[1].split()[1]
            print(body, departure)
            """),
            dedent(f"""
            hour, minute = departure.split(":")
            alarm_time = f"{{int(hour) - {hours}:02d}}:{{minute}}"
            result = apis.phone.create_alarm(time=alarm_time, label="{label}", access_token=phone_token)
            print(alarm_time, result)
            """),
            complete(),
        ],
    )
