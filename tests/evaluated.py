"""Tasks, episodes and an evaluated pipeline for the tests, written by hand."""

from pathlib import Path

from apprentice.config import Layout, PipelineConfig, load_pipeline
from apprentice.evaluation.comparison import CONDITIONS, SAMPLED, compare
from apprentice.records import Task, Trajectory, Turn
from apprentice.records.files import write_json, write_text
from apprentice.records.tables import write_tasks, write_trajectories


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
"""Every n-th task is right under a condition; under the trained policy every fifth is wrong."""


def evaluated_project(root: Path, *, answers: str = "Oslo", number: int = 24) -> tuple[PipelineConfig, Layout, list[Task], dict[str, list[Trajectory]], dict]:
    """What the evaluate stage leaves behind, with made-up episodes: better after training, and hostile texts in them."""
    config, layout = load_pipeline("quick", Path(__file__).parents[1] / "params.yaml"), Layout("quick", root)
    tasks = [task(index, answers, hops=1 + index % 3, answerable=index % 8 != 0) for index in range(number)]
    episodes = {name: _condition(name, tasks) for name in CONDITIONS}
    figures = compare(tasks, episodes, config.evaluate, dict.fromkeys(CONDITIONS, 1.0))
    write_tasks(layout.tasks, tasks)
    for name, of_condition in episodes.items():
        write_trajectories(layout.evaluations / f"{name}.parquet", of_condition)
    write_json(layout.metrics("evaluation"), figures)
    write_json(layout.metrics("validation"), {"tasks": number, "reasons": {"duplicate": 1}})
    write_text(layout.curves("training"), "step,reward,kl_reference,entropy\n0,0.2,0.0,1.5\n1,0.4,0.001,\n2,0.5,0.002,1.2\n")
    write_text(layout.curves("difficulty"), "task_id,pass_rate\na,0.0\nb,0.5\nc,0.5\n")
    return config, layout, tasks, episodes, figures


def _condition(name: str, tasks: list[Task]) -> list[Trajectory]:
    episodes = []
    for temperature in (0.0, 1.0) if name in SAMPLED else (0.0,):
        for index, of_task in enumerate(tasks):
            right = index % 5 != 0 if name == "trained" else index % RATES[name] == 1
            answer = of_task.answers[0] if right else NASTY
            turns = [("search", f"<search>Ada {NASTY}</search>", f"(1) Ada: {NASTY}"), ("answer", f"<answer>{answer}</answer>", "")]
            episodes.append(episode(of_task.id, answer, turns, temperature=temperature, outcome="success" if right else "failure"))
    return episodes
