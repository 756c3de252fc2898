"""Scenarios about Todoist, alone and with notes and mails as the source of tasks."""

from textwrap import dedent

from generator.content import send_mail
from generator.draft import Change, Draft, complete, login, pages
from generator.scene import Scene, scenario

SUBJECTS = ["Quote for the roof", "Contract draft", "School form", "Insurance renewal", "Photo permissions", "Lab results", "Keynote slides", "Visa papers"]
MEETING_ITEMS = ["Book the hall", "Write to the sponsors", "Order flyers", "Check the budget", "Find a photographer", "Update the website"]
CHORES = ["Measure", "Call the office", "Get boxes", "Print forms", "Ask Sam", "Clean up", "Buy tape", "Take photos"]


def _project(scene: Scene, name: str):
    user = scene.account("todoist")
    project = scene.models.todoist.Project.create_save(user_id=user.id, name=name, created_at=scene.past(100, 200))
    scene.models.todoist.ProjectCollaboratorLink.create_save(project_id=project.id, user_id=user.id, created_at=project.created_at)
    return project


def _task(scene: Scene, project, title: str, index: int, **fields):
    return scene.models.todoist.Task.create_save(
        project_id=project.id, user_id=scene.account("todoist").id, title=title, order_index=index, created_at=scene.past(50, 90), **fields
    )


@scenario("train", 2)
def close_overdue_tasks(scene: Scene) -> Draft:
    """Complete the overdue tasks of one project."""
    name = scene.choose(["Balcony", "Tax return", "Flea market", "Vegetable patch", "School fair", "Moving to Denver", "Bike workshop", "Thesis", "Guest room"])
    project, late = _project(scene, name), []
    for index, title in enumerate(scene.rng.sample(CHORES, 8)):
        offset = scene.rng.choice([*range(-40, -2), *(range(3, 30) if late else ())])
        done = scene.rng.random() < 0.25 and bool(late)
        task = _task(scene, project, title, index, due_date=scene.now.add(days=offset).start_of("day"), is_completed=done, priority="medium")
        if offset < 0 and not done:
            late.append(task.id)
    return Draft(
        instruction=f'Everything overdue in my Todoist project "{name}" is in fact finished. Mark those tasks as completed.',
        public={"project": name},
        changes=[Change("todoist.Task", updated={number: {"is_completed": True} for number in late})],
        steps=[
            login("todoist"),
            pages("projects", "todoist.show_projects"),
            dedent(f"""
            project_id = [project["project_id"] for project in projects if project["name"] == "{name}"][0]
            tasks = apis.todoist.show_tasks(project_id=project_id, is_completed=False, access_token=todoist_token)["no_section_tasks"]
            today = DateTime.now().strftime("%Y-%m-%d")
            late = [task for task in tasks if task["due_date"][:10] < today]
            print(len(tasks), [(task["title"], task["due_date"]) for task in late])
            """),
            dedent("""
            for task in late:
                apis.todoist.update_task(task_id=task["task_id"], is_completed=True, access_token=todoist_token)
            print(len(late), "completed")
            """),
            complete(),
        ],
    )


@scenario("train", 3)
def tasks_from_minutes(scene: Scene) -> Draft:
    """Add the lines of a note to an existing project as tasks with due dates."""
    name = scene.choose(
        ["Choir board", "Parents' council", "Garden club", "Street party", "Rowing team", "Tenants' union", "Film festival", "Chess league", "Food bank"]
    )
    project = _project(scene, name)
    title = f"Minutes {name}"
    things = scene.rng.sample(MEETING_ITEMS, 5)
    lines, added = ["Present: everyone", "Decisions:"], []
    for number, thing in enumerate(things):
        date = scene.now.add(days=scene.rng.randint(3, 40)).start_of("day")
        mine = number % 2 == 0
        lines.append(f"- {thing} by {date.strftime('%Y-%m-%d')} ({'me' if mine else 'Alex'})")
        if mine:
            added.append({"project_id": project.id, "user_id": scene.account("todoist").id, "title": thing, "due_date": date, "is_completed": False})
    scene.models.simple_note.Note.create_save(
        user_id=scene.account("simple_note").id,
        title=title,
        content="\n".join(lines),
        tags=["meetings"],
        created_at=scene.past(2, 3),
        updated_at=scene.past(1, 2),
    )
    return Draft(
        instruction=(
            f'My Simple Note "{title}" says who does what until when. Make a Todoist task, with its due date, for every item that is mine '
            f'(marked "me") in the project "{name}", titled just as in the note.'
        ),
        public={"project": name, "note": title},
        changes=[Change("todoist.Task", added=added)],
        steps=[
            login("simple_note", "todoist"),
            dedent(f"""
            found = apis.simple_note.search_notes(query="{title}", access_token=simple_note_token)
            note_id = [entry["note_id"] for entry in found if entry["title"] == "{title}"][0]
            note = apis.simple_note.show_note(note_id=note_id, access_token=simple_note_token)
            print(note["content"])
            """),
            pages("projects", "todoist.show_projects"),
            dedent(f"""
            project_id = [project["project_id"] for project in projects if project["name"] == "{name}"][0]
            for line in note["content"].splitlines():
                if line.endswith("(me)"):
                    task_title, rest = line[2:].split(" by ")
                    apis.todoist.create_task(project_id=project_id, title=task_title, due_date=rest[:10], access_token=todoist_token)
                    print("created", task_title, rest[:10])
            """),
            complete(),
        ],
    )


