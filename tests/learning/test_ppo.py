"""PPO updates of a tiny model."""

import random
from dataclasses import replace

import pytest
import torch
from learning.toys import bandit, train_config, trajectories, trajectory, weights
from safetensors.torch import load_file
from tiny import make_tiny_checkpoint

from apprentice.learning import minibatches, scoring
from apprentice.learning.advantages import GROUP_BASELINES
from apprentice.learning.graph import GROUP_ADVANTAGES
from apprentice.learning.models import Actor, load_language_model
from apprentice.learning.objectives import kl_k3
from apprentice.learning.packing import pack
from apprentice.learning.ppo import PpoLearner
from apprentice.online.alarms import update_alarms
from apprentice.records import Trajectory


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return make_tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


NAN = float("nan")


def spoiled(learner: PpoLearner, what: str, made: list[Trajectory]) -> list[Trajectory]:
    """Makes one number somewhere in a learner or its trajectories NaN."""
    if what == "reward":
        return [replace(made[0], reward=NAN), *made[1:]]
    if what == "logprob":
        return [replace(made[0], logprobs=tuple(NAN if bit else 0.0 for bit in made[0].action_mask)), *made[1:]]
    model = learner.reference if what == "reference" else learner.actor.module if what == "actor" else learner.critic.engine.module
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] = NAN
    if what != "critic":
        return [replace(item, token_ids=(item.token_ids[0], 0, *item.token_ids[2:])) for item in made]  # the token whose embedding it is
    return made


@pytest.mark.parametrize("advantage", ["gae", "rloo"])
@pytest.mark.parametrize("what", ["reward", "logprob", "actor", "critic", "reference"])
@pytest.mark.parametrize("minibatches", [1, 2])
def test_whatever_is_not_finite_raises_an_alarm(checkpoint, advantage, what, minibatches):
    if what == "critic" and advantage != "gae":
        return
    config = train_config(advantage=advantage, minibatches=minibatches)
    learner = PpoLearner(config, checkpoint)
    metrics = learner.update(spoiled(learner, what, trajectories(8)), 0)
    assert any("not finite" in reason for reason in update_alarms(metrics, config)), metrics


@pytest.mark.parametrize("what", ["reward", "actor"])
def test_nothing_is_learned_from_what_is_not_finite(checkpoint, what):
    learner = PpoLearner(train_config(), checkpoint)
    made = spoiled(learner, what, trajectories(8))
    before = weights(learner.actor.module)
    assert learner.update(made, 0)["not_finite"] > 0
    assert all(torch.equal(before[name], tensor) or tensor.isnan().any() for name, tensor in weights(learner.actor.module).items())


@pytest.mark.parametrize("changes", [{"advantage": "rloo"}, {"advantage": "gae"}, {"advantage": "rloo", "minibatches": 2, "epochs": 2}], ids=str)
def test_the_distance_of_an_update_is_measured_after_its_last_optimizer_step(checkpoint, changes):
    settings = {"minibatches": 1, "learning_rate": 3e-2, "warmup_steps": 0, "kl_coefficient": 0.0, "entropy_coefficient": 0.0, "micro_batch_tokens": 1000}
    config = train_config(**settings | changes | {"alarm_kl": 0.05})
    learner, made = PpoLearner(config, checkpoint, dtype="float32"), trajectories(8)
    (packed,) = pack(made, 1000)

    def logprobs() -> torch.Tensor:
        with torch.no_grad():
            return learner.actor.module(packed).logprobs

    before = logprobs()
    metrics = learner.update(made, 0)
    after = logprobs()
    assert metrics["approx_kl"] == pytest.approx(float(kl_k3(before, after).mean()), rel=1e-3)
    assert metrics["ratio_max"] >= float((after - before).exp().max()) * 0.999
    assert metrics["approx_kl"] > 0.05 and "approx_kl" in update_alarms(metrics, config)[0]


def test_the_distance_is_measured_on_one_micro_batch_where_there_are_many(checkpoint, monkeypatch):
    learner, packed = PpoLearner(train_config(advantage="rloo"), checkpoint), []
    monkeypatch.setattr(random.Random, "sample", lambda self, batches, count: packed.append((len(batches), count)) or batches[:count])
    assert learner.update(trajectories(12), 0)["approx_kl"] > 0
    ((batches, measured),) = packed
    assert batches > 2 and measured == 1


