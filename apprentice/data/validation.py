"""Validates candidates: decides which become tasks and passages, and why the others are rejected."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from apprentice.config.schema import ValidateConfig
from apprentice.data.candidates import SPLITS, VARIANTS, Candidate
from apprentice.data.matching import PhraseIndex
from apprentice.records import Passage, Task
from apprentice.records.normalise import normalise
from apprentice.records.record import Record
from apprentice.records.task import UNKNOWN

R = TypeVar("R", bound=Record)

UNREADABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffd\ud800-\udfff]")
"""Control characters, the replacement character, and lone surrogates."""
_CONTINUATION = "".join(sorted({bytes([byte]).decode(encoding, "ignore") for byte in range(0x80, 0xC0) for encoding in ("latin-1", "cp1252")}))
MOJIBAKE = re.compile(f"[ÃÂ][{re.escape(_CONTINUATION)}]|â€|ï»¿|ï¿½")
"""UTF-8 that was decoded as Latin-1 or Windows-1252, such as Ã© for é."""
REASONS = ("unparsable", "invalid_field", "broken_encoding", "too_long", "duplicate_id", "duplicate_task", "leakage", "answer_absent")
MAX_HOPS_COUNTED = 4
"""Tasks with this many hops or more share one metric."""
MAX_HOPS, MAX_STEPS = 10, 30
"""Limits on a task's hops and on the steps of its plan; more are taken for an error in the source."""
INSTRUCTION_LIMIT, PASSAGE_LIMIT = "a quarter of environment.max_tokens", "policy.max_context"
"""The parameters that set the length limits, for messages."""
MAX_TOKEN_CHARS = 100
"""Upper bound on the characters per token. A text that exceeds its limit by this bound is rejected without tokenizing
it, which could take minutes."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """The length limits of texts, in tokens of the pipeline's model."""

    count: Callable[[str], int]
    """Counts the tokens of a text."""
    instruction: int
    """Limit of an instruction."""
    passage: int
    """Limit of a passage's title, and of its text."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A reason to reject a record."""

    reason: str
    """One of REASONS."""
    field: str
    text: str


@dataclass(slots=True)
class Entry(Generic[R]):
    """A candidate and the result of its checks."""

    candidate: Candidate
    record: R | None = None
    problems: list[Problem] = field(default_factory=list)
    dropped_answers: int = 0
    """Number of dropped answers that are empty after normalisation, where others remain."""

    @property
    def place(self) -> str:
        return f"{self.candidate.file}:{self.candidate.line}"

    def reject(self, reason: str, field: str, text: str) -> None:
        self.problems.append(Problem(reason, field, text))

    def quarantine_row(self) -> dict[str, Any]:
        """Return the row for the quarantine: the record as found, and one `file:line:field: reason` per problem."""
        reasons = [f"{self.place}:{problem.field + ':' if problem.field else ''} {problem.text}" for problem in self.problems]
        return {"file": self.candidate.file, "line": self.candidate.line, "record": self.candidate.record, "reasons": reasons}


@dataclass(frozen=True, slots=True)
class Validation:
    """All candidates with the results of their checks."""

    tasks: Sequence[Entry[Task]]
    passages: Sequence[Entry[Passage]]

    @property
    def clean_tasks(self) -> list[Task]:
        return [entry.record for entry in _clean(self.tasks)]

    @property
    def clean_passages(self) -> list[Passage]:
        return [entry.record for entry in _clean(self.passages)]

    @property
    def rejected(self) -> list[Entry]:
        """The rejected tasks, then the rejected passages, in the order of the source."""
        return [entry for entry in (*self.tasks, *self.passages) if entry.problems]

    def count_reasons(self, entries: Iterable[Entry] | None = None) -> dict[str, int]:
        """Return reason -> number of rejected records among `entries`, or all; one with two reasons counts for both."""
        found = Counter(reason for entry in (self.rejected if entries is None else entries) for reason in {problem.reason for problem in entry.problems})
        return {reason: found[reason] for reason in REASONS}


