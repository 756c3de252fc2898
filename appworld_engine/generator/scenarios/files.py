"""Scenarios about the file system: names and dates, sorting into folders, and sums over many files."""

from textwrap import dedent

from generator.draft import Change, Draft, Upkeep, complete, login
from generator.scene import Scene, scenario

FOLDER_DATES = Upkeep("file_system.Directory", ("updated_at",))


def _folder(scene: Scene, *names: str) -> str:
    """Create a folder and its parents in the supervisor's home, and return its path."""
    user = scene.account("file_system")
    path = user.home_directory_path
    for name in names:
        path += f"{name}/"
        if not scene.models.file_system.Directory.exists(user_id=user.id, path=path):
            scene.models.file_system.Directory.create_save(path=path, user_id=user.id, created_at=scene.past(800, 900), updated_at=scene.past(10, 20))
    return path


def _file(scene: Scene, path: str, content: str, when):
    return scene.models.file_system.File.create_save(
        path=path, user_id=scene.account("file_system").id, content=content, created_at=when, updated_at=when.add(hours=3)
    )


def _dated_files(scene: Scene, folder: str, trash: str) -> tuple[list[dict], list[int]]:
    """Fill `folder` with files of several years; return the files expected after the move and the original ids."""
    added, removed = [], []
    for number in range(14):
        year = scene.now.year - (0 if number % 2 else scene.rng.randint(1, 3))
        when = scene.now.set(year=year, month=scene.rng.randint(1, 5), day=scene.rng.randint(1, 17), minute=5)
        stem = scene.rng.choice(["rent", "power", "phone", "gym", "hotel"])
        file = _file(scene, f"{folder}{stem}_{number:02d}.{scene.rng.choice(['pdf', 'txt', 'md'])}", f"{stem} no. {scene.rng.randint(1000, 9999)}", when)
        target = folder if year == scene.now.year else trash
        added.append({"path": f"{target}{when.strftime('%Y-%m-%d')}_{file.path.split('/')[-1]}", "content": file.content, "created_at": file.created_at})
        removed.append(file.id)
    return added, removed


@scenario("train", 3)
def date_prefix_and_bin(scene: Scene) -> Draft:
    """Put the date in front of every file name, and move the files of earlier years away."""
    source, away = scene.choose(
        [
            ("documents/receipts", "recycle_bin"),
            ("documents/invoices", "recycle_bin"),
            ("documents/scans", "recycle_bin"),
            ("documents/contracts", "documents/expired"),
            ("downloads/confirmations", "recycle_bin"),
            ("documents/letters", "documents/old_letters"),
            ("downloads/statements", "documents/archive"),
            ("documents/utilities", "recycle_bin"),
            ("documents/reminders", "downloads/outdated"),
        ]
    )
    added, removed = _dated_files(scene, _folder(scene, *source.split("/")), _folder(scene, *away.split("/")))
    return Draft(
        instruction=(
            f"Tidy up ~/{source}: put the creation date in front of every file's name, like 2022-09-30_name.txt, and then move "
            f"all those that weren't created this year to ~/{away}. The files should keep their dates."
        ),
        public={"folder": f"~/{source}", "away": f"~/{away}"},
        changes=[Change("file_system.File", added=added, removed=removed)],
        upkeep=[FOLDER_DATES],
        steps=[
            login("file_system"),
            dedent(f"""
            paths = apis.file_system.show_directory(directory_path="~/{source}", entry_type="files", access_token=file_system_token)
            print(len(paths), paths[:3])
            """),
            dedent(f"""
            this_year = str(DateTime.now().year)
            for path in paths:
                file = apis.file_system.show_file(file_path=path, access_token=file_system_token)
                date = file["created_at"][:10]
                folder = "~/{source}/" if date[:4] == this_year else "~/{away}/"
                target = folder + date + "_" + path.split("/")[-1]
                apis.file_system.move_file(source_file_path=path, destination_file_path=target, retain_dates=True, access_token=file_system_token)
                print(path, target)
            """),
            complete(),
        ],
    )


