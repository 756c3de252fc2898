"""Many episodes at once: bounded, in order, and with faults that affect only their own episode."""

import asyncio
import json
import resource
import socket
import time
from contextlib import aclosing

import pytest

from apprentice.data.trajectories import check_trajectory
from apprentice.errors import ApprenticeError, InfrastructureFault, PolicyUnavailable
from apprentice.records.events import Progress
from apprentice.rollout.metrics import rollout_metrics
from apprentice.rollout.simulator import Simulator, each_episode, plan_episodes


def right(prompt, sampling):
    return "<answer>yes</answer>"


@pytest.fixture
def simulator(chat, echo, limits, toy_policy):
    def make(script=right, environment=None, delay_s=0.0, retries=2, **settings):
        policy = toy_policy(script, delay_s)
        made = Simulator(policy, chat, environment or echo, limits(**settings), temperature=1.0, retries=retries, pause_s=0.001)
        made.policy = policy
        return made

    return make


def test_trajectories_are_in_the_order_of_the_episodes(simulator, tasks):
    late_first = simulator(lambda prompt, sampling: "<answer>yes</answer>" if "Task 0?" not in prompt or "HI" in prompt else "<say>hi</say>", delay_s=0.001)
    trajectories = asyncio.run(late_first.run(plan_episodes(tasks(20), 2, 0, "x")))
    assert [trajectory.id for trajectory in trajectories] == [f"x-t{task}-{attempt}" for task in range(20) for attempt in range(2)]


def test_episodes_are_yielded_as_they_end(simulator, tasks):
    slow_first = simulator(lambda prompt, sampling: "<say>hi</say>" if "Task 0?" in prompt and "HI" not in prompt else "<answer>yes</answer>", delay_s=0.05)

    async def collect():
        return [played.trajectory.task_id async for played in slow_first.played(plan_episodes(tasks(4), 1, 0, "x"))]

    assert asyncio.run(collect())[-1] == "t0"


def test_concurrency_is_bounded_and_used(simulator, tasks, echo):
    bounded = simulator(delay_s=0.002, concurrency=5)
    asyncio.run(bounded.run(plan_episodes(tasks(30), 1, 0, "x")))
    assert bounded.policy.most_in_flight == 5
    assert echo.open == 0


def test_sampling_time_excludes_time_in_environments(simulator, tasks, echo):
    class Slow(echo):
        async def step(self, action):
            await asyncio.sleep(0.3)
            return await super().step(action)

    waits = simulator(environment=Slow, delay_s=0.02)
    began = time.monotonic()
    asyncio.run(waits.run(plan_episodes(tasks(4), 2, 0, "x")))
    # Half of the time in the environment is a margin for a busy machine.
    assert 0.02 <= waits.sampling.seconds <= time.monotonic() - began - 0.15


def test_episodes_are_taken_only_as_slots_become_free(simulator, tasks):
    taken = []

    def watched():
        for episode in each_episode(tasks(50), 1, 0, "x"):
            taken.append(episode.id)
            yield episode

    async def first_of_them():
        async with aclosing(simulator(concurrency=4).played(watched())) as finished:
            async for _ in finished:
                return

    asyncio.run(first_of_them())
    assert len(taken) == 4


def test_hundreds_of_episodes_in_flight(simulator, tasks):
    wide = simulator(delay_s=0.05, concurrency=300)
    trajectories = asyncio.run(wide.run(plan_episodes(tasks(300), 1, 0, "x")))
    assert wide.policy.most_in_flight == 300 and len(trajectories) == 300


def test_a_fault_is_retried_under_a_new_id_while_other_episodes_continue(simulator, tasks):
    broken = []

    def breaks_once(prompt, sampling):
        if "Task 1?" in prompt and not broken:
            broken.append(prompt)
            return "<say>boom</say>"
        return "<answer>yes</answer>"

    faulty = simulator(breaks_once)
    trajectories = asyncio.run(faulty.run(plan_episodes(tasks(3), 1, 0, "x")))
    assert [trajectory.id for trajectory in trajectories] == ["x-t0-0", "x-t1-0-r1", "x-t2-0"]
    [fault] = faulty.faults
    assert (fault.id, fault.outcome, fault.reward, fault.error) == ("x-t1-0", "fault", 0.0, "RuntimeError: the tool broke")
    assert check_trajectory(fault) == []
    assert fault.action_mask.count(1) == len("<say>boom</say>")
    assert fault.seed == trajectories[1].seed


def test_an_episode_that_keeps_failing_is_left_out_and_its_attempts_are_faults(simulator, tasks, echo):
    faulty = simulator(lambda prompt, sampling: "<say>boom</say>" if "Task 1?" in prompt else "<answer>yes</answer>")
    trajectories = asyncio.run(faulty.run(plan_episodes(tasks(3), 1, 0, "x")))
    assert [trajectory.task_id for trajectory in trajectories] == ["t0", "t2"]
    assert [fault.id for fault in faulty.faults] == ["x-t1-0", "x-t1-0-r1", "x-t1-0-r2"]
    assert echo.open == 0


def test_an_episode_without_trajectory_has_its_faults(simulator, tasks):
    async def collect():
        breaking = simulator(lambda prompt, sampling: "<say>boom</say>", retries=1)
        return [(played.trajectory, [fault.outcome for fault in played.faults]) async for played in breaking.played(plan_episodes(tasks(1), 1, 0, "x"))]

    assert asyncio.run(collect()) == [(None, ["fault", "fault"])]