def rewarded_share(learner: PpoLearner, steps: int) -> float:
    """The increase of the probability of rewarded (even) answers after a number of updates on the bandit."""
    model, generator = learner.actor.module.language_model, torch.Generator().manual_seed(0)

    def answers() -> torch.Tensor:
        with torch.no_grad():
            return model(input_ids=torch.tensor([[1, 2, 3, 4, 5]])).logits[0, -1].softmax(-1)

    before = float(answers()[::2].sum())
    for step in range(steps):
        probabilities = answers()
        chosen = torch.multinomial(probabilities, 64, replacement=True, generator=generator)
        metrics = learner.update(bandit(chosen.tolist(), probabilities[chosen].log().tolist()), step)
        assert metrics["sampler_gap_max"] < 1e-4
    return float(answers()[::2].sum()) - before


@pytest.mark.parametrize("advantage", ["gae", *GROUP_ADVANTAGES])
def test_every_advantage_makes_the_rewarded_answers_likelier(checkpoint, advantage):
    config = train_config(advantage=advantage, learning_rate=1e-2, kl_coefficient=0.0, entropy_coefficient=0.0, micro_batch_tokens=400)
    assert rewarded_share(PpoLearner(config, checkpoint, dtype="float32"), steps=8) > 0.2


def test_an_update_reports_finite_metrics_under_stable_names(checkpoint):
    metrics = PpoLearner(train_config(), checkpoint).update(trajectories(8), 0)
    expected = (
        "policy_loss value_loss kl_reference approx_kl entropy clip_fraction ratio_max explained_variance gradient_norm not_finite "
        "advantage_mean advantage_std return_mean value_mean sampler_gap_mean sampler_gap_max importance_weight_mean "
        "tokens action_tokens seconds_old seconds_reference seconds_update seconds_measure learning_rate skipped"
    )
    assert set(metrics) == set(expected.split())
    assert all(value - value == 0 for value in metrics.values())
    assert metrics["kl_reference"] == pytest.approx(0, abs=1e-6)
    assert metrics["skipped"] == 0


