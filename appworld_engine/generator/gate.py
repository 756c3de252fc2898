"""Proves a task before it may be used: the reference solutions pass, and everything that must not pass fails."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

from generator.draft import Draft, GenerationError, all_steps, complete, login, solution_code
from generator.world import World, verdict

COLLATERAL = {
    "amazon": """apis.amazon.add_address(name="Office", street_address="1 Stray Street", city="Salem", state="Oregon", country="United States",
                        zip_code=97301, access_token=amazon_token)""",
    "file_system": 'apis.file_system.create_file(file_path="~/stray.txt", content="stray", access_token=file_system_token)',
    "gmail": 'apis.gmail.create_draft(recipient_email_addresses=[profile["email"]], subject="Stray", body="stray", access_token=gmail_token)',
    "phone": 'apis.phone.create_alarm(time="03:33", label="Stray", access_token=phone_token)',
    "simple_note": 'apis.simple_note.create_note(title="Stray", content="stray", access_token=simple_note_token)',
    "splitwise": 'apis.splitwise.create_group(name="Stray", member_emails=[profile["email"]], access_token=splitwise_token)',
    "spotify": 'apis.spotify.create_playlist(title="Stray", access_token=spotify_token)',
    "todoist": 'apis.todoist.create_project(name="Stray", access_token=todoist_token)',
    "venmo": """others = [user for user in apis.venmo.search_users(page_limit=20, access_token=venmo_token) if user["email"] != profile["email"]]
apis.venmo.create_payment_request(user_email=others[0]["email"], amount=1.5, description="Stray", access_token=venmo_token)""",
}
"""One change that nobody asked for, in each app."""


def _without_token(call: dict[str, Any]) -> dict[str, Any]:
    """Access tokens hold the second of their making: they would differ from one generation to the next, and tell nothing."""
    return call | {"data": {name: "<token>" if name.endswith("access_token") else value for name, value in call["data"].items()}}


class Proof:
    """Proves one task in one opened world; counts the cases it has seen come out as they must.

    Each case runs and is judged in a fork of its own: a world that has been judged records later changes wrongly, so that
    the evaluator no longer sees them.
    """

    def __init__(self, task_id: str, draft: Draft, world: World):
        self._task_id, self._draft, self._world = task_id, draft, world
        self.cases: list[str] = []

    def run(self) -> dict[str, Any]:
        """All cases; returns the requirements met by doing nothing (`nothing`) and by the solution (`solved`), and its API `calls`.

        Raises:
            GenerationError: a case came out wrong; names task and case.
        """
        nothing = self._case(self._world, "no-op", False, [])
        self._case(self._world, "bare completion", False, [complete()])
        self._case(self._world, "steps", True, all_steps(self._draft))
        solved = self._world.in_fork(self._solve)
        self.cases += solved.pop("cases")
        return {"nothing": nothing, **solved}

    def _solve(self, world: World) -> dict[str, Any]:
        """Solves the task in `world`, then, each in a fork of the solved world, judges it and spoils it."""
        with self._named("solution"):
            world.run(solution_code(self._draft) + "\nsolution(apis, requester)")
        calls, self.cases = world.requester.requests, []
        solved = self._case(world, "solution", True, [])
        wrong = "wrong" if not isinstance(self._draft.answer, int | float) else round(self._draft.answer + 1, 2)
        self._case(world, "wrong answer", False, [complete(repr(wrong))])
        untouched = sorted(set(COLLATERAL) - set(self._draft.required_apps))
        for app in [*self._draft.required_apps, untouched[len(self._draft.instruction) % len(untouched)]]:
            self._case(world, f"collateral change in {app}", False, [login(app) + "\n" + COLLATERAL[app]])
        return {"solved": solved, "calls": [_without_token(call) for call in json.loads(json.dumps(calls, default=str))], "cases": self.cases}

    def _case(self, world: World, case: str, wanted: bool, blocks: Sequence[str]) -> list[dict[str, str]]:
        """Runs the blocks in a fork of `world`; returns the requirements met."""
        with self._named(case):
            result = world.in_fork(lambda copy: verdict(copy, blocks))
            if result["success"] != wanted:
                missed = "; ".join(f"{entry['requirement']} {entry['trace']}" for entry in result["failures"])
                raise GenerationError(f"{'fails' if wanted else 'passes'} and must not. {missed}".strip())
        self.cases.append(case)
        return result["passes"]

    @contextlib.contextmanager
    def _named(self, case: str) -> Iterator[None]:
        try:
            yield
        except GenerationError as error:
            raise GenerationError(f"task {self._task_id}, case {case}: {error}") from error
