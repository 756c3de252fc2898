"""How the stages filter and rollout handle trajectories."""

from dataclasses import replace

import pytest

from apprentice.config import load_pipeline
from apprentice.data.difficulty import select_curriculum
from apprentice.data.trajectories import checked
from apprentice.errors import ApprenticeError
from apprentice.records import Trajectory, Turn
from apprentice.records.events import Progress
from apprentice.rollout.setup import make_simulator
from apprentice.stages.filter import candidates, difficulty_metrics, difficulty_rows, pass_rates, played
from apprentice.stages.rollout import sample_tasks


def trajectory(id="x", task_id="t0", outcome="success"):
    return Trajectory(
        id=id,
        task_id=task_id,
        group=task_id,
        token_ids=(1, 2),
        action_mask=(0, 1),
        logprobs=(0.0, -0.1),
        turns=(Turn(1, 2, "<answer>x</answer>", "", "answer", 0),),
        reward=float(outcome == "success"),
        outcome=outcome,
        answer="x",
        seed=0,
        temperature=1.0,
    )


def test_candidates_are_sampled_with_a_seed(tasks):
    assert candidates(tasks(9), 4, seed=1) == candidates(tasks(9), 4, seed=1) != candidates(tasks(9), 4, seed=2)
    assert len(candidates(tasks(3), 4, seed=1)) == 3


def test_rollout_tasks_keep_the_order_of_the_curriculum(tasks):
    ids = [task.id for task in sample_tasks(tasks(9), 4, seed=1)]
    assert len(ids) == 4 and ids == sorted(ids)


def test_pass_rates_count_a_truncated_episode_as_not_passed():
    outcomes = {"a": "success", "b": "failure", "c": "truncated", "d": "success"}
    assert pass_rates([trajectory(id, "t0", outcome) for id, outcome in outcomes.items()]) == {"t0": 0.5}


def test_difficulty_has_a_row_for_each_probed_task_and_flat_metrics(tasks):
    probes = [trajectory("a", "t0"), trajectory("b", "t0", "failure"), trajectory("c", "t1", "failure"), trajectory("d", "t1", "failure")]
    config = load_pipeline("quick").filter.model_copy(update={"probes": 2, "keep": 2, "unsolved_share": 0.0})
    rates = pass_rates(probes)
    curriculum = select_curriculum(tasks(3), rates, 2, config)
    assert difficulty_rows(tasks(3), rates, curriculum, 2) == "task_id,hops,pass_rate,signal,kept\nt0,1,0.5,0.5,1\nt1,1,0.0,0.277778,0\n"
    metrics = difficulty_metrics(probes, rates, curriculum, 2)
    assert (metrics["probed"], metrics["solved_sometimes"], metrics["solved_never"], metrics["kept"]) == (2, 1, 1, 1)
    assert all(isinstance(value, int | float) for value in metrics.values())


def test_the_filter_leaves_out_tasks_whose_first_message_does_not_fit(tmp_path):
    unfit = replace(trajectory("b", "t1", "truncated"), turns=(), token_ids=(), action_mask=(), logprobs=(), error="the first message takes 900 tokens")
    progress = Progress(tmp_path / "events.jsonl", "filter")
    assert [one.id for one in played([trajectory("a"), unfit], 768, progress)] == ["a"]
    assert "1 tasks are left out, such as 't1': the first message takes 900 tokens" in (tmp_path / "events.jsonl").read_text()
    with pytest.raises(ApprenticeError, match="environment.max_tokens=768: no probed task leaves room for a turn: the first message takes 900"):
        played([unfit], 768, progress)


def test_invalid_trajectories_are_refused_with_reasons():
    broken = replace(trajectory("bad"), logprobs=(0.0, 0.3))
    good, [refused] = checked([trajectory("good"), broken])
    assert [one.id for one in good] == ["good"]
    assert refused["id"] == "bad" and "above 0" in refused["problems"][0]


def test_episodes_must_fit_the_policys_context(tmp_path):
    config = load_pipeline("quick")
    config = config.model_copy(update={"policy": config.policy.model_copy(update={"max_context": 100})})
    with pytest.raises(ApprenticeError, match="exceed the policy's context of 100"):
        make_simulator(config, None, None, tmp_path, 1.0)
