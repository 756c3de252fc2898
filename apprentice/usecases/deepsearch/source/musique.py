"""MuSiQue's official records: plans, supporting paragraphs, and the unanswerable questions of MuSiQue-Full."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any


def objects(value: Any) -> list[Mapping]:
    """Return the objects of a list; none if `value` is not a list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def steps_of(value: Mapping) -> list[Mapping]:
    """Return the sub-questions of a record, in order."""
    return objects(value.get("question_decomposition"))


def plan_of(value: Mapping) -> list[str]:
    """Return the texts of the sub-questions: `#k` is replaced with the answer of step k, and `A >> relation` with `A
    relation`."""
    steps = steps_of(value)

    def answer_of(match: re.Match) -> str:
        place = int(match[1]) - 1
        return str(steps[place].get("answer", match[0])) if 0 <= place < len(steps) else match[0]

    return [" ".join(re.sub(r"#(\d{1,3})", answer_of, str(step.get("question", "")).replace(">>", " ")).split()) for step in steps]


def supporting(value: Mapping) -> list[str]:
    """Return the ids of the supporting paragraphs, in the order of the steps if these name them."""
    by_place = _by_place(value)
    named = [by_place[place] for step in steps_of(value) if (place := str(step.get("paragraph_support_idx"))) in by_place]
    marked = [paragraph for paragraph in objects(value.get("paragraphs")) if paragraph.get("is_supporting")]
    return list(dict.fromkeys(_paragraph_id(paragraph) for paragraph in named or marked))


def passages_of(value: Mapping) -> Iterator[dict[str, Any]]:
    """Yield a passage for each paragraph; its id is a hash of its title and text."""
    for paragraph in objects(value.get("paragraphs")):
        yield {"id": _paragraph_id(paragraph), "title": paragraph.get("title", ""), "text": paragraph.get("paragraph_text")}


def missing_answers(value: Mapping) -> list[str]:
    """Return the answers that an unanswerable question's own paragraphs lack: those of the steps without a
    paragraph."""
    steps, by_place = steps_of(value), _by_place(value)
    if not steps:
        return [str(value["answer"])] if value.get("answer") is not None else []
    return [str(step["answer"]) for step in steps if str(step.get("paragraph_support_idx")) not in by_place and step.get("answer") is not None]


def may_be_answered(evidence: Sequence[str], missing: Sequence[str], pooled: set[str], holds: Callable[[str], bool]) -> bool:
    """Return whether the pooled paragraphs of all questions may answer a question that its own paragraphs cannot
    answer.

    Args:
        evidence: ids of the paragraphs that answer it, from the answerable question with its id; empty if there is
            none.
        missing: the answers that its own paragraphs lack.
        pooled: ids of all paragraphs.
        holds: whether any of the pooled paragraphs contains a phrase.
    """
    if evidence:
        return pooled.issuperset(evidence)
    return all(holds(answer) for answer in missing)


def _by_place(value: Mapping) -> dict[str, Mapping]:
    return {str(paragraph.get("idx")): paragraph for paragraph in objects(value.get("paragraphs")) if paragraph.get("idx") is not None}


def _paragraph_id(paragraph: Mapping) -> str:
    words = f"{paragraph.get('title', '')}\n{paragraph.get('paragraph_text', '')}"
    return f"musique-p{sha256(words.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"
