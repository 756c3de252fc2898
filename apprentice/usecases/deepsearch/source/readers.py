"""Reads NQ-open, MuSiQue, and plain JSONL into candidates: fields as found, each with its file and line.

Validation checks the candidates later. A record that cannot be parsed is a candidate too, with its error.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache
from typing import Any

from apprentice.data.candidates import SPLITS, Candidate, DataSet
from apprentice.data.matching import PhraseIndex
from apprentice.data.sources import Found, Line, Source, find_file, fingerprint, has_file, open_source, read_lines
from apprentice.errors import ApprenticeError
from apprentice.records.task import UNKNOWN
from apprentice.usecases.deepsearch.source.musique import may_be_answered, missing_answers, passages_of, plan_of, steps_of, supporting
from apprentice.usecases.deepsearch.source.organisation.generate import generate

CORPUS_FILES = ("corpus.jsonl",)
SPLIT_FILES = {
    "nq": ("{split}.jsonl", "*{split}*.jsonl"),
    "musique": ("{split}.jsonl", "musique_ans*{split}*.jsonl", "*{split}*.jsonl"),
    "jsonl": ("{split}.jsonl",),
}
OPTIONAL_FIELDS = ("scenario", "answerable", "hops", "supporting", "plan")
"""Task fields that a line may set besides its id, question, and answers."""
NEEDED = {
    "nq": (
        "a folder with train.jsonl and dev.jsonl (one {question, answer: [...]} per line, such as NQ-open.train.jsonl and NQ-open.dev.jsonl "
        "from the folder nq_open of github.com/google-research-datasets/natural-questions) and with the passages in "
        "corpus.jsonl or corpus.jsonl.gz (one {id, title, text} per line)"
    ),
    "musique": (
        "a folder with one *train*.jsonl and one *dev*.jsonl in MuSiQue's official format, such as musique_ans_v1.0_train.jsonl and "
        "musique_ans_v1.0_dev.jsonl (github.com/StonyBrookNLP/musique, script download_data.sh); their paragraphs become the corpus"
    ),
    "jsonl": (
        "a folder with train.jsonl and dev.jsonl (one {question, answers: [...]} per line; id, scenario, and plan are optional) and "
        "corpus.jsonl (one {id, title, text} per line)"
    ),
}
"""Format -> the files that `data.source` must contain."""


def read_data(format: str, source: str | None, seed: int, train: int, dev: int, needs_corpus: bool = True) -> DataSet:
    """Read a data set, or generate the fictional organisation.

    Args:
        format: `organisation`, `nq`, `musique`, or `jsonl`.
        source: a folder or a Hugging Face data set id; ignored by `organisation`.
        seed, train, dev: used by `organisation` only; a data set is read completely.
        needs_corpus: whether the file of passages is required.

    Raises:
        ApprenticeError: `source` is None or unavailable, or a file is missing or empty.
    """
    if format == "organisation":
        return _organisation(seed, train, dev)
    if source is None:
        raise ApprenticeError(
            f"the format {format!r} needs data, and data.source is null",
            where="data.source",
            todo=f"get {NEEDED[format]}; then run `make run PIPELINE={format if format != 'jsonl' else '<name>'} "
            'ARGS="data.source=/path/to/folder"`. data.source can also be the id of a Hugging Face data set (owner/name) with these files',
        )
    return _read(format, open_source(source), needs_corpus)


def _organisation(seed: int, train: int, dev: int) -> DataSet:
    tasks, passages = generate(seed, train, dev)
    name = f"organisation(seed={seed})"
    return DataSet(
        tuple(Candidate(f"{name}/tasks", number, task.model_dump(mode="json"), split=task.split) for number, task in enumerate(tasks, 1)),
        tuple(Candidate(f"{name}/passages", number, passage.model_dump(mode="json")) for number, passage in enumerate(passages, 1)),
        {"format": "organisation", "generator": "apprentice.usecases.deepsearch.source.organisation.generate", "seed": seed, "train": train, "dev": dev},
    )


def _read(format: str, source: Source, needs_corpus: bool) -> DataSet:
    files = _files(format, source, needs_corpus)
    as_task: Callable[[Line, str], dict] = {"nq": _nq_task, "musique": _musique_task, "jsonl": _plain_task}[format]
    tasks, passages, missing = [], [], {}
    for split in SPLITS:
        for line in read_lines(source, files[split].path):
            tasks.append(_candidate(line, lambda line, split=split: as_task(line, split), split))
            if format == "musique" and line.value is not None:
                passages += [Candidate(line.file, line.number, passage) for passage in passages_of(line.value)]
                if line.value.get("answerable") is False:
                    missing[len(tasks) - 1] = missing_answers(line.value)
    notes = [_chosen_files(source, files)]
    if format == "musique":
        passages = _deduplicated(passages)
        tasks = _without_answered(tasks, missing, passages, notes)
    elif "corpus" in files:
        passages = [_candidate(line, _passage) for line in read_lines(source, files["corpus"].path)]
    tasks = _with_distinct_ids(tasks, notes)
    prints = [fingerprint(source, found.path) for found in files.values()]
    return DataSet(tuple(tasks), tuple(passages), {"format": format, "source": source.label, "files": prints}, tuple(notes))


def _files(format: str, source: Source, needs_corpus: bool) -> dict[str, Found]:
    """Return the file of each split, and that of the corpus if the format has one and it exists or is required."""
    files: dict[str, Found] = {}
    for split in SPLITS:
        patterns = tuple(pattern.format(split=split) for pattern in SPLIT_FILES[format])
        files[split] = find_file(source, patterns, f"the questions of the split {split!r}", split)
    train, dev = (files[split].path for split in SPLITS)
    if train == dev:
        raise ApprenticeError("matches both splits", where=source.shown(dev), todo="put training and held-out questions into separate files")
    if format != "musique" and (needs_corpus or has_file(source, CORPUS_FILES)):
        files["corpus"] = find_file(source, CORPUS_FILES, "the passages to search")
    return files


def _chosen_files(source: Source, files: dict[str, Found]) -> str:
    def described(role: str, found: Found) -> str:
        others = ", ".join(map(source.within, found.others))
        return f"{role} from {source.shown(found.path)}" + (f" (not from {others})" if others else "")

    return "; ".join(described(role, found) for role, found in files.items())


def _without_answered(tasks: list[Candidate], missing: dict[int, list[str]], passages: list[Candidate], notes: list[str]) -> list[Candidate]:
    """Drop the unanswerable questions of MuSiQue-Full that the pooled paragraphs may answer.

    Args:
        missing: index in `tasks` of an unanswerable question -> the answers that its own paragraphs lack.
    """
    if not missing:
        return tasks
    records = [(task.record or {}) for task in tasks]
    evidence = {str(record.get("scenario")): record["supporting"] for index, record in enumerate(records) if record and index not in missing}

    @cache
    def pooled_text() -> PhraseIndex:
        return PhraseIndex(f"{passage.record['title']} {passage.record['text']}" for passage in passages)

    pooled = {passage.record["id"] for passage in passages}
    answered = {
        place
        for place, phrases in missing.items()
        if may_be_answered(evidence.get(str(records[place].get("scenario")), ()), phrases, pooled, lambda phrase: pooled_text().contains(phrase))
    }
    if answered:
        notes.append(f"{len(answered)} of {len(missing)} unanswerable questions are left out, because paragraphs of other questions may answer them")
    return [task for index, task in enumerate(tasks) if index not in answered]


def _with_distinct_ids(tasks: list[Candidate], notes: list[str]) -> list[Candidate]:
    """Prefix ids that both splits use with the name of the split, as well as scenarios that equal such an id."""
    splits = Counter(id for id, _ in {(str(task.record["id"]), task.split) for task in tasks if task.record is not None})
    shared = {id for id, count in splits.items() if count > 1}
    if not shared:
        return tasks
    notes.append(f"{len(shared)} ids are in both splits; their tasks are renamed to train/<id> and dev/<id>")

    def distinct(task: Candidate) -> Candidate:
        if task.record is None or (id := str(task.record["id"])) not in shared:
            return task
        scenario = f"{task.split}/{id}" if task.record["scenario"] == task.record["id"] else task.record["scenario"]
        return replace(task, record=task.record | {"id": f"{task.split}/{id}", "scenario": scenario})

    return list(map(distinct, tasks))


def _candidate(line: Line, convert: Callable[[Line], dict], split: str | None = None) -> Candidate:
    record = None if line.value is None else convert(line)
    return Candidate(line.file, line.number, record, line.error, split)


def _present(**fields: Any) -> dict[str, Any]:
    """Return the fields that are not None; a missing field stays missing, so that validation reports it."""
    return {name: value for name, value in fields.items() if value is not None}


def _passage(line: Line) -> dict[str, Any]:
    value = line.value
    return _present(id=_as_text(value.get("id")), title=value.get("title", ""), text=value.get("text"))


def _nq_task(line: Line, split: str) -> dict[str, Any]:
    task = _plain_task(line, split, prefix="nq")
    gold = line.value.get("gold_passage_id")
    question = task.get("instruction")
    return task | _present(supporting=[_as_text(gold)] if gold is not None else None, plan=[question] if question else None)


def _plain_task(line: Line, split: str, prefix: str = "task") -> dict[str, Any]:
    value = line.value
    id = f"{prefix}-{split}-{line.number}" if value.get("id") in (None, "") else _as_text(value["id"])
    answers = value.get("answers", value.get("answer"))
    if answers is None and value.get("answerable") is False:
        answers = UNKNOWN
    optional = {name: value[name] for name in OPTIONAL_FIELDS if value.get(name) is not None}
    task = _present(id=id, scenario=id, split=split, instruction=value.get("question"), answers=_as_list(answers))
    return task | optional | ({"scenario": _as_text(value["scenario"])} if "scenario" in optional else {})


def _as_list(answers: Any) -> list | None:
    """Return the answers without duplicates, with numbers as text."""
    if answers is None:
        return None
    found = answers if isinstance(answers, list | tuple) else [answers]
    as_found = [str(item) if isinstance(item, int | float) and not isinstance(item, bool) else item for item in found]
    return [item for place, item in enumerate(as_found) if item not in as_found[:place]]


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _musique_task(line: Line, split: str) -> dict[str, Any]:
    """Convert a question. An unanswerable one shares its scenario with the answerable question of the same id, but not
    its id."""
    value = line.value
    answerable = value.get("answerable") is not False
    answers = [value["answer"], *(_as_list(value.get("answer_aliases")) or ())] if value.get("answer") is not None else None
    task = _plain_task(replace(line, value={**value, "answers": answers if answerable else list(UNKNOWN)}), split, prefix="musique")
    task |= {"answerable": answerable, "supporting": supporting(value)}
    if not answerable and isinstance(task["id"], str):
        task["id"] = f"{task['id']}-unanswerable"
    return task | _present(hops=len(steps_of(value)) or None, plan=plan_of(value) or None)


def _deduplicated(passages: Iterable[Candidate]) -> list[Candidate]:
    """Keep the first of the passages with the same title and text, which share an id."""
    pooled: dict[str, Candidate] = {}
    for passage in passages:
        pooled.setdefault(passage.record["id"], passage)
    return list(pooled.values())
