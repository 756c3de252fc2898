"""Hand-written tasks, episodes, and an evaluated pipeline for tests."""

from dataclasses import replace
from pathlib import Path

from apprentice.config import Layout, PipelineConfig, load_pipeline
from apprentice.evaluation.comparison import SAMPLED
from apprentice.records import Task, Trajectory, Turn
from apprentice.records.files import write_json, write_text
from apprentice.records.tables import write_tasks, write_trajectories
from apprentice.usecases.assistant.metrics.goals import MEASURE as ASSISTANT
from apprentice.usecases.deepsearch.metrics.measure import CONDITIONS, compare


def task(number: int, answer: str = "Oslo", *, hops: int = 1, answerable: bool = True, instruction: str = "Where does Ada work?") -> Task:
    answers = (answer,) if answerable else ("unknown",)
    return Task(id=f"t{number}", scenario=f"s{number}", split="dev", instruction=instruction, answers=answers, answerable=answerable, hops=hops)


def episode(task_id: str, answer: str, actions=None, *, temperature: float = 0.0, outcome: str = "failure", attempt: int = 0) -> Trajectory:
    """An episode whose turns are `(kind, action, observation)`; without them, one answer."""
    actions = [("answer", f"<answer>{answer}</answer>", "")] if actions is None else actions
    turns = tuple(Turn(2 + 4 * i, 4 + 4 * i, action, observation, kind, 0) for i, (kind, action, observation) in enumerate(actions))
    length = 4 * max(1, len(turns))
    mask = tuple(int(position % 4 >= 2) for position in range(length))
    return Trajectory(
        id=f"{task_id}/{attempt}/{temperature}",
        task_id=task_id,
        group=task_id,
        token_ids=tuple(range(length)),
        action_mask=mask,
        logprobs=tuple(-0.5 if bit else 0.0 for bit in mask),
        turns=turns,
        reward=0.0,
        outcome=outcome,
        answer=answer,
        seed=0,
        temperature=temperature,
    )


NASTY = "<script>alert('x')</script>"
RATES = {"base_closed_book": 10, "base_rag": 5, "before": 8, "warm_start": 3}
"""Condition -> n: every n-th answer is right. Under the trained policy, every fifth is wrong."""


def evaluated_project(root: Path, *, answers: str = "Oslo", number: int = 24) -> tuple[PipelineConfig, Layout, list[Task], dict[str, list[Trajectory]], dict]:
    """Write the outputs of the stage evaluate for invented episodes, which improve with training and contain hostile text."""
    config, layout = load_pipeline("quick", Path(__file__).parents[1] / "params.yaml"), Layout("quick", root)
    tasks = [task(index, answers, hops=1 + index % 3, answerable=index % 8 != 0) for index in range(number)]
    episodes = {name: _condition(name, tasks) for name in CONDITIONS}
    metrics = compare(tasks, episodes, config.evaluate, dict.fromkeys(CONDITIONS, 1.0))
    _write(layout, tasks, episodes, metrics)
    return config, layout, tasks, episodes, metrics


def _write(layout: Layout, tasks: list[Task], episodes: dict[str, list[Trajectory]], metrics: dict) -> None:
    write_tasks(layout.tasks, tasks)
    for name, of_condition in episodes.items():
        write_trajectories(layout.evaluations / f"{name}.parquet", of_condition)
    write_json(layout.metrics("evaluation"), metrics)
    write_json(layout.metrics("validation"), {"tasks": len(tasks), "reasons": {"duplicate": 1}})
    write_text(layout.curves("training"), "step,reward,kl_reference,entropy\n0,0.2,0.0,1.5\n1,0.4,0.001,\n2,0.5,0.002,1.2\n")
    write_text(layout.curves("difficulty"), "task_id,pass_rate\na,0.0\nb,0.5\nc,0.5\n")


