"""Judges candidates: which become tasks and passages, and why the others are refused."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from apprentice.config.schema import ValidateConfig
from apprentice.data.readers import SPLITS, UNKNOWN, VARIANTS, Candidate
from apprentice.environments.deepsearch.scoring import normalise
from apprentice.records import Passage, Task
from apprentice.records.record import Record

R = TypeVar("R", bound=Record)

UNREADABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffd\ud800-\udfff]")
"""Control characters, what decoders put in place of bytes they could not read, and halves of surrogate pairs."""
_CONTINUATION = "".join(sorted({bytes([byte]).decode(encoding, "ignore") for byte in range(0x80, 0xC0) for encoding in ("latin-1", "cp1252")}))
MOJIBAKE = re.compile(f"[ÃÂ][{re.escape(_CONTINUATION)}]|â€|ï»¿|ï¿½")
"""UTF-8 that was read as Latin-1 or Windows-1252, such as Ã© for é."""
JOINTS = re.compile(r"['’]s\b|[-–—/]")
REASONS = ("unparsable", "invalid_field", "broken_encoding", "too_long", "duplicate_id", "duplicate_task", "leakage", "answer_absent")
MOST_HOPS_COUNTED = 4


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a record is refused."""

    reason: str
    """One of REASONS."""
    field: str
    text: str


@dataclass(slots=True)
class Entry(Generic[R]):
    """A candidate under examination."""

    candidate: Candidate
    record: R | None = None
    problems: list[Problem] = field(default_factory=list)

    @property
    def place(self) -> str:
        return f"{self.candidate.file}:{self.candidate.line}"

    def refuse(self, reason: str, field: str, text: str) -> None:
        self.problems.append(Problem(reason, field, text))

    def refusal(self) -> dict[str, Any]:
        """What quarantine keeps: the record as it was found, and a reason a problem (`file:line:field: reason`)."""
        reasons = [f"{self.place}:{problem.field + ':' if problem.field else ''} {problem.text}" for problem in self.problems]
        return {"file": self.candidate.file, "line": self.candidate.line, "record": self.candidate.record, "reasons": reasons}


@dataclass(frozen=True, slots=True)
class Judged:
    """All candidates, judged."""

    tasks: Sequence[Entry[Task]]
    passages: Sequence[Entry[Passage]]

    @property
    def clean_tasks(self) -> list[Task]:
        return [entry.record for entry in _clean(self.tasks)]

    @property
    def clean_passages(self) -> list[Passage]:
        return [entry.record for entry in _clean(self.passages)]

    @property
    def refused(self) -> list[Entry]:
        """Tasks first, each in the order it was read."""
        return [entry for entry in (*self.tasks, *self.passages) if entry.problems]

    def count_reasons(self) -> dict[str, int]:
        """Refused records a reason; one with two reasons counts in both."""
        found = Counter(reason for entry in self.refused for reason in {problem.reason for problem in entry.problems})
        return {reason: found[reason] for reason in REASONS}


def judge(tasks: Iterable[Candidate], passages: Iterable[Candidate], limits: ValidateConfig) -> Judged:
    """Examines every candidate. Checks that compare records look at those that passed so far, and keep the first of equals.

    Of a task that leaks between splits, the held-out side is kept, so that evaluations stay comparable.
    """
    task_entries = [_parsed(candidate, Task, lambda task: _task_problems(task, limits)) for candidate in tasks]
    passage_entries = [_parsed(candidate, Passage, lambda passage: _passage_problems(passage, limits)) for candidate in passages]
    _refuse_duplicate_ids(passage_entries)
    _refuse_duplicate_ids(task_entries)
    _refuse_duplicate_tasks(task_entries)
    _refuse_leakage(task_entries)
    if limits.require_answer_in_corpus:
        _refuse_absent_answers(task_entries, [entry.record for entry in _clean(passage_entries)])
    return Judged(task_entries, passage_entries)


def summarise(judged: Judged) -> dict[str, float]:
    """The stage's figures; shares are between 0 and 1."""
    tasks, passages = judged.clean_tasks, judged.clean_passages
    hops = Counter(min(task.hops, MOST_HOPS_COUNTED) for task in tasks)
    return {
        "tasks_read": len(judged.tasks),
        "tasks_clean": len(tasks),
        "tasks_quarantined": len(judged.tasks) - len(tasks),
        "bad_share": share_refused(judged.tasks),
        "passages_read": len(judged.passages),
        "passages_clean": len(passages),
        "passages_quarantined": len(judged.passages) - len(passages),
        "passages_bad_share": share_refused(judged.passages),
        **{f"tasks_{split}": sum(task.split == split for task in tasks) for split in (*SPLITS, VARIANTS)},
        **{f"tasks_{count}_hops{'_or_more' if count == MOST_HOPS_COUNTED else ''}": hops[count] for count in range(1, MOST_HOPS_COUNTED + 1)},
        "tasks_unanswerable": sum(not task.answerable for task in tasks),
        **{f"refused_{reason}": count for reason, count in judged.count_reasons().items()},
    }


