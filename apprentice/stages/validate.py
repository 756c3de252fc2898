"""The stage validate: checks every candidate, quarantines the bad ones with reasons, and checks the rest as a set."""

import json
from pathlib import Path

from apprentice.config import Layout, PipelineConfig
from apprentice.config.schema import ValidateConfig
from apprentice.data.candidates import SPLITS, Candidate
from apprentice.data.expectations import check_tasks
from apprentice.data.validation import Lengths, Validation, share_rejected, summarise, validate_candidates
from apprentice.environments.usecase import use_case
from apprentice.errors import ApprenticeError
from apprentice.records.events import Progress
from apprentice.records.files import write_json, write_text
from apprentice.records.tables import write_passages, write_tasks


def run(config: PipelineConfig, layout: Layout, progress: Progress) -> None:
    """Write the clean tasks and passages, the quarantine, validation.json, and Data Docs.

    If the stage fails, it writes the quarantine and the metrics, but not the clean tables.

    Raises:
        ApprenticeError: too many records are rejected, a split is empty, or an expectation on the set fails.
    """
    for stale in (layout.tasks, layout.corpus):
        stale.unlink(missing_ok=True)
    lengths = _lengths(config, progress)
    validation = validate_candidates(_candidates(layout.raw / "tasks.jsonl"), _candidates(layout.raw / "corpus.jsonl"), config.validation, lengths)
    write_text(layout.quarantine, "".join(json.dumps(entry.quarantine_row()) + "\n" for entry in validation.rejected))
    metrics = summarise(validation) | {"expectations_passed": 0, "expectations_total": 0}
    write_json(layout.metrics("validation"), metrics)
    progress.note(f"{metrics['tasks_clean']} of {metrics['tasks_read']} tasks and {metrics['passages_clean']} of {metrics['passages_read']} passages are clean")
    case = use_case(config, layout)
    for warning in case.warnings((entry.place, answer) for entry in validation.tasks if not entry.problems for answer in entry.record.answers):
        progress.note(warning)
    _check_bad_share(validation, config.validation, layout)
    _check_not_empty(validation, layout, case.needs_passages)
    outcome = check_tasks(validation.clean_tasks, lengths, layout.data_docs)
    write_json(layout.metrics("validation"), metrics | {"expectations_passed": outcome.passed, "expectations_total": outcome.total})
    if outcome.failures:
        what = f"the set of tasks fails {len(outcome.failures)} expectations: {'; '.join(outcome.failures)}"
        raise ApprenticeError(what, where=layout.data_docs / "index.html", todo="correct the source of the tasks")
    write_passages(layout.corpus, validation.clean_passages)
    write_tasks(layout.tasks, validation.clean_tasks)


def _lengths(config: PipelineConfig, progress: Progress) -> Lengths:
    """Return the length limits in tokens: a quarter of an episode for an instruction, the context length for a passage.

    Raises:
        ApprenticeError: the pipeline's model is unavailable, or its tokenizer is unusable.
    """
    from apprentice.policy.base_models import tokenizer_folder
    from apprentice.policy.chat import ChatFormat

    chat = ChatFormat(tokenizer_folder(config.model.name, progress))

    def count(text: str) -> int:
        return len(chat.encode(text.encode("utf-8", "replace").decode("utf-8")))  # the tokenizer rejects lone surrogates

    return Lengths(count, instruction=config.environment.max_tokens // 4, passage=config.policy.max_context)


def _candidates(path: Path) -> list[Candidate]:
    try:
        return [Candidate(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError:
        raise ApprenticeError("is missing", where=path, todo="run the stage prepare first: `dvc repro`") from None
    except (ValueError, TypeError) as error:
        raise ApprenticeError(f"was not written by the stage prepare: {error}", where=path, todo="run prepare again") from None


def _check_bad_share(validation: Validation, limits: ValidateConfig, layout: Layout) -> None:
    """Check passages first, because bad passages can cause tasks to be rejected."""
    for words, entries in (("passages", validation.passages), ("tasks", validation.tasks)):
        share = share_rejected(entries)
        if share > limits.max_bad_share:
            rejected = [entry for entry in entries if entry.problems]
            reasons = ", ".join(f"{reason} {count}" for reason, count in validation.count_reasons(entries).items() if count)
            raise ApprenticeError(
                f"{len(rejected)} of {len(entries)} {words} ({share:.1%}) are rejected, more than validation.max_bad_share={limits.max_bad_share} allows "
                f"({reasons}); the first: {rejected[0].quarantine_row()['reasons'][0]}",
                where=layout.quarantine,
                todo="correct the records listed there, or raise validation.max_bad_share",
            )


def _check_not_empty(validation: Validation, layout: Layout, needs_passages: bool) -> None:
    left = {task.split for task in validation.clean_tasks}
    for split in SPLITS:
        if split not in left:
            files = sorted({entry.candidate.file for entry in validation.tasks if entry.candidate.split == split})
            raise ApprenticeError(
                f"the split {split!r} has no valid task",
                where=", ".join(files) or layout.raw / "tasks.jsonl",
                todo=f"see {layout.quarantine} for the reasons, and add tasks to this split",
            )
    if needs_passages and not validation.clean_passages:
        raise ApprenticeError("there is no valid passage", where=layout.raw / "corpus.jsonl", todo=f"see {layout.quarantine} for the reasons")


if __name__ == "__main__":
    from apprentice.stages.entry import main

    main(run)