def _condition(name: str, tasks: list[Task]) -> list[Trajectory]:
    episodes = []
    for temperature in (0.0, 1.0) if name in SAMPLED else (0.0,):
        for index, of_task in enumerate(tasks):
            right = index % 5 != 0 if name == "trained" else index % RATES[name] == 1
            answer = of_task.answers[0] if right else NASTY
            turns = [("search", f"<search>Ada {NASTY}</search>", f"(1) Ada: {NASTY}"), ("answer", f"<answer>{answer}</answer>", "")]
            episodes.append(episode(of_task.id, answer, turns, temperature=temperature, outcome="success" if right else "failure"))
    return episodes


def errand(scenario: str, variant: int = 1, *, split: str = "variants", difficulty: int | None = 1) -> Task:
    """A task of the personal assistant."""
    words = f"Like all songs of playlist {variant}."
    return Task(id=f"{scenario}_{variant}", scenario=scenario, split=split, instruction=words, judge="environment", difficulty=difficulty)


def turn(action: str, kind: str = "code", calls: tuple[str, ...] = (), observation: str = "", *, place: int = 0) -> Turn:
    """A turn of the personal assistant."""
    return Turn(2 + 4 * place, 4 + 4 * place, action, observation, kind, 0, calls)


LOOK = ("api_docs.show_app_descriptions 200", "api_docs.show_api_doc(spotify.login) 200")
LIKES = ("spotify.login 200", *("spotify.like_song 200",) * 12)


def run_errand(of_task: Task, *, solved: bool, temperature: float = 0.0, attempt: int = 0, outcome: str = "") -> Trajectory:
    """An episode of three turns with hostile texts: a good one looks up what it calls, a bad one guesses a password."""
    made = [
        turn(f"I look it up.\n```python\nprint(apis.api_docs) # {NASTY}\n```", "code", LOOK, NASTY),
        turn("```python\nfor song in songs: like(song)\n```", "code", LIKES, "12 liked", place=1),
        turn("```python\napis.supervisor.complete_task()\n```", "complete", ("supervisor.complete_task 200",), place=2),
    ]
    guessed = [
        turn("I assume this works.\n```python\nlogin('your_password')\n```", "error", ("spotify.login 401",), f"Exception {NASTY}"),
        turn("Perhaps not.", "malformed", (), "Write one block", place=1),
        turn("```python\nx = 1\n```\n```python\ny = 2\n```", "code", (), "", place=2),
    ]
    blank = episode(of_task.id, "", [("", "", "")] * 3, temperature=temperature, outcome=outcome or ("success" if solved else "failure"), attempt=attempt)
    return replace(blank, turns=tuple(made if solved else guessed), reward=float(solved))


def assistant_project(root: Path) -> tuple[PipelineConfig, Layout, list[Task], dict[str, list[Trajectory]], dict]:
    """Like `evaluated_project`, for the assistant: 24 held-out variants of 12 scenarios, and 12 tasks of 4 new scenarios."""
    config, layout = load_pipeline("assistant", Path(__file__).parents[1] / "params.yaml"), Layout("assistant", root)
    config = config.model_copy(update={"evaluate": config.evaluate.model_copy(update={"samples": 1})})
    tasks = [errand(f"known{index // 2}", 1 + index % 2, difficulty=1 + index % 3) for index in range(24)]
    tasks += [errand(f"new{index // 3}", 1 + index % 3, split="dev", difficulty=1 + index // 3 % 3) for index in range(12)]
    episodes = {name: _errands(name, tasks, config.evaluate.samples) for name in ASSISTANT.conditions}
    metrics = ASSISTANT.compare(tasks, episodes, config.evaluate, dict.fromkeys(ASSISTANT.conditions, 1.0))
    _write(layout, tasks, episodes, metrics)
    return config, layout, tasks, episodes, metrics


def _errands(name: str, tasks: list[Task], samples: int) -> list[Trajectory]:
    """Every eighth task is solved before training, every third after the warm start, and all but every fifth after training."""
    attempts = [(0.0, 0), *((1.0, attempt) for attempt in range(samples) if name in SAMPLED)]
    solved = {"before": lambda index: index % 8 == 1, "warm_start": lambda index: index % 3 == 1, "trained": lambda index: index % 5 != 0}[name]
    return [
        run_errand(of_task, solved=solved(index), temperature=temperature, attempt=attempt)
        for temperature, attempt in attempts
        for index, of_task in enumerate(tasks)
    ]