def share_refused(entries: Sequence[Entry]) -> float:
    """Share of the candidates that were refused; 0 of none."""
    return round(sum(bool(entry.problems) for entry in entries) / len(entries), 6) if entries else 0.0


def _clean(entries: Iterable[Entry[R]]) -> list[Entry[R]]:
    return [entry for entry in entries if not entry.problems]


def _parsed(candidate: Candidate, model: type[R], check: Callable[[R], Iterable[Problem]]) -> Entry[R]:
    entry: Entry[R] = Entry(candidate)
    if candidate.record is None:
        entry.refuse("unparsable", "", candidate.error or "could not be read")
        return entry
    try:
        entry.record = model.model_validate(candidate.record)
    except ValidationError as error:
        for detail in error.errors():
            words = detail["msg"].removeprefix("Value error, ")
            entry.refuse("invalid_field", ".".join(str(part) for part in detail["loc"]), words[0].lower() + words[1:])
        return entry
    entry.problems += check(entry.record)
    return entry


def _task_problems(task: Task, limits: ValidateConfig) -> Iterable[Problem]:
    if task.split not in (*SPLITS, VARIANTS):
        yield Problem("invalid_field", "split", f"{task.split!r} is not one of {', '.join((*SPLITS, VARIANTS))}")
    if not task.answerable and task.answers != UNKNOWN:
        yield Problem("invalid_field", "answers", f"a task that cannot be answered has the one answer {UNKNOWN[0]!r}")
    for answer in task.answers:
        if not normalise(answer):
            yield Problem("invalid_field", "answers", f"nothing is left of {answer!r} once case, punctuation and articles are ignored")
    yield from _length_problems("instruction", task.instruction, limits.max_instruction_words, "validation.max_instruction_words")
    for name, text in (("id", task.id), ("instruction", task.instruction), *(("answers", answer) for answer in task.answers)):
        yield from _encoding_problems(name, text)


def _passage_problems(passage: Passage, limits: ValidateConfig) -> Iterable[Problem]:
    yield from _length_problems("text", passage.text, limits.max_passage_words, "validation.max_passage_words")
    for name, text in (("id", passage.id), ("title", passage.title), ("text", passage.text)):
        yield from _encoding_problems(name, text)


def _length_problems(name: str, text: str, most: int, parameter: str) -> Iterable[Problem]:
    words = len(text.split())
    if words > most:
        yield Problem("too_long", name, f"{words} words, more than {parameter}={most}")


def _encoding_problems(name: str, text: str) -> Iterable[Problem]:
    if found := UNREADABLE.search(text):
        yield Problem("broken_encoding", name, f"holds the unreadable character U+{ord(found[0]):04X} at position {found.start()}")
    if found := MOJIBAKE.search(text):
        yield Problem("broken_encoding", name, f"holds {found[0]!r} at position {found.start()}: UTF-8 that was read in another encoding")


def _refuse_duplicate_ids(entries: Iterable[Entry]) -> None:
    first: dict[str, Entry] = {}
    for entry in _clean(entries):
        if (known := first.setdefault(entry.record.id, entry)) is not entry:
            entry.refuse("duplicate_id", "id", f"{entry.record.id!r} is also the id of {known.place}")


def _refuse_duplicate_tasks(entries: Iterable[Entry[Task]]) -> None:
    first: dict[tuple, Entry] = {}
    for entry in _clean(entries):
        task = entry.record
        if task.judge == "environment":  # the same words may be about another person's data
            continue
        key = (task.split, normalise(task.instruction), frozenset(map(normalise, task.answers)))
        if (known := first.setdefault(key, entry)) is not entry:
            entry.refuse("duplicate_task", "instruction", f"the same question with the same answers is at {known.place}")


def _refuse_leakage(entries: Iterable[Entry[Task]]) -> None:
    """Refuses a task of another split that asks what a held-out task asks, or that shares its scenario."""
    held_out: dict[tuple[str, str], Entry[Task]] = {}
    by_split: dict[str, list[Entry[Task]]] = defaultdict(list)
    for entry in _clean(entries):
        by_split[entry.record.split].append(entry)
    for split in reversed(SPLITS):
        for entry in by_split[split]:
            for name, key in (("instruction", normalise(entry.record.instruction)), ("scenario", entry.record.scenario)):
                known = held_out.setdefault((name, key), entry)
                if known.record.split != split:
                    entry.refuse("leakage", name, f"the split {known.record.split!r} has the same {name} at {known.place}")


def _refuse_absent_answers(entries: Iterable[Entry[Task]], passages: Iterable[Passage]) -> None:
    corpus = "\n".join(_findable(f"{passage.title} {passage.text}") for passage in passages)
    for entry in _clean(entries):
        task = entry.record
        if task.judge == "answers" and task.answerable and not any(_findable(answer) in corpus for answer in task.answers):
            listed = ", ".join(repr(answer) for answer in task.answers[:3])
            entry.refuse("answer_absent", "answers", f"no passage of the knowledge base holds {listed}")


def _findable(text: str) -> str:
    """Normalised, with the words that a possessive or a dash ties together taken apart: `Ptolemy's` holds `Ptolemy`."""
    return f" {normalise(JOINTS.sub(' ', text))} "
