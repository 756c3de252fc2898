"""Checks the clean tasks as a set with Great Expectations, and writes its Data Docs.

Validation has already rejected every record that breaks an expectation by itself, so no single row fails the set.
"""

import html
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apprentice.data.candidates import SPLITS, VARIANTS
from apprentice.data.validation import MAX_HOPS, MAX_STEPS, Lengths
from apprentice.records import Task
from apprentice.records.files import write_text

NAMED_ROWS = 3
"""Number of offending values that a message lists."""
_REMOTE = re.compile(r"<script\b.*?</script>|<link\b[^>]*>|<img\b[^>]*>|<footer\b.*?</footer>|<iframe\b.*?</iframe>", re.DOTALL)
_FOREIGN_LINK = re.compile(r'\shref="(?!#)[^"]*"')
_REMOTE_IMAGE = re.compile(r"url\(\s*['\"]?https?://[^)]*\)")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
POLICY = """<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">"""
"""The same policy as in the evaluation report: the page runs no script and loads nothing."""
STYLE = """<style>
body {font: 15px/1.5 sans-serif; margin: 2em auto; max-width: 70em; color: #222}
table {border-collapse: collapse; margin: 1em 0; width: 100%} td, th {border: 1px solid #ccc; padding: .3em .6em; text-align: left; vertical-align: top}
.navbar, .ge-sidebar, .sidebar, .modal, .btn, #sidebar {display: none}
</style>"""


@dataclass(frozen=True, slots=True)
class SuiteOutcome:
    """The result of the expectation suite."""

    passed: int
    total: int
    failures: tuple[str, ...]
    """One message per failed expectation."""


def check_tasks(tasks: Sequence[Task], lengths: Lengths, site: Path) -> SuiteOutcome:
    """Check the tasks as one flat table, and write Great Expectations' page to `site`/index.html.

    The page is self-contained and deterministic: it loads nothing, and the same tasks give the same page.
    """
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    import great_expectations
    import pandas
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = great_expectations.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    table = pandas.DataFrame([_row(task, lengths) for task in tasks])
    asset = context.data_sources.add_pandas("apprentice").add_dataframe_asset("tasks")
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": table})
    suite = context.suites.add(great_expectations.ExpectationSuite("tasks", expectations=_expectations(lengths.instruction)))
    result = batch.validate(suite)
    result.meta["batch_markers"].pop("ge_load_time", None)  # the only timestamp on the page
    failures = tuple(_in_words(found) for found in result.results if not found.success)
    write_text(site / "index.html", _page(result))
    return SuiteOutcome(len(result.results) - len(failures), len(result.results), failures)


def _row(task: Task, lengths: Lengths) -> dict[str, Any]:
    return {
        "id": task.id,
        "scenario": task.scenario,
        "split": task.split,
        "instruction": task.instruction,
        "instruction_tokens": lengths.count(task.instruction),
        "judge": task.judge,
        "answers": len(task.answers),
        "answer": task.answers[0] if task.answers else f"the checks of {task.id}",
        "answerable": task.answerable,
        "hops": task.hops,
        "steps_planned": len(task.plan),
    }


def _expectations(max_instruction_tokens: int) -> list[Any]:
    import great_expectations.expectations as gxe

    return [
        gxe.ExpectTableRowCountToBeBetween(min_value=len(SPLITS)),
        gxe.ExpectColumnDistinctValuesToContainSet(column="split", value_set=list(SPLITS)),
        gxe.ExpectColumnDistinctValuesToBeInSet(column="split", value_set=[*SPLITS, VARIANTS]),
        *(gxe.ExpectColumnValuesToNotBeNull(column=column) for column in ("id", "scenario", "split", "instruction", "answer")),
        gxe.ExpectColumnValuesToBeUnique(column="id"),
        gxe.ExpectCompoundColumnsToBeUnique(column_list=["split", "instruction", "answer"]),
        gxe.ExpectColumnValuesToBeBetween(column="instruction_tokens", min_value=1, max_value=max_instruction_tokens),
        gxe.ExpectColumnValuesToBeBetween(column="answers", min_value=1, row_condition='judge=="answers"', condition_parser="pandas"),
        gxe.ExpectColumnValuesToBeBetween(column="hops", min_value=1, max_value=MAX_HOPS),
        gxe.ExpectColumnValuesToBeBetween(column="steps_planned", min_value=0, max_value=MAX_STEPS),
        gxe.ExpectColumnValuesToBeInSet(column="answerable", value_set=[True, False]),
    ]


def _in_words(found: Any) -> str:
    expectation = found.expectation_config
    subject = expectation.kwargs.get("column", "table")
    rows = found.result.get("partial_unexpected_list") or ()
    named = f", such as {', '.join(map(repr, rows[:NAMED_ROWS]))}" if rows else ""
    return f"{subject}: {expectation.type} ({found.result.get('unexpected_count', found.result.get('observed_value'))} found{named})"


def _page(result: Any) -> str:
    """Render a result as a page. Its values are escaped in place because the renderer treats text as HTML."""
    from great_expectations.render.renderer.page_renderer import ValidationResultsPageRenderer
    from great_expectations.render.view import DefaultJinjaPageView

    for found in result.results:
        found.result, found.exception_info = _escaped(found.result), _escaped(found.exception_info)
    page = DefaultJinjaPageView().render(ValidationResultsPageRenderer().render(result))
    page = _REMOTE_IMAGE.sub("none", _FOREIGN_LINK.sub("", _REMOTE.sub("", page)))
    page = page.replace("<head>", f"<head>\n{POLICY}", 1).replace("</head>", f"{STYLE}</head>", 1)
    numbered = {uuid: f"part-{number}" for number, uuid in enumerate(dict.fromkeys(_UUID.findall(page)), 1)}
    return _UUID.sub(lambda match: numbered[match[0]], page)


def _escaped(value: Any) -> Any:
    """Return the value with every string in it escaped for HTML."""
    if isinstance(value, str):
        return html.escape(value)
    if isinstance(value, dict):
        return {name: _escaped(inner) for name, inner in value.items()}
    return type(value)(map(_escaped, value)) if isinstance(value, list | tuple) else value
