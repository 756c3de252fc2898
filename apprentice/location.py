"""Checks whether a project can run in its folder. Uses only the standard library: the set-up calls it first of all."""

from pathlib import Path

from apprentice.errors import ApprenticeError

REFUSED = {
    ":": "it separates the folders in PATH, so a different Python would run",
    "?": "SQLite addresses end there, so MLflow's database would lie outside the project",
}
"""Characters that the project's path must not contain, each with the reason."""


def check_location(root: Path) -> None:
    """Refuse a folder whose path some tool would misread.

    Raises:
        ApprenticeError: the path contains a character of REFUSED.
    """
    path = str(root.resolve())
    for character, why in REFUSED.items():
        if character in path:
            raise ApprenticeError(f"the path of the project contains {character!r}: {why}", where=path, todo="rename that folder, or move the project")


def in_git(root: Path) -> bool:
    """Return whether the folder is inside a Git repository."""
    return any((folder / ".git").exists() for folder in (root.resolve(), *root.resolve().parents))
