"""Reads NQ-open, MuSiQue and plain JSONL into candidate records: fields as they were found, with the line they came from.

Nothing is judged here; validation does that. What cannot be parsed is a candidate too, with its error.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

from apprentice.data.organisation import UNKNOWN, generate
from apprentice.data.sources import Line, Source, find_file, fingerprint, open_source, read_lines
from apprentice.errors import ApprenticeError

SPLITS = ("train", "dev")
VARIANTS = "variants"
"""The split of held-out tasks whose scenarios are learned from."""
CORPUS_FILES = ("corpus.jsonl",)
SPLIT_FILES = {
    "nq": ("{split}.jsonl", "*{split}*.jsonl"),
    "musique": ("{split}.jsonl", "musique_ans*{split}*.jsonl", "*{split}*.jsonl"),
    "jsonl": ("{split}.jsonl",),
}
PASSED_ON = ("scenario", "answerable", "hops", "supporting", "plan")
"""Task fields that a user's own JSONL may hold."""
NEEDED = {
    "nq": (
        "a folder with train.jsonl and dev.jsonl ({question, answer: [...]} a line; NQ-open.train.jsonl and NQ-open.dev.jsonl of "
        "github.com/google-research-datasets/natural-questions, folder nq_open, fit as they are) and the passages to search in "
        "corpus.jsonl or corpus.jsonl.gz ({id, title, text} a line)"
    ),
    "musique": (
        "a folder with one *train*.jsonl and one *dev*.jsonl in MuSiQue's official format, such as musique_ans_v1.0_train.jsonl and "
        "musique_ans_v1.0_dev.jsonl (github.com/StonyBrookNLP/musique, script download_data.sh); the paragraphs in them become the corpus"
    ),
    "jsonl": (
        "a folder with train.jsonl and dev.jsonl ({question, answers: [...]} a line; id, scenario, plan are optional) and corpus.jsonl "
        "({id, title, text} a line)"
    ),
}


@dataclass(frozen=True, slots=True)
class Candidate:
    """What may become a task or a passage, and where it was found."""

    file: str
    line: int
    """From 1."""
    record: dict[str, Any] | None
    """Fields of a Task or a Passage as they were found; None where the line could not be parsed."""
    error: str | None = None


@dataclass(frozen=True, slots=True)
class DataSet:
    """Everything a source holds."""

    tasks: tuple[Candidate, ...]
    passages: tuple[Candidate, ...]
    fingerprint: dict[str, Any]
    """What it was read or generated from."""


def read_data(format: str, source: str | None, seed: int, train: int, dev: int) -> DataSet:
    """Reads a data set, or generates the fictional organisation.

    Args:
        format: `organisation`, `nq`, `musique` or `jsonl`.
        source: a folder or a Hugging Face data set id; not used by `organisation`.
        seed, train, dev: used by `organisation` only; a data set is read whole.

    Raises:
        ApprenticeError: no source is named, it cannot be had, or a file is missing or empty.
    """
    if format == "organisation":
        return _organisation(seed, train, dev)
    if source is None:
        raise ApprenticeError(
            f"the format {format!r} reads data, and data.source names none",
            where="data.source",
            todo=f'get {NEEDED[format]}; then `make run PIPELINE={format if format != "jsonl" else "<name>"} ARGS="data.source=/path/to/folder"`. '
            "The id of a Hugging Face data set (owner/name) whose repository holds these files does as well.",
        )
    return _read(format, open_source(source))


def _organisation(seed: int, train: int, dev: int) -> DataSet:
    tasks, passages = generate(seed, train, dev)
    name = f"organisation(seed={seed})"
    return DataSet(
        tuple(Candidate(f"{name}/tasks", number, task.model_dump(mode="json")) for number, task in enumerate(tasks, 1)),
        tuple(Candidate(f"{name}/passages", number, passage.model_dump(mode="json")) for number, passage in enumerate(passages, 1)),
        {"format": "organisation", "generator": "apprentice.data.organisation", "seed": seed, "train": train, "dev": dev},
    )


