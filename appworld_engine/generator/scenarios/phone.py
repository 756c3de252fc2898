"""Scenarios about the phone: text messages, alarms, and birthdays."""

from textwrap import dedent

from generator.content import send_text
from generator.draft import Change, Draft, complete, login, pages
from generator.scene import Scene, scenario


@scenario("train", 1)
def newest_code_in_texts(scene: Scene) -> Draft:
    """Find a number in the newest of several similar messages."""
    what = scene.choose(
        ["door code", "wifi password", "locker code", "gate code", "garage PIN", "safe combination", "voicemail PIN", "alarm code", "printer passcode"]
    )
    friend = scene.choose(scene.contacts("friend"))
    ages = scene.rng.sample(range(3, 90), 4)
    codes = scene.rng.sample(range(100000, 999999), 4)
    for age, code in zip(ages, codes, strict=True):
        when = scene.now.subtract(days=age, minutes=scene.rng.randint(0, 600))
        send_text(scene.models, scene.account("phone", friend), scene.account("phone"), f"The new {what} is {code}.", when)
    newest = codes[ages.index(min(ages))]
    return Draft(
        instruction=f"{friend.first_name} keeps texting me new versions of the {what}. Which one is the latest?",
        answer=newest,
        public={"what": what, "sender": friend.first_name},
        steps=[
            login("phone"),
            pages("messages", "phone.search_text_messages", f'query="{what}"'),
            dedent(f"""
            matches = [message for message in messages if message["message"].startswith("The new {what} is")]
            newest = max(matches, key=lambda message: message["sent_at"])
            code = int(newest["message"].rstrip(".").split()[-1])
            print(newest["message"], code)
            """),
            complete("code"),
        ],
    )


@scenario("train", 2)
def switch_off_early_alarms(scene: Scene) -> Draft:
    """Switch off the alarms before a time of day."""
    limit = scene.choose(["07:30", "09:00", "08:15", "06:45", "10:00", "07:05", "11:20", "06:30", "08:50"])
    user = scene.account("phone")
    for hour in (5, 6, 7):
        scene.models.phone.Alarm.create_save(
            user_id=user.id,
            time=f"{hour:02d}:{scene.rng.choice((5, 12, 20))}".replace(":5", ":05"),
            repeat_days=["saturday", "sunday"][: 1 + hour % 2],
            label=f"Early start {hour - 4}",
            enabled=True,
            snooze_minutes=10,
            vibration=True,
            created_at=scene.past(20, 60),
        )
    early = [alarm.id for alarm in scene.models.phone.Alarm.find_all(user_id=user.id) if alarm.enabled and alarm.time < limit]
    return Draft(
        instruction=f"Holiday at last! Turn off (but don't delete) each alarm on my phone that is on and would ring before {limit}.",
        public={"limit": limit},
        changes=[Change("phone.Alarm", updated={number: {"enabled": False} for number in early})],
        steps=[
            login("phone"),
            pages("alarms", "phone.show_alarms"),
            dedent(f"""
            early = [alarm for alarm in alarms if alarm["enabled"] and alarm["time"] < "{limit}"]
            for alarm in early:
                apis.phone.update_alarm(alarm_id=alarm["alarm_id"], enabled=False, access_token=phone_token)
            print([(alarm["time"], alarm["label"]) for alarm in early])
            """),
            complete(),
        ],
    )


@scenario("dev", 1)
def next_birthday(scene: Scene) -> Draft:
    """Find whose birthday comes next, possibly in the next year."""
    relation = scene.choose(["friend", "coworker", "roommate"])
    contacts = scene.contacts(relation)
    today = scene.now.strftime("%m-%d")
    days = [(contact.birthday[5:] <= today, contact.birthday[5:], contact) for contact in contacts]
    following = min(days, key=lambda entry: entry[:2])[2]
    return Draft(
        instruction=f"Looking at today's date, which of my {relation}s is the next to have a birthday? Full name, please.",
        answer=following.name,
        public={"relation": relation},
        steps=[
            login("phone"),
            pages("contacts", "phone.search_contacts", f'relationship="{relation}"'),
            dedent("""
            today = DateTime.now().strftime("%m-%d")
            ordered = sorted(contacts, key=lambda contact: (contact["birthday"][5:] <= today, contact["birthday"][5:]))
            name = ordered[0]["first_name"] + " " + ordered[0]["last_name"]
            print(today, [(contact["first_name"], contact["birthday"]) for contact in ordered])
            """),
            complete("name"),
        ],
    )
