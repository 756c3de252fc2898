"""What a scenario hands over for one task, and the idioms in which reference solutions are written."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

HELPER_APPS = ("admin", "api_docs", "supervisor")
"""Apps that serve the task itself; a task is never about them."""
PAGE_LIMIT = 20


class GenerationError(Exception):
    """A task that cannot be made as asked; the message names the task and the case."""


@dataclass(frozen=True)
class Change:
    """All that may change in one model (`app.Class`): everything else about it has to stay as it was.

    Args:
        added: field values of each new record; all with the same fields (dotted names follow relations), other fields are free.
        updated: record id -> new value of every field that changes.
        removed: ids of the records that go.
        upkeep: fields of updated records that the app keeps itself (dates): these may change too.
    """

    model: str
    added: Sequence[Mapping[str, Any]] = ()
    updated: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    removed: Sequence[int] = ()
    upkeep: Sequence[str] = ()


@dataclass(frozen=True)
class Upkeep:
    """Fields that the app itself keeps up to date (counters, dates): these, and only these, may change in existing records."""

    model: str
    fields: tuple[str, ...]


@dataclass(frozen=True)
class Draft:
    """One task before it is built.

    Args:
        instruction: what the supervisor asks for.
        steps: the reference solution in code blocks, one a turn; the look-up of documentation is put before them.
        answer: what `complete_task` has to be given; None where the task asks nothing.
        changes, upkeep: what the databases have to look like afterwards; empty means untouched.
        public: the parameters of this variant, as they stand in the instruction.
    """

    instruction: str
    steps: Sequence[str]
    answer: int | float | str | None = None
    changes: Sequence[Change] = ()
    upkeep: Sequence[Upkeep] = ()
    public: Mapping[str, Any] = field(default_factory=dict)

    @property
    def endpoints(self) -> list[tuple[str, str]]:
        """(app, api) of every endpoint that the steps call, in order of first use."""
        return list(dict.fromkeys(re.findall(r"apis\.(\w+)\.(\w+)\(", "\n".join(self.steps))))

    @property
    def required_apps(self) -> list[str]:
        return sorted({app for app, _ in self.endpoints} - set(HELPER_APPS))


def login(*apps: str) -> str:
    """Code that leaves `<app>_token` for every app."""
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
    """Code that collects every page of `endpoint` (`app.api`) in the list `name`, and shows how many there are and the first.

    Args:
        arguments: further keyword arguments, as code.
        token: the variable that holds the access token; None is `<app>_token`, "" sends none.
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
    """Code that ends the task; `answer` is an expression."""
    return f"apis.supervisor.complete_task(answer={answer})" if answer else "apis.supervisor.complete_task()"


def look_up(endpoints: Sequence[tuple[str, str]]) -> str:
    """Code that shows which parameters each endpoint takes, app by app."""
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
    """The steps of one task, as an agent would take them: documentation first."""
    return [look_up(draft.endpoints), *(step.strip() for step in draft.steps)]


def solution_code(draft: Draft) -> str:
    """The same solution as AppWorld keeps it: one function, without looking things up."""
    body = "\n".join(step.strip() for step in draft.steps)
    return "def solution(apis, requester) -> None:\n" + "\n".join(f"    {line}" if line else "" for line in body.splitlines()) + "\n"