def test_an_environment_that_cannot_be_created_is_a_fault(simulator, tasks):
    def unmade():
        raise InfrastructureFault("the knowledge base is gone")

    with pytest.raises(ApprenticeError, match="all of 2 episodes failed; the first error is InfrastructureFault: the knowledge base is gone"):
        asyncio.run(simulator(environment=unmade).run(plan_episodes(tasks(2), 1, 0, "x")))


def test_a_completion_without_its_logprobs_is_a_fault(chat, echo, limits, tasks):
    from apprentice.policy.protocol import Completion

    class Sloppy:
        async def generate(self, token_ids, sampling):
            return Completion((1, 2), (0.0,), "stop", 0)

    with pytest.raises(ApprenticeError, match="1 log-probabilities for 2 tokens"):
        asyncio.run(Simulator(Sloppy(), chat, echo, limits(), 1.0).run(plan_episodes(tasks(1), 1, 0, "x")))


def unavailable(prompt, sampling):
    raise PolicyUnavailable("connection refused")


def test_a_policy_that_answers_no_episode_is_an_error(simulator, tasks):
    with pytest.raises(PolicyUnavailable, match="did not answer any of 2 episodes: connection refused"):
        asyncio.run(simulator(unavailable).run(plan_episodes(tasks(2), 1, 0, "x")))


def test_a_policy_that_dies_halfway_ends_the_run(simulator, tasks, echo):
    answered = []

    def dies(prompt, sampling):
        if len(answered) >= 10:
            raise PolicyUnavailable("connection refused")
        answered.append(prompt)
        return "<answer>yes</answer>"

    dying = simulator(dies, concurrency=4)
    with pytest.raises(PolicyUnavailable, match="the policy stopped answering, 8 episodes in a row: connection refused"):
        asyncio.run(dying.run(plan_episodes(tasks(500), 1, 0, "x")))
    assert len(dying.policy.requests) < 60
    assert echo.open == 0


def test_an_episode_survives_one_failure_of_the_policy(simulator, tasks):
    failed = set()

    def fails_once(prompt, sampling):
        if prompt not in failed:
            failed.add(prompt)
            raise PolicyUnavailable("connection reset")
        return "<answer>yes</answer>"

    retrying = simulator(fails_once, concurrency=50)
    assert len(asyncio.run(retrying.run(plan_episodes(tasks(50), 1, 0, "x")))) == 50
    assert len(retrying.faults) == 50


def test_cancellation_closes_every_environment(simulator, tasks, echo):
    async def cancelled():
        running = asyncio.create_task(simulator(delay_s=60, concurrency=20).run(plan_episodes(tasks(40), 1, 0, "x")))
        while echo.open < 20:
            await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        return len(asyncio.all_tasks())

    assert asyncio.run(cancelled()) == 1
    assert echo.open == 0


def test_an_error_of_close_does_not_undo_a_cancellation(simulator, tasks, echo):
    async def breaks(self):
        raise OSError("cannot close")

    echo.close = breaks

    async def cancelled():
        running = asyncio.create_task(simulator(delay_s=60).run(plan_episodes(tasks(4), 1, 0, "x")))
        while echo.open < 4:
            await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(running, 30)

    asyncio.run(cancelled())


def test_seeds_do_not_depend_on_the_concurrency(simulator, tasks):
    def seeds(concurrency):
        narrow = simulator(concurrency=concurrency)
        asyncio.run(narrow.run(plan_episodes(tasks(9), 2, 3, "x")))
        return sorted(sampling.seed for _, sampling in narrow.policy.requests)

    assert seeds(1) == seeds(7)


def test_progress_is_reported_for_each_episode(simulator, tasks, tmp_path):
    asyncio.run(simulator().run(plan_episodes(tasks(3), 1, 0, "x"), Progress(tmp_path / "events.jsonl", "rollout"), "probes"))
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [(event["phase"], event["done"], event["total"]) for event in events] == [("probes", 1, 3), ("probes", 2, 3), ("probes", 3, 3)]


def test_no_episodes_give_no_trajectories(simulator):
    assert asyncio.run(simulator().run([])) == []


def test_metrics_equal_those_computed_by_hand(simulator, tasks):
    def mixed(prompt, sampling):
        if "Task 0?" in prompt:
            return "<answer>yes</answer>" if "Write" in prompt else "hm"
        return "<say>a</say>"

    metrics = rollout_metrics(asyncio.run(simulator(mixed, max_turns=2).run(plan_episodes(tasks(2), 1, 0, "x"))))
    # task 0: malformed, then right; task 1: two tools, then out of turns
    assert metrics["episodes"] == 2 and metrics["turns"] == 2 and metrics["searches"] == 0
    assert metrics["success_rate"] == metrics["reward"] == metrics["truncated_share"] == 0.5
    assert metrics["malformed_share"] == 0.25 and metrics["mixed_groups_share"] == 0
    assert metrics["action_tokens_per_episode"] == (2 + len("<answer>yes</answer>") + 2 * len("<say>a</say>")) / 2


def test_metrics_of_no_trajectories_are_zero():
    assert set(rollout_metrics([]).values()) == {0.0}


def test_a_low_limit_of_open_files_reduces_the_concurrency_without_faults(simulator, tasks, echo):
    class Connected(echo):
        """Holds two open files, as an AppWorld episode does."""

        async def reset(self, task):
            self.files = socket.socketpair()
            return await super().reset(task)

        async def close(self):
            for file in self.files:
                file.close()
            await super().close()

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    try:
        narrow = simulator(environment=Connected, delay_s=0.01, concurrency=240, retries=0)
        played = asyncio.run(narrow.run(plan_episodes(tasks(240), 1, 0, "x")))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert narrow.faults == [] and len(played) == 240
    assert narrow.policy.most_in_flight == 64
