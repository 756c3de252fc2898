"""An episode has exactly the sampled tokens and those of its messages, in order, and masks the sampled ones."""

import asyncio

import pytest

from apprentice.data.trajectories import check_trajectory
from apprentice.environments.protocol import Observation
from apprentice.rollout.episode import derive_seed, each_episode, plan_episodes
from apprentice.rollout.expert import enact
from apprentice.rollout.simulator import Simulator


@pytest.fixture
def play_one(chat, echo, limits, tasks, toy_policy):
    """A function that plays an episode in which the policy writes the given actions, one per turn."""

    def play(*actions, environment=None, **settings):
        script = iter(actions)
        policy = toy_policy(lambda prompt, sampling: next(script))
        simulator = Simulator(policy, chat, environment or echo, limits(**settings), temperature=1.0, retries=0)
        [trajectory] = asyncio.run(simulator.run(plan_episodes(tasks(1), 1, 7, "x"))) or simulator.faults
        assert check_trajectory(trajectory) == []
        return trajectory, policy

    return play


def text(trajectory):
    return "".join(map(chr, trajectory.token_ids))


def sampled(trajectory):
    return "".join(chr(token) for token, bit in zip(trajectory.token_ids, trajectory.action_mask, strict=True) if bit)


def test_tokens_mask_and_logprobs_line_up(play_one):
    trajectory, policy = play_one("<say>hi</say>", "<answer>yes</answer>")
    assert text(trajectory) == "[Go.\nTask 0?]{<say>hi</say>}[HI]{<answer>yes</answer>"
    first, second = trajectory.turns
    assert text(trajectory)[first.start : first.end] == first.action == "<say>hi</say>"
    assert text(trajectory)[second.start : second.end] == second.action == "<answer>yes</answer>"
    assert trajectory.action_mask == tuple(int(first.start <= i < first.end or second.start <= i) for i in range(len(trajectory.token_ids)))
    assert trajectory.logprobs[first.start : first.start + 3] == (-0.5, -0.51, -0.52)
    assert all(logprob == 0.0 for logprob, bit in zip(trajectory.logprobs, trajectory.action_mask, strict=True) if not bit)
    assert (first.observation, first.kind, first.version) == ("HI", "say", 3)
    assert (second.observation, second.kind) == ("", "answer")


def test_each_prompt_of_the_policy_is_a_prefix_of_the_trajectory(play_one):
    trajectory, policy = play_one("<say>hi</say>", "<answer>yes</answer>")
    assert [text(trajectory)[: turn.start] for turn in trajectory.turns] == [prompt for prompt, _ in policy.requests]


def test_the_reward_comes_from_the_verdict(play_one):
    good, bad = play_one("<answer>yes</answer>")[0], play_one("<answer>no</answer>")[0]
    assert (good.outcome, good.reward, good.answer) == ("success", 1.0, "yes")
    assert (bad.outcome, bad.reward, bad.answer) == ("failure", 0.0, "no")


def test_an_action_that_ended_its_turn_is_not_closed_again(play_one):
    trajectory, _ = play_one("hm}", "<answer>yes</answer>}")
    assert text(trajectory).count("}") == 2
    assert "hm}[Write <say>word</say> or <answer>phrase</answer>.]{" in text(trajectory)
    assert sampled(trajectory) == "hm}<answer>yes</answer>}"
    assert trajectory.turns[0].kind == "malformed"


def test_the_last_turn_has_no_observation(play_one):
    trajectory, _ = play_one("<say>a</say>", "<say>b</say>", max_turns=2)
    assert (trajectory.outcome, trajectory.reward) == ("truncated", 0.0)
    assert text(trajectory).endswith("[A]{<say>b</say>")
    assert [turn.observation for turn in trajectory.turns] == ["A", ""]


def test_an_episode_ends_after_consecutive_failed_turns(play_one):
    trajectory, _ = play_one("a", "<say>b</say>", "c", "d", "<answer>yes</answer>", max_turns=9, max_failed_turns=2)
    assert (trajectory.outcome, [turn.kind for turn in trajectory.turns]) == ("truncated", ["malformed", "say", "malformed", "malformed"])
    assert trajectory.turns[-1].observation == "" and text(trajectory).endswith("{d")


def test_a_truncated_action_is_malformed_and_does_not_reach_the_environment(play_one):
    trajectory, _ = play_one("<say>boom</say><say>boom</say>", "<answer>yes</answer>", max_turn_tokens=20)
    assert trajectory.turns[0].action == "<say>boom</say><say>"
    assert (trajectory.turns[0].kind, trajectory.turns[0].observation) == ("malformed", "That was too long. Write less.")
    assert trajectory.outcome == "success"


def test_an_environment_can_accept_truncated_actions(play_one, echo):
    echo.takes_cut_actions = True
    trajectory, _ = play_one("<answer>yes</answer>" + "." * 99, environment=echo, max_turn_tokens=20)
    assert trajectory.outcome == "success"


def test_no_episode_exceeds_its_token_limit(play_one):
    trajectory, policy = play_one("<say>hello</say>", "<say>hello</say>", max_turns=9, max_tokens=50)
    assert len(trajectory.token_ids) == 50 and trajectory.outcome == "truncated"
    assert [sampling.max_tokens for _, sampling in policy.requests] == [36, 11]