def validate_candidates(tasks: Iterable[Candidate], passages: Iterable[Candidate], limits: ValidateConfig, lengths: Lengths) -> Validation:
    """Check every candidate. Checks that compare records skip rejected ones, and keep the first of several duplicates.

    If a task leaks between splits, its held-out copy is kept, so that evaluations stay comparable. Answers are searched
    in the passages only if there are any and few are bad, so that tasks are not rejected because of a broken corpus.
    """
    task_entries = [_task_entry(candidate, lengths) for candidate in tasks]
    passage_entries = [_parsed(candidate, Passage, lambda passage: _passage_problems(passage, lengths)) for candidate in passages]
    _reject_duplicate_ids(passage_entries)
    _reject_duplicate_ids(task_entries)
    _reject_duplicate_tasks(task_entries)
    _reject_leakage(task_entries)
    if limits.require_answer_in_corpus and passage_entries and share_rejected(passage_entries) <= limits.max_bad_share:
        _reject_absent_answers(task_entries, [entry.record for entry in _clean(passage_entries)])
    return Validation(task_entries, passage_entries)


def summarise(validation: Validation) -> dict[str, float]:
    """Return the metrics for validation.json; shares are between 0 and 1."""
    tasks, passages = validation.clean_tasks, validation.clean_passages
    hops = Counter(min(task.hops, MAX_HOPS_COUNTED) for task in tasks)
    return {
        "tasks_read": len(validation.tasks),
        "tasks_clean": len(tasks),
        "tasks_quarantined": len(validation.tasks) - len(tasks),
        "bad_share": share_rejected(validation.tasks),
        "passages_read": len(validation.passages),
        "passages_clean": len(passages),
        "passages_quarantined": len(validation.passages) - len(passages),
        "passages_bad_share": share_rejected(validation.passages),
        **{f"tasks_{split}": sum(task.split == split for task in tasks) for split in (*SPLITS, VARIANTS)},
        **{f"tasks_{count}_hops{'_or_more' if count == MAX_HOPS_COUNTED else ''}": hops[count] for count in range(1, MAX_HOPS_COUNTED + 1)},
        "tasks_unanswerable": sum(not task.answerable for task in tasks),
        "answers_dropped": sum(entry.dropped_answers for entry in validation.tasks),
        **{f"refused_{reason}": count for reason, count in validation.count_reasons().items()},
    }


def share_rejected(entries: Sequence[Entry]) -> float:
    """Return the share of rejected candidates; 0 if there are none."""
    return round(sum(bool(entry.problems) for entry in entries) / len(entries), 6) if entries else 0.0


def _clean(entries: Iterable[Entry[R]]) -> list[Entry[R]]:
    return [entry for entry in entries if not entry.problems]


def _task_entry(candidate: Candidate, lengths: Lengths) -> Entry[Task]:
    """Check a task, without the answers that are empty after normalisation if others remain."""
    answers = (candidate.record or {}).get("answers")
    kept = [answer for answer in answers if not _is_empty(answer)] if isinstance(answers, list) else answers
    if not kept or len(kept) == len(answers):
        return _parsed(candidate, Task, lambda task: _task_problems(task, lengths))
    reduced = replace(candidate, record=candidate.record | {"answers": kept})
    entry = _parsed(reduced, Task, lambda task: _task_problems(task, lengths))
    entry.candidate, entry.dropped_answers = candidate, len(answers) - len(kept)
    return entry


def _is_empty(answer: Any) -> bool:
    return answer is None or (isinstance(answer, str) and not normalise(answer))


def _parsed(candidate: Candidate, model: type[R], check: Callable[[R], Iterable[Problem]]) -> Entry[R]:
    entry: Entry[R] = Entry(candidate)
    if candidate.record is None:
        entry.reject("unparsable", "", candidate.error or "could not be read")
        return entry
    try:
        entry.record = model.model_validate(candidate.record)
    except ValidationError as error:
        for detail in error.errors():
            words = detail["msg"].removeprefix("Value error, ")
            entry.reject("invalid_field", ".".join(str(part) for part in detail["loc"]), words[0].lower() + words[1:])
        return entry
    entry.problems += check(entry.record)
    return entry


