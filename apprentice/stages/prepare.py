"""The stage prepare: reads or generates tasks and passages, and writes them as candidates for validation."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from random import Random

from apprentice.config import Layout, PipelineConfig
from apprentice.data.candidates import SPLITS, VARIANTS, Candidate
from apprentice.environments.usecase import use_case
from apprentice.records.events import Progress
from apprentice.records.files import write_json, write_text


def run(config: PipelineConfig, layout: Layout, progress: Progress) -> None:
    """Write the candidates to tasks.jsonl and corpus.jsonl, and the fingerprint of their source to source.json.

    Raises:
        ApprenticeError: the source is unavailable, or one of its files is missing or empty.
    """
    data = config.data
    found = use_case(config, layout).read_data(progress)
    for note in found.notes:
        progress.note(note)
    taken = found.tasks
    for split in (*SPLITS, VARIANTS):
        before = len(taken)
        taken = limit(taken, split, data.train if split == "train" else data.dev, data.seed)
        if len(taken) < before:
            progress.note(f"{before - len(taken)} more tasks of the split {split} are left out (data.train, data.dev)")
    taken = trained_variants(taken)
    _write(layout.raw / "tasks.jsonl", taken)
    _write(layout.raw / "corpus.jsonl", found.passages)
    counts = {"tasks_found": len(found.tasks), "tasks_taken": len(taken), "passages_found": len(found.passages)}
    write_json(layout.raw / "source.json", found.fingerprint | counts)
    passages = f" and {len(found.passages)} passages" if found.passages else ""
    progress.note(f"{len(taken)} tasks{passages} from {found.fingerprint.get('source', data.format)}")


def trained_variants(tasks: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Drop variants whose scenario has no training task: such a scenario would be entirely held out."""
    learned = {_scenario(task) for task in tasks if task.record is not None and task.split == "train"}
    return tuple(task for task in tasks if task.record is None or task.split != VARIANTS or _scenario(task) in learned)


def limit(tasks: Sequence[Candidate], split: str, at_most: int, seed: int) -> tuple[Candidate, ...]:
    """Keep at most `at_most` tasks of a split: whole scenarios in a seeded order, each one that still fits.

    A line that could not be parsed counts as one scenario, so that the expected share of bad lines does not change.
    """
    scenarios: dict[str, list[Candidate]] = {}
    for task in tasks:
        if task.split == split:
            scenarios.setdefault(_scenario(task), []).append(task)
    order = sorted(scenarios)
    Random(f"{seed}/{split}").shuffle(order)
    left_out, room = set(), at_most
    for scenario in order:
        if len(scenarios[scenario]) <= room:
            room -= len(scenarios[scenario])
        else:
            left_out.add(scenario)
    return tuple(task for task in tasks if task.split != split or _scenario(task) not in left_out)


def _scenario(task: Candidate) -> str:
    """Return the scenario as found, which validation has not checked yet; for an unparsed line, its place."""
    return f"{task.file}:{task.line}" if task.record is None else str(task.record.get("scenario"))


def _write(path: Path, candidates: Iterable[Candidate]) -> None:
    write_text(path, "".join(json.dumps(asdict(candidate)) + "\n" for candidate in candidates))


if __name__ == "__main__":
    from apprentice.stages.entry import main

    main(run)
