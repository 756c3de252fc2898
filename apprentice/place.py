"""Checks whether a project can work where its folder lies. Standard library only: the set-up asks before anything is installed."""

from pathlib import Path

from apprentice.errors import ApprenticeError

REFUSED = {
    ":": "it separates the folders on PATH, so that another Python would run",
    "?": "SQLite addresses end there, so that MLflow's database would lie outside the project",
}
"""Character of a path -> why a run cannot work below it."""


def check_place(root: Path) -> None:
    """Refuses a folder whose path would be misread.

    Raises:
        ApprenticeError: the path holds a character of REFUSED.
    """
    path = str(root.resolve())
    for character, why in REFUSED.items():
        if character in path:
            raise ApprenticeError(f"the path of the project holds {character!r}: {why}", where=path, todo="rename that folder, or move the project")


def in_git(root: Path) -> bool:
    """Whether the folder or one above it is a Git repository."""
    return any((folder / ".git").exists() for folder in (root.resolve(), *root.resolve().parents))
