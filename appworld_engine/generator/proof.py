"""Proves a task before it may be used: the reference solutions must pass, and everything else must fail."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

from generator.draft import Draft, GenerationError, all_steps, complete, login, solution_code
from generator.proof_world import ProofWorld, verdict

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
"""One unrequested change in each app."""


def _without_token(call: dict[str, Any]) -> dict[str, Any]:
    """Remove access tokens, which contain the time of their creation and would differ between generations."""
    return call | {"data": {name: "<token>" if name.endswith("access_token") else value for name, value in call["data"].items()}}


class Proof:
    """Proves one task in one open world, and lists the cases that had the required outcome.

    Each case runs and is judged in a fork of its own: a judged world records later changes incorrectly, so that the
    evaluator no longer sees them.
    """

    def __init__(self, task_id: str, draft: Draft, world: ProofWorld):
        self._task_id, self._draft, self._world = task_id, draft, world
        self.cases: list[str] = []

    def run(self) -> dict[str, Any]:
        """Run all cases.

        Returns:
            The requirements met by doing nothing (`nothing`) and by the solution (`solved`), and its API `calls`.

        Raises:
            GenerationError: a case had the wrong outcome; the message names the task and the case.
        """
        nothing = self._case(self._world, "no-op", False, [])
        self._case(self._world, "bare completion", False, [complete()])
        self._case(self._world, "steps", True, all_steps(self._draft))
        solved = self._world.in_fork(self._solve)
        self.cases += solved.pop("cases")
        return {"nothing": nothing, **solved}

    def _solve(self, world: ProofWorld) -> dict[str, Any]:
        """Solve the task in `world`; then judge it and each unwanted change in forks of the solved world."""
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

    def _case(self, world: ProofWorld, case: str, wanted: bool, blocks: Sequence[str]) -> list[dict[str, str]]:
        """Run the blocks in a fork of `world`, and return the requirements met."""
        with self._named(case):
            result = world.in_fork(lambda copy: verdict(copy, blocks))
            if result["success"] != wanted:
                missed = "; ".join(f"{entry['requirement']} {entry['trace']}" for entry in result["failures"])
                raise GenerationError(f"must {'pass' if wanted else 'fail'} but {'fails' if wanted else 'passes'}. {missed}".strip())
        self.cases.append(case)
        return result["passes"]

    @contextlib.contextmanager
    def _named(self, case: str) -> Iterator[None]:
        try:
            yield
        except GenerationError as error:
            raise GenerationError(f"task {self._task_id}, case {case}: {error}") from error
