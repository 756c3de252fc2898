"""Logs example episodes as MLflow traces: one span per episode, with one child span per turn."""

from collections.abc import Sequence

from apprentice.config import Layout, PipelineConfig
from apprentice.evaluation.comparison import AGENTS
from apprentice.evaluation.examples import choose_examples
from apprentice.evaluation.measures import Measure, measure_of
from apprentice.records import Task, Trajectory
from apprentice.tracking.outcome import read_episodes
from apprentice.tracking.store import current_store


def log_traces(config: PipelineConfig, layout: Layout, experiment_id: str, run_id: str) -> None:
    """Log the episodes of the report's example tasks, under each condition of the agent, as traces of a run."""
    measure = measure_of(config)
    tasks, episodes = read_episodes(layout, measure.conditions)
    examples = choose_examples(measure, tasks, episodes["before"], episodes["trained"])
    chosen = {example.task.id: example.task for example in examples}
    with current_store(layout.root):
        for name in AGENTS:
            for trajectory in episodes[name]:
                if trajectory.task_id in chosen:
                    _log(measure, name, chosen[trajectory.task_id], trajectory, experiment_id, run_id)


def _log(measure: Measure, condition: str, task: Task, trajectory: Trajectory, experiment_id: str, run_id: str) -> None:
    import mlflow

    scores = measure.scores(task, trajectory)
    episode = mlflow.start_span_no_context(
        f"{condition}: {task.id}",
        span_type="AGENT",
        inputs={"question": task.instruction},
        tags={"condition": condition, "task_id": task.id, "outcome": trajectory.outcome, measure.key: str(scores[measure.key])},
        # MLflow would copy the URL of the git remote, which may contain credentials.
        metadata={"mlflow.sourceRun": run_id, "mlflow.source.git.repoURL": ""},
        experiment_id=experiment_id,
    )
    for prompt, turn in zip(_prompts(task, trajectory), trajectory.turns, strict=True):
        span = mlflow.start_span_no_context(turn.kind or "turn", span_type="LLM", parent_span=episode, inputs={"observation": prompt})
        span.set_attributes({"policy_version": turn.version, "tokens": turn.end - turn.start, "kind": turn.kind, "calls": list(turn.calls)})
        span.set_outputs({"action": turn.action})
        span.end()
    accepted = {"accepted": list(task.answers)} if task.judge == "answers" else {}
    episode.set_outputs({"answer": trajectory.answer, **accepted, **scores})
    episode.end()


def _prompts(task: Task, trajectory: Trajectory) -> Sequence[str]:
    """Return the text that the agent received before each of its turns."""
    return [task.instruction, *(turn.observation for turn in trajectory.turns[:-1])][: len(trajectory.turns)]
