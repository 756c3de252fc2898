"""Whether a project can work where its folder lies. Standard library only: the set-up asks too, before anything is installed."""

from pathlib import Path

from apprentice.errors import ApprenticeError

REFUSED = {
    ":": "it separates the folders on PATH, so that another Python would run",
    "?": "SQLite addresses end there, so that MLflow's and Prefect's databases would lie elsewhere",
    "#": "file addresses end there, so that MLflow's artifacts would lie elsewhere",
    "%": "file addresses and configuration files give it a meaning of its own",
}
"""Character of a path -> why the tools of a run cannot work below it."""


def check_place(root: Path) -> None:
    """Refuses a folder whose path the tools of a run would misread.

    Raises:
        ApprenticeError: the path holds a character of REFUSED.
    """
    path = str(root.resolve())
    for character, why in REFUSED.items():
        if character in path:
            raise ApprenticeError(f"the path of the project holds {character!r}: {why}", where=path, todo="rename that folder, or move the project")