def _task_problems(task: Task, lengths: Lengths) -> Iterable[Problem]:
    if task.split not in (*SPLITS, VARIANTS):
        yield Problem("invalid_field", "split", f"{task.split!r} is not one of {', '.join((*SPLITS, VARIANTS))}")
    if not task.answerable and task.answers != UNKNOWN:
        yield Problem("invalid_field", "answers", f"the only answer of an unanswerable task must be {UNKNOWN[0]!r}")
    for answer in task.answers:
        if not normalise(answer):
            yield Problem("invalid_field", "answers", f"{answer!r} is empty without punctuation and articles")
    if task.hops > MAX_HOPS:
        yield Problem("invalid_field", "hops", f"{task.hops} hops, more than {MAX_HOPS}")
    if len(task.plan) > MAX_STEPS:
        yield Problem("invalid_field", "plan", f"{len(task.plan)} steps, more than {MAX_STEPS}")
    yield from _length_problems("instruction", task.instruction, lengths.count, lengths.instruction, INSTRUCTION_LIMIT)
    yield from _encoding_problems(task)


def _passage_problems(passage: Passage, lengths: Lengths) -> Iterable[Problem]:
    for name in ("title", "text"):
        yield from _length_problems(name, getattr(passage, name), lengths.count, lengths.passage, PASSAGE_LIMIT)
    yield from _encoding_problems(passage)


def _length_problems(name: str, text: str, count: Callable[[str], int], most: int, limit: str) -> Iterable[Problem]:
    """Tokenize a text only if it has more bytes than the limit, because a token has at least one byte."""
    if len(text) > most * MAX_TOKEN_CHARS:
        yield Problem("too_long", name, f"{len(text)} characters, far more than {most} tokens ({limit})")
    elif len(text.encode("utf-8", "surrogatepass")) > most and (tokens := count(text)) > most:
        yield Problem("too_long", name, f"{tokens} tokens, more than {most} ({limit})")


def _encoding_problems(record: Record) -> Iterable[Problem]:
    for name, text in _texts(record):
        if found := UNREADABLE.search(text):
            yield Problem("broken_encoding", name, f"contains the unreadable character U+{ord(found[0]):04X} at position {found.start()}")
        if found := MOJIBAKE.search(text):
            yield Problem("broken_encoding", name, f"contains {found[0]!r} at position {found.start()}: UTF-8 decoded as another encoding")


def _texts(record: Record) -> Iterator[tuple[str, str]]:
    """Yield (field, text) for every text of a record."""
    for name, value in record:
        yield from ((name, text) for text in (value if isinstance(value, tuple) else (value,)) if isinstance(text, str))


def _reject_duplicate_ids(entries: Iterable[Entry]) -> None:
    first: dict[str, Entry] = {}
    for entry in _clean(entries):
        if (known := first.setdefault(entry.record.id, entry)) is not entry:
            entry.reject("duplicate_id", "id", f"{entry.record.id!r} is also the id of {known.place}")


def _reject_duplicate_tasks(entries: Iterable[Entry[Task]]) -> None:
    """Reject the second of two tasks of a split with the same question and the same answers, or the same first
    answer."""
    first: dict[Hashable, Entry] = {}
    for entry in _clean(entries):
        task = entry.record
        if task.judge == "environment":  # the same instruction may apply to different worlds
            continue
        answers = tuple(map(normalise, task.answers))
        for key in ((task.split, normalise(task.instruction), kind) for kind in (frozenset(answers), answers[0])):
            if (known := first.setdefault(key, entry)) is not entry:
                entry.reject("duplicate_task", "instruction", f"the same question with the same answers is at {known.place}")
                break


def _reject_leakage(entries: Iterable[Entry[Task]]) -> None:
    """Reject a training task that shares its instruction or its scenario with a held-out task."""
    held_out: dict[tuple[str, str], Entry[Task]] = {}
    by_split: dict[str, list[Entry[Task]]] = defaultdict(list)
    for entry in _clean(entries):
        by_split[entry.record.split].append(entry)
    for split in reversed(SPLITS):
        for entry in by_split[split]:
            for name, key in (("instruction", normalise(entry.record.instruction)), ("scenario", entry.record.scenario)):
                known = held_out.setdefault((name, key), entry)
                if known.record.split != split:
                    entry.reject("leakage", name, f"the split {known.record.split!r} has the same {name} at {known.place}")


def _reject_absent_answers(entries: Iterable[Entry[Task]], passages: Iterable[Passage]) -> None:
    corpus = PhraseIndex(f"{passage.title} {passage.text}" for passage in passages)
    for entry in _clean(entries):
        task = entry.record
        if task.judge == "answers" and task.answerable and not any(map(corpus.contains, task.answers)):
            listed = ", ".join(repr(answer) for answer in task.answers[:3])
            entry.reject("answer_absent", "answers", f"no passage of the knowledge base contains {listed}")
