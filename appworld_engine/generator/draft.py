"""The draft of one task that a scenario returns, and the code idioms of reference solutions."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

HELPER_APPS = ("admin", "api_docs", "supervisor")
"""Apps that serve the task itself; no task is about them."""
PAGE_LIMIT = 20


class GenerationError(Exception):
    """A data root or task cannot be generated; the message names the task and the case."""


@dataclass(frozen=True)
class Change:
    """The required changes of one model (`app.Class`); everything else in it must stay unchanged.

    Args:
        added: field values of each new record. All have the same fields, and dotted names follow relations. Other
            fields are free.
        updated: record id -> new value of every field that changes.
        removed: ids of the removed records.
        upkeep: fields of updated records that the app maintains itself (dates), which may change too.
    """

    model: str
    added: Sequence[Mapping[str, Any]] = ()
    updated: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    removed: Sequence[int] = ()
    upkeep: Sequence[str] = ()


@dataclass(frozen=True)
class Upkeep:
    """Fields that the app maintains itself (counters, dates): only these may change in existing records."""

    model: str
    fields: tuple[str, ...]


@dataclass(frozen=True)
class Draft:
    """One task before it is built.

    Args:
        instruction: what the supervisor asks for.
        steps: the reference solution in code blocks, one per turn, without the look-up of documentation before them.
        answer: the required argument of `complete_task`; None if the task asks for no answer.
        changes, upkeep: the required changes of the databases; empty means none.
        public: the parameters of this variant, as in the instruction.
    """

    instruction: str
    steps: Sequence[str]
    answer: int | float | str | None = None
    changes: Sequence[Change] = ()
    upkeep: Sequence[Upkeep] = ()
    public: Mapping[str, Any] = field(default_factory=dict)

    @property
    def endpoints(self) -> list[tuple[str, str]]:
        """Return (app, api) of every endpoint that the steps call, in order of first use."""
        return list(dict.fromkeys(re.findall(r"apis\.(\w+)\.(\w+)\(", "\n".join(self.steps))))

    @property
    def required_apps(self) -> list[str]:
        return sorted({app for app, _ in self.endpoints} - set(HELPER_APPS))


def login(*apps: str) -> str:
    """Return code that logs in and sets `<app>_token` for every app."""
    lines = [
        'passwords = {entry["account_name"]: entry["password"] for entry in apis.supervisor.show_account_passwords()}',
        "profile = apis.supervisor.show_profile()",
    ]
    for app in apps:
        name = "phone_number" if app == "phone" else "email"
        lines.append(f'{app}_token = apis.{app}.login(username=profile["{name}"], password=passwords["{app}"])["access_token"]')
    lines.append(f'print("logged in to {" and ".join(apps)}")')
    return "\n".join(lines)


def pages(name: str, endpoint: str, *arguments: str, token: str | None = None) -> str:
    """Return code that collects all pages of `endpoint` (`app.api`) in the list `name` and prints a summary.

    Args:
        arguments: further keyword arguments, as code.
        token: the variable with the access token; None means `<app>_token`, and "" sends no token.
    """
    app = endpoint.split(".")[0]
    token = f"{app}_token" if token is None else token
    call = ", ".join([*arguments, "page_index=page_index", f"page_limit={PAGE_LIMIT}", *([f"access_token={token}"] if token else [])])
    return "\n".join(
        [
            f"{name} = []",
            "for page_index in range(100):",
            f"    page = apis.{endpoint}({call})",
            "    if not page:",
            "        break",
            f"    {name} += page",
            f"print(len({name}), {name}[:1])",
        ]
    )


def complete(answer: str = "") -> str:
    """Return code that completes the task; `answer` is an expression."""
    return f"apis.supervisor.complete_task(answer={answer})" if answer else "apis.supervisor.complete_task()"


def look_up(endpoints: Sequence[tuple[str, str]]) -> str:
    """Return code that prints the parameters of each endpoint, app by app."""
    apps = {app: [api for other, api in endpoints if other == app] for app, _ in endpoints}
    return "\n".join(
        [
            f"for app, names in {apps!r}.items():",
            "    for name in names:",
            "        doc = apis.api_docs.show_api_doc(app_name=app, api_name=name)",
            '        print(name, [entry["name"] for entry in doc["parameters"]])',
        ]
    )


def all_steps(draft: Draft) -> list[str]:
    """Return the steps of one task as an agent would take them, with the documentation first."""
    return [look_up(draft.endpoints), *(step.strip() for step in draft.steps)]


def solution_code(draft: Draft) -> str:
    """Return the solution in AppWorld's form: one function that does not look up documentation."""
    body = "\n".join(step.strip() for step in draft.steps)
    return "def solution(apis, requester) -> None:\n" + "\n".join(f"    {line}" if line else "" for line in body.splitlines()) + "\n"