@scenario("train", 2)
def move_by_ending(scene: Scene) -> Draft:
    """Move the files of one kind out of a mixed folder."""
    ending, source, target = scene.choose(
        [
            ("pdf", "downloads", "documents/papers"),
            ("mp3", "downloads", "documents/recordings"),
            ("zip", "downloads", "documents/archives"),
            ("epub", "downloads", "documents/books"),
            ("svg", "photos", "documents/drawings"),
            ("xlsx", "documents", "downloads/spreadsheets"),
            ("wav", "downloads", "music/samples"),
            ("mp4", "photos", "documents/videos"),
            ("json", "documents", "downloads/exports"),
        ]
    )
    source_path, target_path = _folder(scene, *source.split("/")), _folder(scene, *target.split("/"))
    added, removed = [], []
    for number in range(12):
        kind = ending if number % 2 else scene.rng.choice(["png", "docx", "html"])
        stem = scene.rng.choice(["summer", "final", "shared", "copy"])
        file = _file(scene, f"{source_path}{stem}-{number}.{kind}", f"{stem} {scene.rng.randint(1000, 9999)}", scene.past(5, 90))
        if kind == ending:
            added.append({"path": f"{target_path}{file.path.split('/')[-1]}", "content": file.content})
            removed.append(file.id)
    return Draft(
        instruction=f"Move all .{ending} files from ~/{source} to ~/{target}; leave everything else where it is.",
        public={"ending": ending, "source": f"~/{source}", "target": f"~/{target}"},
        changes=[Change("file_system.File", added=added, removed=removed)],
        upkeep=[FOLDER_DATES],
        steps=[
            login("file_system"),
            dedent(f"""
            paths = apis.file_system.show_directory(directory_path="~/{source}", entry_type="files", access_token=file_system_token)
            chosen = [path for path in paths if path.endswith(".{ending}")]
            print(len(paths), chosen)
            """),
            dedent(f"""
            for path in chosen:
                target = "~/{target}/" + path.split("/")[-1]
                apis.file_system.move_file(source_file_path=path, destination_file_path=target, access_token=file_system_token)
            print(len(chosen), "moved")
            """),
            complete(),
        ],
    )


@scenario("train", 2)
def bills_of_year(scene: Scene) -> Draft:
    """Sum an amount in the files of one kind and one year."""
    kind, year = scene.choose(
        [
            ("electricity", 2023),
            ("water", 2022),
            ("internet", 2023),
            ("heating", 2022),
            ("insurance", 2024),
            ("gas", 2023),
            ("parking", 2022),
            ("childcare", 2023),
            ("gardening", 2024),
        ]
    )
    folder = _folder(scene, "documents", "bills")
    total = 0.0
    for which in dict.fromkeys(["electricity", "water", "internet", kind]):
        for number in range(12):
            when = scene.now.subtract(months=2 * number + 1, days=scene.rng.randint(0, 5))
            amount = scene.rng.randint(2000, 15000) / 100
            _file(scene, f"{folder}{which}_{when.strftime('%Y_%m')}.txt", f"Bill: {which}\nDate: {when.strftime('%Y-%m-%d')}\nTotal: ${amount:.2f}", when)
            total += amount if which == kind and when.year == year else 0
    return Draft(
        instruction=f"My bills lie as text files in ~/documents/bills. What did {kind} cost me in {year}, in dollars, over all bills dated in that year?",
        answer=round(total, 2),
        public={"kind": kind, "year": year},
        steps=[
            login("file_system"),
            dedent("""
            paths = apis.file_system.show_directory(directory_path="~/documents/bills", entry_type="files", access_token=file_system_token)
            print(len(paths), apis.file_system.show_file(file_path=paths[0], access_token=file_system_token)["content"])
            """),
            dedent(f"""
            total = 0
            for path in paths:
                content = apis.file_system.show_file(file_path=path, access_token=file_system_token)["content"]
                if "Bill: {kind}" in content and "Date: {year}-" in content:
                    total += float(content.split("Total: $")[1])
            total = round(total, 2)
            print(total)
            """),
            complete("total"),
        ],
    )