def _read(format: str, source: Source) -> DataSet:
    tasks, passages, files = [], [], []
    as_task: Callable[[Line, str], dict] = {"nq": _nq_task, "musique": _musique_task, "jsonl": _plain_task}[format]
    for split in SPLITS:
        path = find_file(source, tuple(pattern.format(split=split) for pattern in SPLIT_FILES[format]), f"the questions of the split {split!r}")
        files.append(path)
        for line in read_lines(source, path):
            tasks.append(_candidate(line, lambda line, split=split: as_task(line, split)))
            if format == "musique" and line.value is not None:
                passages += [Candidate(line.file, line.number, passage) for passage in _musique_passages(line.value)]
    if format == "musique":
        passages = _first_of_each(passages)
    else:
        files.append(find_file(source, CORPUS_FILES, "the passages to search"))
        passages = [_candidate(line, _passage) for line in read_lines(source, files[-1])]
    prints = [fingerprint(source, path) for path in files]
    return DataSet(tuple(tasks), tuple(passages), {"format": format, "source": source.label, "files": prints})


def _candidate(line: Line, convert: Callable[[Line], dict]) -> Candidate:
    if line.value is None:
        return Candidate(line.file, line.number, None, line.error)
    return Candidate(line.file, line.number, convert(line))


def _present(**fields: Any) -> dict[str, Any]:
    """The fields that were found; a missing one stays missing, so that validation says so."""
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
    id = _as_text(value.get("id")) or f"{prefix}-{split}-{line.number}"
    answers = value.get("answers", value.get("answer"))
    if answers is None and value.get("answerable") is False:
        answers = UNKNOWN
    passed_on = {name: value[name] for name in PASSED_ON if value.get(name) is not None}
    task = _present(id=id, scenario=id, split=split, instruction=value.get("question"), answers=_as_list(answers))
    return task | passed_on | ({"scenario": _as_text(value["scenario"])} if "scenario" in passed_on else {})


def _as_list(answers: Any) -> list | None:
    """Answers without repetitions; a number counts as its digits."""
    if answers is None:
        return None
    found = answers if isinstance(answers, list | tuple) else [answers]
    as_found = [str(item) if isinstance(item, int | float) and not isinstance(item, bool) else item for item in found]
    return [item for place, item in enumerate(as_found) if item not in as_found[:place]]


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _musique_task(line: Line, split: str) -> dict[str, Any]:
    value = line.value
    steps = [step for step in _list_of_objects(value.get("question_decomposition"))]
    answerable = value.get("answerable") is not False
    answers = [value.get("answer"), *(value.get("answer_aliases") or ())] if value.get("answer") is not None else None
    task = _plain_task(replace(line, value={**value, "answers": answers if answerable else list(UNKNOWN)}), split, prefix="musique")
    return task | _present(
        answerable=answerable,
        hops=len(steps) or None,
        supporting=_musique_supporting(value, steps),
        plan=_musique_plan(steps) or None,
    )


def _list_of_objects(value: Any) -> list[Mapping]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _musique_plan(steps: list[Mapping]) -> list[str]:
    """The sub-questions in order: `#k` filled in with the answer of step k, `A >> relation` written as `A relation`."""

    def answer_of(match: re.Match) -> str:
        place = int(match[1]) - 1
        return str(steps[place].get("answer", match[0])) if 0 <= place < len(steps) else match[0]

    return [" ".join(re.sub(r"#(\d+)", answer_of, str(step.get("question", "")).replace(">>", " ")).split()) for step in steps]


def _musique_supporting(value: Mapping, steps: list[Mapping]) -> list[str]:
    """Ids of the supporting paragraphs, in the order of the steps where these name them."""
    paragraphs = _list_of_objects(value.get("paragraphs"))
    by_place = {paragraph.get("idx"): paragraph for paragraph in paragraphs}
    named = [by_place[place] for step in steps if (place := step.get("paragraph_support_idx")) in by_place]
    marked = [paragraph for paragraph in paragraphs if paragraph.get("is_supporting")]
    return list(dict.fromkeys(_paragraph_id(paragraph) for paragraph in named or marked))


def _musique_passages(value: Mapping) -> Iterator[dict[str, Any]]:
    for paragraph in _list_of_objects(value.get("paragraphs")):
        yield _present(id=_paragraph_id(paragraph), title=paragraph.get("title", ""), text=paragraph.get("paragraph_text"))


def _paragraph_id(paragraph: Mapping) -> str:
    words = f"{paragraph.get('title', '')}\n{paragraph.get('paragraph_text', '')}"
    return f"musique-p{sha256(words.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"


def _first_of_each(passages: Iterable[Candidate]) -> list[Candidate]:
    """Pools the paragraphs: the same title and text is one passage, found where it came first."""
    pooled: dict[str, Candidate] = {}
    for passage in passages:
        pooled.setdefault(passage.record["id"], passage)
    return list(pooled.values())
