"""Writes a task's evaluation in AppWorld's form: a function that checks the answer and the changes of the models."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from generator.draft import Change, Draft

HEADER = """\
import json
from operator import attrgetter


def plain(value):
    if isinstance(value, float):
        return round(value, 2)
    return value.isoformat() if hasattr(value, "isoformat") else value


def rows(records, *fields):
    return sorted(([plain(attrgetter(field)(record)) for field in fields] for record in records), key=json.dumps)


def evaluate(test, models, public_data, private_data, main_user, ground_truth_answer) -> None:
    task = models.end.supervisor.Task.first()
    with test("assert answers match."):
        test.answer(json.loads(task.answer), ground_truth_answer)
    with test("assert the task was reported as done."):
        test.case(task.status, "==", "success")
"""


def plain(value: Any) -> Any:
    """Return a field's value as JSON stores it."""
    if isinstance(value, float):
        return round(value, 2)
    return value.isoformat() if hasattr(value, "isoformat") else value


def private_data(draft: Draft) -> dict[str, list]:
    """Return what the evaluation compares with: the added and updated rows and removed ids of each changed model."""
    data: dict[str, list] = {}
    for change in draft.changes:
        key = _key(change)
        data[f"{key}_added"] = _sorted([plain(row[name]) for name in _names(change.added)] for row in change.added)
        data[f"{key}_updated"] = _sorted([number, *(plain(row[name]) for name in _names(change.updated.values()))] for number, row in change.updated.items())
        data[f"{key}_removed"] = sorted(change.removed)
    return data


def evaluation_code(draft: Draft) -> str:
    """Return the text of evaluation.py, which all variants of a scenario share; differences are in the private data."""
    required = sorted(change.model for change in draft.changes)
    free = sorted(upkeep.model for upkeep in draft.upkeep)
    what = ", ".join(required) if required else "none"
    lines = [
        f'    with test("assert the models that changed are: {what}."):',
        f'        test.case(models.changed_model_names() - set({free}), "==", set({required}))',
    ]
    for change in draft.changes:
        lines += _check_change(change)
    for upkeep in draft.upkeep:
        lines += [
            f'    added, updated, removed = models.changed_records("{upkeep.model}")',
            f'    with test("assert nothing but {", ".join(upkeep.fields)} of {upkeep.model} changed."):',
            '        test.case([len(added), len(removed)], "==", [0, 0])',
            "        for record in updated:",
            f'            test.case(models.changed_field_names("{upkeep.model}", record.id) - set({list(upkeep.fields)}), "==", set())',
        ]
    return HEADER + "\n".join(lines) + "\n    return test\n"


def _check_change(change: Change) -> list[str]:
    model, key = change.model, _key(change)
    added, updated = _names(change.added), _names(change.updated.values())
    lines = [
        f'    added, updated, removed = models.changed_records("{model}")',
        f'    with test("assert the records added to {model} are exactly those expected."):',
        f'        test.case(rows(added, *{list(added)}), "==", private_data.{key}_added)',
        f'    with test("assert the records updated in {model} are exactly those expected."):',
        f'        test.case(rows(updated, "id", *{list(updated)}), "==", private_data.{key}_updated)',
    ]
    if updated:
        lines += [
            "        for record in updated:",
            f'            test.case(models.changed_field_names("{model}", record.id) - set({[*updated, *change.upkeep]}), "==", set())',
        ]
    return [
        *lines,
        f'    with test("assert the records removed from {model} are exactly those expected."):',
        f'        test.case(sorted(record.id for record in removed), "==", private_data.{key}_removed)',
    ]


def _names(rows: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    kinds = {tuple(row) for row in rows}
    assert len(kinds) <= 1, f"records of one change differ in their fields: {kinds}"
    return kinds.pop() if kinds else ()


def _key(change: Change) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in change.model.replace(".", ""))


def _sorted(rows: Iterable[list]) -> list[list]:
    return sorted(rows, key=json.dumps)