def test_an_observation_that_leaves_no_room_is_not_appended(play_one):
    trajectory, _ = play_one("<say>hello</say>", max_tokens=39)
    assert text(trajectory).endswith("<say>hello</say>") and len(trajectory.turns) == 1
    assert trajectory.outcome == "truncated"


def test_a_first_message_that_does_not_fit_ends_only_its_own_episode(chat, echo, limits, tasks, toy_policy):
    policy = toy_policy(lambda prompt, sampling: "<answer>yes</answer>")
    simulator = Simulator(policy, chat, echo, limits(max_tokens=100), temperature=1.0)
    long = tasks(1)[0].model_copy(update={"id": "long", "instruction": "x" * 50_000})
    good, cut_off = asyncio.run(simulator.run(plan_episodes([*tasks(1), long], 1, 7, "x")))
    assert good.outcome == "success" and simulator.faults == [] and len(policy.requests) == 1 and echo.open == 0
    assert (cut_off.outcome, cut_off.reward, cut_off.turns, cut_off.token_ids) == ("truncated", 0.0, (), ())
    assert cut_off.error == "the first message takes 50007 tokens, and the whole episode may take 100 (environment.max_tokens)"
    assert check_trajectory(cut_off) == [f"turns: none, though the outcome is 'truncated': {cut_off.error}"]


@pytest.mark.parametrize("word", ["x" * 50_000, "word " * 20_000], ids=["letters", "words"])
def test_an_observation_is_shortened_to_leave_room_for_a_turn(play_one, echo, word):
    async def step(self, action):
        return await super(type(self), self).step(action) if "answer" in action else Observation(word, kind="say")

    echo.step = step
    trajectory, policy = play_one("<say>hi</say>", "<answer>yes</answer>", environment=echo, max_tokens=200)
    assert trajectory.outcome == "success" and len(trajectory.turns) == 2
    assert policy.requests[1][1].max_tokens >= 40 and 0 < len(trajectory.turns[0].observation) < 200
    assert trajectory.turns[0].observation in policy.requests[1][0]


def test_an_expert_whose_first_message_does_not_fit_has_no_trajectory(chat, echo, limits, tasks):
    assert asyncio.run(enact(tasks(1)[0], echo(), chat, scripted("<answer>yes</answer>"), limits=limits(max_tokens=10), seed=5)) is None
    assert echo.open == 0


def test_each_turn_has_the_stop_strings_the_temperature_and_its_own_seed(play_one):
    _, policy = play_one("<say>a</say>", "<answer>yes</answer>")
    first, second = (sampling for _, sampling in policy.requests)
    assert first.stop == ("</say>", "</answer>") and first.temperature == 1.0
    assert first.seed != second.seed


def test_seeds_are_the_same_in_every_process():
    assert derive_seed(0, "probe", "t0", 0) == 1912295327
    assert 0 <= derive_seed(-1, "ü", 10**30) < 2**31


def test_episodes_are_planned_task_by_task(tasks):
    episodes = plan_episodes(tasks(2), 2, seed=0, tag="probe")
    assert [episode.id for episode in episodes] == ["probe-t0-0", "probe-t0-1", "probe-t1-0", "probe-t1-1"]
    assert [episode.group for episode in episodes] == ["probe-t0", "probe-t0", "probe-t1", "probe-t1"]
    assert len({episode.seed for episode in episodes}) == 4
    assert episodes == list(each_episode(tasks(2), 2, seed=0, tag="probe"))
    assert episodes[0].seed != plan_episodes(tasks(1), 1, seed=1, tag="probe")[0].seed


def scripted(*actions):
    def expert(task):
        for action in actions:
            _ = yield action

    return expert


def enacted(chat, echo, limits, tasks, *actions):
    return asyncio.run(enact(tasks(1)[0], echo(), chat, scripted(*actions), limits=limits, seed=5))


def test_an_experts_trajectory_has_the_tokens_of_an_agents(chat, echo, limits, tasks, play_one):
    actions = "<say>hi</say>", "<answer>yes</answer>"
    agent, expert = play_one(*actions)[0], enacted(chat, echo, limits(), tasks, *actions)
    assert (expert.token_ids, expert.action_mask) == (agent.token_ids, agent.action_mask)
    assert set(expert.logprobs) == {0.0} and expert.outcome == "success" and expert.reward == 1.0 and expert.seed == 5
    assert check_trajectory(expert) == [] and echo.open == 0


@pytest.mark.parametrize("actions", [(), ("<say>hi</say>",), ("<answer>no</answer>",), ("<say>" + "x" * 99 + "</say>",)])
def test_an_expert_without_success_has_no_trajectory(chat, echo, limits, tasks, actions):
    assert enacted(chat, echo, limits(), tasks, *actions) is None
    assert echo.open == 0


def test_an_experts_action_without_a_stop_string_ends_with_the_end_of_turn_token(chat, echo, limits, tasks):
    free = type("Free", (echo,), {})
    free.stop = ()
    trajectory = asyncio.run(enact(tasks(1)[0], free(), chat, scripted("<say>hi</say>", "<answer>yes</answer>"), limits=limits(), seed=5))
    assert text(trajectory) == "[Go.\nTask 0?]{<say>hi</say>}[HI]{<answer>yes</answer>}"
    assert sampled(trajectory) == "<say>hi</say>}<answer>yes</answer>}"
