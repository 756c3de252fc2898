"""The stage validate warns about answers whose punctuation carries meaning."""

import json
from pathlib import Path

from apprentice.config import Layout, load_pipeline
from apprentice.records.events import Progress
from apprentice.stages import validate


def test_validate_says_how_many_answers_lose_their_meaning_and_where_the_first_is(tmp_path):
    layout, config = Layout("quick", tmp_path), load_pipeline("quick", Path(__file__).parents[3] / "params.yaml")
    answers = {1: "Oslo", 2: "C#", 3: "-5", 4: "Rome"}
    tasks = [
        {"id": f"t{n}", "scenario": f"s{n}", "split": "dev" if n % 2 else "train", "instruction": f"Question {n}?", "answers": [answer]}
        for n, answer in answers.items()
    ]
    passages = [{"id": "p", "title": "All", "text": "Oslo, C#, -5, Rome"}]
    for name, records in (("tasks", tasks), ("corpus", passages)):
        path = layout.raw / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps({"file": "mine.jsonl", "line": n, "record": record}) + "\n" for n, record in enumerate(records, 1)))
    validate.run(config, layout, Progress(layout.events, "validate"))
    [warning] = [line for line in map(json.loads, layout.events.read_text().splitlines()) if "warning" in line.get("text", "")]
    assert "2 accepted answers" in warning["text"] and "mine.jsonl:2 accepts 'C#'" in warning["text"]
