"""The scripted expert: it searches for each step of a task's plan and answers from the passages that it sees."""

import re
from collections.abc import Generator, Iterable

from apprentice.records import Task

LINE_NUMBER = re.compile(r"^\(\d+\) ")
FRAME = ("<information>", "</information>")


def expert_actions(task: Task) -> Generator[str, str, None]:
    """Yield actions and receive their observations; return without an answer if no accepted answer is visible."""
    seen: list[str] = []
    for query in task.plan or (task.instruction,):
        seen.append((yield f"<search>{query}</search>"))
    answer = visible_answer(task.answers, seen) if task.answerable else task.answers[0]
    if answer is not None:
        yield f"<answer>{answer}</answer>"


def visible_answer(answers: Iterable[str], observations: Iterable[str]) -> str | None:
    """Return the shortest accepted answer that occurs in the observations as whole words, spelled as it is there."""
    passages = "\n".join(LINE_NUMBER.sub("", line) for text in observations for line in text.splitlines() if line not in FRAME)
    for answer in sorted(answers, key=len):
        words = r"\s+".join(re.escape(word) for word in answer.split())
        found = re.search(rf"(?<!\w){words}(?!\w)", passages, re.IGNORECASE)
        if found:
            return " ".join(found.group().split())
    return None