@scenario("dev", 3)
def tasks_from_starred_mails(scene: Scene) -> Draft:
    """Add the starred mails to a project as tasks."""
    name = scene.choose(["Inbox zero", "Follow-ups", "Answer these"])
    project, added = _project(scene, name), []
    for number, subject in enumerate(scene.rng.sample(SUBJECTS, 8)):
        sender = scene.rng.choice(scene.contacts())
        starred = number % 3 == 0
        send_mail(
            scene.models,
            scene.account("gmail", sender),
            [scene.account("gmail")],
            subject,
            f"Please have a look.\n{sender.first_name}",
            scene.past(2, 30),
            starred=starred,
        )
        if starred:
            added.append({"project_id": project.id, "title": subject, "priority": "high", "is_completed": False})
    return Draft(
        instruction=f'For each starred mail in my Gmail inbox, add a high-priority task titled with the subject of the mail to my Todoist project "{name}".',
        public={"project": name},
        changes=[Change("todoist.Task", added=added)],
        steps=[
            login("gmail", "todoist"),
            pages("threads", "gmail.show_inbox_threads", "starred=True"),
            pages("projects", "todoist.show_projects"),
            dedent(f"""
            project_id = [project["project_id"] for project in projects if project["name"] == "{name}"][0]
            for thread in threads:
                apis.todoist.create_task(project_id=project_id, title=thread["subject"], priority="high", access_token=todoist_token)
                print("created", thread["subject"])
            """),
            complete(),
        ],
    )


@scenario("test_normal", 1)
def longest_project(scene: Scene) -> Draft:
    """Find the project with the largest total duration of open tasks."""
    names = scene.choose([("Attic", "Cellar", "Garage"), ("Novel", "Memoir", "Poems"), ("Course A", "Course B", "Course C")])
    totals = dict.fromkeys(names, 0)
    for number, name in enumerate(names):
        project = _project(scene, name)
        for index in range(7):
            minutes, done = scene.rng.randrange(10, 200, 5), scene.rng.random() < 0.4
            _task(scene, project, f"Part {index + 1}", index, duration=float(minutes), duration_unit="minutes", is_completed=done, priority="low")
            totals[name] += 0 if done else minutes
        extra = 3 + 11 * number  # excludes ties
        _task(scene, project, "Part 8", 7, duration=float(extra), duration_unit="minutes", priority="low")
        totals[name] += extra
    top = max(totals, key=lambda name: totals[name])
    return Draft(
        instruction=(
            f"Among my Todoist projects {names[0]}, {names[1]} and {names[2]}, find the one whose unfinished tasks take the longest in total. "
            "How many minutes is that?"
        ),
        answer=totals[top],
        public={"projects": list(names)},
        steps=[
            login("todoist"),
            pages("projects", "todoist.show_projects"),
            dedent(f"""
            totals = {{}}
            for project in projects:
                if project["name"] in {list(names)!r}:
                    tasks = apis.todoist.show_tasks(project_id=project["project_id"], is_completed=False, access_token=todoist_token)["no_section_tasks"]
                    totals[project["name"]] = int(sum(task["duration"] for task in tasks))
            longest = max(totals.values())
            print(totals, longest)
            """),
            complete("longest"),
        ],
    )