@pytest.mark.parametrize("changes", [{}, {"minibatches": 1, "epochs": 2, "min_advantage": 0.6}, {"entropy_coefficient": 0.01, "importance": "mask"}], ids=str)
def test_what_the_first_optimizer_step_finds_out_for_itself_needs_no_pass_before_it(checkpoint, changes, monkeypatch):
    """The baseline scores all tokens before the first step."""
    settings = {"advantage": "rloo", "kl_coefficient": 0.01, "minibatches": 3, "epochs": 2, "warmup_steps": 0, "learning_rate": 1e-2}
    batch = [replace(item, group=str(number // 4), reward=float(number % 4 == number // 4)) for number, item in enumerate(trajectories(12))]

    def updated():
        learner = PpoLearner(train_config(**settings | changes), checkpoint, dtype="float32")
        return learner.update(batch, 0), weights(learner.actor.module)

    metrics, found = updated()
    monkeypatch.setattr(scoring, "requires_full_pass", lambda config: True)
    plain, expected = updated()
    assert all(torch.allclose(found[name], tensor, atol=2e-5) for name, tensor in expected.items())
    everywhere = {"entropy", "sampler_gap_mean", "sampler_gap_max", "importance_weight_mean", "kl_reference"} if changes.get("min_advantage") else set()
    for name in plain.keys() - everywhere:
        assert "seconds" in name or metrics[name] == pytest.approx(plain[name], rel=1e-3, abs=1e-5), name


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"minibatches": 1, "objective": "cispo", "clip_high": 0.5},
        {"loss_mean": "sequence", "objective": "gspo", "clip_low": 0.01, "clip_high": 0.02},
        {"loss_mean": "constant"},
    ],
    ids=str,
)
def test_attempts_without_a_gradient_are_not_computed_and_the_update_is_the_same(checkpoint, changes, monkeypatch):
    """One of three groups has different rewards, so two of three optimizer steps only apply momentum."""
    settings = {"advantage": "rloo", "kl_coefficient": 0.0, "entropy_coefficient": 0.0, "normalize_advantages": False, "minibatches": 3, "epochs": 2}
    batch = [replace(item, group=str(number // 4), reward=float(number == 5)) for number, item in enumerate(trajectories(12))]
    gone_over = []

    def counted(made, budget, chosen=None, **how):
        gone_over.append(len(range(len(made)) if chosen is None else chosen))
        return pack(made, budget, chosen, **how)

    monkeypatch.setattr(scoring, "pack", counted)

    def updated():
        gone_over.clear()
        learner = PpoLearner(train_config(**settings | {"warmup_steps": 0, "learning_rate": 1e-2} | changes), checkpoint, dtype="float32")
        return learner.update(batch, 0), weights(learner.actor.module), sum(gone_over)

    metrics, found, passes = updated()
    monkeypatch.setattr(minibatches, "with_gradient", lambda config, made, advantages: frozenset(range(len(made))))
    plain, expected, plain_passes = updated()
    assert all(torch.allclose(found[name], tensor, atol=2e-5) for name, tensor in expected.items())
    assert {name: metrics[name] for name in ("policy_loss", "gradient_norm")} == pytest.approx(
        {name: plain[name] for name in ("policy_loss", "gradient_norm")}, rel=1e-3
    )
    assert passes <= plain_passes / 2


def groups_of_different_rewards_and_lengths() -> list[Trajectory]:
    """A mixed group, a group of failures and a group of successes; failures are twice as long as successes."""
    rewards = [1.0, 0.0, 1.0, 0.0] + [0.0] * 4 + [1.0] * 4
    made = (trajectory(number, length=60 if reward == 0 else 30, actions=24 if reward == 0 else 6) for number, reward in enumerate(rewards))
    return [replace(item, group=str(number // 4), reward=rewards[number]) for number, item in enumerate(made)]


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("advantage", sorted(GROUP_ADVANTAGES))
def test_a_group_that_only_failed_has_no_advantage_and_is_not_computed_however_long_it_is(checkpoint, advantage, normalize, monkeypatch):
    config = train_config(advantage=advantage, normalize_advantages=normalize, kl_coefficient=0.0, entropy_coefficient=0.0, minibatches=1)
    learner, made, gone_over, used = PpoLearner(config, checkpoint), groups_of_different_rewards_and_lengths(), set(), []

    def counted(items, budget, chosen=None, **how):
        gone_over.update(range(len(items)) if chosen is None else chosen)
        return pack(items, budget, chosen, **how)

    monkeypatch.setattr(scoring, "pack", counted)
    plain = minibatches.with_gradient
    monkeypatch.setattr(minibatches, "with_gradient", lambda config, items, advantages: used.append(advantages) or plain(config, items, advantages))
    learner.update(made, 0)
    parts = used[0].split([item.action_tokens for item in made])
    assert all(part.tolist() == [0.0] * len(part) for part in parts[4:])
    assert all(part.any() and not (part < 0 if item.reward else part > 0).any() for item, part in zip(made[:4], parts[:4], strict=True))
    assert gone_over == {0, 1, 2, 3}


@pytest.mark.parametrize("advantage", GROUP_BASELINES)
def test_a_group_of_equal_rewards_changes_nothing_and_there_is_no_critic(checkpoint, tmp_path, advantage):
    learner = PpoLearner(train_config(advantage=advantage, kl_coefficient=0.0, entropy_coefficient=0.0), checkpoint)
    before = weights(learner.actor.module)
    assert learner.warm_up_critic(trajectories(8)) == {}
    even = [replace(item, reward=float(number < 4), group=str(number // 4)) for number, item in enumerate(trajectories(8))]
    metrics = learner.update(even, 0)
    assert metrics["value_loss"] == metrics["value_mean"] == metrics["gradient_norm"] == 0
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(learner.actor.module).items())
    learner.save_state(tmp_path)
    assert not (tmp_path / "critic").exists()
    learner.load_state(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"objective": "gspo", "loss_mean": "sequence", "clip_low": 0.01, "clip_high": 0.02},
        {"objective": "cispo", "clip_high": 0.5},
        {"loss_mean": "constant", "loss_length": 1},
        {"dual_clip": 3.0, "clip_high": 0.3, "importance": "mask", "min_advantage": 0.01},
        {"advantage": "rloo", "kl_in": "reward", "kl_estimator": "k1", "kl_coefficient": 0.01},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_every_objective_makes_the_rewarded_answers_likelier(checkpoint, changes):
    common = {"advantage": "grpo", "learning_rate": 1e-2, "kl_coefficient": 0.0, "entropy_coefficient": 0.0, "micro_batch_tokens": 400, "minibatches": 1}
    learner = PpoLearner(train_config(**common | {"epochs": 2} | changes), checkpoint, dtype="float32")
    assert rewarded_share(learner, steps=8) > 0.2


def test_what_cannot_teach_is_left_out_of_the_update(checkpoint):
    config = train_config(advantage="rloo", min_advantage=0.01, learn_truncated=False)
    made = [replace(item, group=str(number // 2), reward=float(number == 0)) for number, item in enumerate(trajectories(6))]
    advantages = torch.zeros(sum(item.action_tokens for item in made))
    advantages[: made[0].action_tokens + made[1].action_tokens] = 1.0
    assert minibatches.select(config, made, advantages) == [0, 1]
    assert minibatches.select(config, [replace(made[0], outcome="truncated"), *made[1:]], advantages) == [1]
    even = [replace(item, reward=0.0) for item in made]
    assert PpoLearner(config, checkpoint).update(even, 0)["gradient_norm"] == 0


def test_a_group_is_never_split_over_optimizer_steps():
    made = [replace(item, group=str(number % 4)) for number, item in enumerate(trajectories(12))]
    steps = minibatches.split(train_config(minibatches=3, epochs=2), made, range(12), 0)
    assert len(steps) == 6
    for epoch in (steps[:3], steps[3:]):
        assert sorted(index for chosen in epoch for index in chosen) == list(range(12))
        assert sum(len({made[index].group for index in chosen}) for chosen in epoch) == 4


@pytest.mark.parametrize("zero_stage", [1, 2, 3])
def test_an_offloaded_optimizer_takes_the_same_steps(checkpoint, tmp_path, zero_stage):
    made, policies = trajectories(8), []
    for offload in (False, True):
        learner = PpoLearner(train_config(zero_stage=zero_stage, offload_optimizer=offload, warmup_steps=0), checkpoint)
        learner.update(made, 0)
        learner.save_policy(tmp_path / str(offload))
        policies.append(load_file(tmp_path / str(offload) / "model.safetensors"))
    kept, offloaded = policies
    before = load_file(checkpoint / "model.safetensors")
    assert any(not torch.equal(kept[name], before[name].bfloat16()) for name in kept)
    for name, weight in kept.items():
        torch.testing.assert_close(offloaded[name], weight, atol=1e-4, rtol=1e-2, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("kl_coefficient", [0.0, 0.05])
def test_adapters_learn_leave_the_weights_alone_and_are_merged_for_the_policy(checkpoint, tmp_path, kl_coefficient):
    from transformers import AutoModelForCausalLM

    config = train_config(advantage="rloo", lora_rank=4, learning_rate=3e-2, warmup_steps=0, epochs=3, kl_coefficient=kl_coefficient)
    learner, made = PpoLearner(config, checkpoint, dtype="float32"), trajectories(8)
    first = learner.update(made, 0)
    assert first["kl_reference"] == pytest.approx(0.0, abs=1e-9)
    second = learner.update(made, 1)
    assert (second["kl_reference"] > 1e-4) == (kl_coefficient > 0)
    actor, before = learner.actor.module, load_language_model(checkpoint, torch.float32)
    kept = {name.replace(".base_layer.", "."): weight for name, weight in actor.language_model.state_dict().items()}
    for name, weight in before.state_dict().items():
        torch.testing.assert_close(kept[name], weight, rtol=0, atol=0)

    learner.save_policy(tmp_path / "policy")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "policy", dtype=torch.float32, attn_implementation="eager")
    (packed,) = pack(made[:1], 100)
    with torch.no_grad():
        found, old = actor(packed).logprobs, Actor(before)(packed).logprobs
        logits = merged(input_ids=torch.tensor([made[0].token_ids])).logits[0]
    expected = logits.log_softmax(-1)[packed.predictors, packed.targets]
    torch.testing.assert_close(found, expected, atol=2e-2, rtol=2e-2)
    assert float((old - expected).abs().max()) > 0.05


def test_activations_that_are_computed_again_are_the_same(checkpoint, tmp_path):
    saved = []
    for recompute in (False, True):
        torch.manual_seed(0)
        learner = PpoLearner(train_config(recompute_activations=recompute), checkpoint)
        learner.update(trajectories(8), step=0)
        learner.save_policy(tmp_path / str(recompute))
        saved.append((tmp_path / str(recompute) / "model.safetensors").read_bytes())
    assert saved[0] == saved[1] != (checkpoint / "model.safetensors").read_bytes()


def test_recomputing_keeps_less(checkpoint):
    batch = pack(trajectories(8), 10_000)[0]

    def kept(recompute: bool) -> int:
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda tensor: sizes.append(tensor.nbytes) or tensor, lambda tensor: tensor):
            Actor(load_language_model(checkpoint, torch.float32, recompute=recompute))(batch)
        return sum(sizes)

    assert kept(True) < kept(False)
