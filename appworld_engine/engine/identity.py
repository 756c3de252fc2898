"""Replaces AppWorld's secrets with ones that no agent knows.

AppWorld signs every token with one constant and draws the codes that it mails from a seeded generator. With either of
them, an agent could act as another person.
"""

import os
from collections.abc import Iterable

from appworld.apps import api_lib
from appworld.common.utils import import_apis_module
from fastapi_login.secrets import to_secret

SECRET_BYTES = 32


def renew_secrets(apps: Iterable[str]) -> None:
    """Give the apps of this process a new key with which they sign tokens."""
    key = to_secret({"algorithms": "HS256", "secret": os.urandom(SECRET_BYTES)})
    for app in apps:
        if manager := getattr(import_apis_module(app), "logging_manager", None):
            manager.secret = key


def randomize_codes() -> None:
    """Draw the codes for verification and password resets from the system's generator, here and in all forks."""
    seeded = api_lib.get_unique_id

    def get_unique_id(num_characters: int = 7) -> str:
        seeded(num_characters)  # keeps what AppWorld draws from its seed afterwards the same
        return os.urandom(SECRET_BYTES).hex()[:num_characters]

    api_lib.get_unique_id = get_unique_id
