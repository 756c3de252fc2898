"""The engine, PPO and the warm start on a tiny model, through DeepSpeed on one process."""

import random
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from learning.toys import bandit, distill_config, files_at_most, train_config, trajectories, trajectory
from safetensors.torch import load_file
from tiny import make_tiny_checkpoint

from apprentice.errors import ApprenticeError
from apprentice.learning import minibatches, scoring
from apprentice.learning.advantages import GROUP_BASELINES
from apprentice.learning.checkpoint import CheckpointStore
from apprentice.learning.distillation import fine_tune
from apprentice.learning.engine import Engine
from apprentice.learning.export import save_policy
from apprentice.learning.graph import GROUP_ADVANTAGES
from apprentice.learning.models import Actor, ValueHead, load_language_model
from apprentice.learning.objectives import kl_k3, negative_log_likelihood
from apprentice.learning.packing import pack
from apprentice.learning.ppo import PpoLearner
from apprentice.online.alarms import update_alarms
from apprentice.records import Trajectory
from apprentice.records.events import Progress

BUDGETS = (400, 60, 90)
"""Tokens a micro-batch in each of three optimizer steps: one micro-batch, then many."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return make_tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


def weights(model):
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def train(actor, backward, step):
    made = trajectories(6)
    for number, budget in enumerate(BUDGETS):
        batches = pack(made, budget)
        count = sum(len(batch.targets) for batch in batches)
        for batch in batches:
            logprobs = actor(batch).logprobs
            backward(negative_log_likelihood(logprobs, denominator=count))
        step(1e-2 / (number + 1))


@pytest.mark.parametrize(("dtype", "zero_stage", "tolerance"), [("float32", 1, 1e-5), ("bfloat16", 1, 0.1), ("bfloat16", 2, 0.1)])
def test_the_engine_takes_the_steps_of_plain_adamw_whatever_the_number_of_micro_batches(checkpoint, dtype, zero_stage, tolerance):
    plain = Actor(load_language_model(checkpoint, torch.float32))
    optimizer = torch.optim.AdamW(plain.parameters(), betas=(0.9, 0.95), weight_decay=0.0)
    norms = []

    def step(learning_rate):
        norms.append(float(torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.5)))
        optimizer.param_groups[0]["lr"] = learning_rate
        optimizer.step()
        optimizer.zero_grad()

    train(plain, lambda loss: loss.backward(), step)

    kind = getattr(torch, dtype)
    model = Actor(load_language_model(checkpoint, kind))
    engine = Engine(model, learning_rate=1e-2, max_gradient_norm=0.5, zero_stage=zero_stage, dtype=kind)
    found = []
    train(engine, engine.accumulate, lambda learning_rate: found.append(engine.step(learning_rate)[0]))
    assert found == pytest.approx(norms, rel=1e-6 if dtype == "float32" else 1e-2)
    start = weights(load_language_model(checkpoint, torch.float32))
    difference, movement = 0.0, 0.0
    for name, expected in weights(plain.language_model).items():
        difference += float((model.language_model.state_dict()[name].float() - expected).pow(2).sum())
        movement += float((expected - start[name]).pow(2).sum())
    assert (difference / movement) ** 0.5 < tolerance


def test_the_engine_keeps_rotary_frequencies_as_exact_as_they_were_loaded(checkpoint):
    model = Actor(load_language_model(checkpoint, torch.bfloat16))
    frequencies = model.language_model.model.rotary_emb.inv_freq.clone()
    engine = Engine(model, learning_rate=1e-2, max_gradient_norm=1.0)
    assert {weight.dtype for weight in engine.module.parameters()} == {torch.bfloat16}
    torch.testing.assert_close(engine.module.language_model.model.rotary_emb.inv_freq, frequencies, rtol=0, atol=0)


def test_a_loss_that_is_not_finite_skips_the_step(checkpoint):
    model = Actor(load_language_model(checkpoint, torch.bfloat16))
    engine = Engine(model, learning_rate=1e-2, max_gradient_norm=1.0)
    before = weights(model)
    (batch,) = pack(trajectories(3), 1000)
    engine.accumulate(engine(batch).logprobs.mean())
    engine.accumulate(engine(batch).logprobs.mean() * float("nan"))
    _, stepped = engine.step(1e-2)
    assert not stepped
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(model).items())
    engine.accumulate(engine(batch).logprobs.mean())
    assert engine.step(1e-2)[1]


@pytest.mark.parametrize(("dtype", "zero_stage"), [("float32", 1), ("bfloat16", 1), ("float32", 2), ("float32", 3), ("bfloat16", 3)])
def test_overwritten_weights_are_those_that_the_optimizer_goes_on_from(dtype, zero_stage):
    kind = getattr(torch, dtype)
    engine = Engine(ValueHead(8), learning_rate=1e-2, max_gradient_norm=1.0, zero_stage=zero_stage, dtype=kind)
    source = ValueHead(8)
    torch.nn.init.normal_(source.linear.weight)
    engine.copy_weights(engine.module, source)
    engine.accumulate(0.0 * engine(torch.ones(2, 8)).sum())
    assert engine.step(1e-2)[1]
    with engine.gathered_weights():
        for mine, other in zip(engine.module.parameters(), source.parameters(), strict=True):
            assert torch.equal(mine, other.to(kind))


RESUMED = """
import sys
from pathlib import Path
from apprentice.learning.ppo import PpoLearner
from learning.toys import train_config, trajectories
learner = PpoLearner(train_config(critic=sys.argv[3]), Path(sys.argv[1]))
learner.load_state(Path(sys.argv[2]))
for step in (2, 3):
    learner.update(trajectories(8, seed=step), step)
learner.save_policy(Path(sys.argv[2]) / "policy")
"""


@pytest.mark.parametrize("critic", ["shared", "separate"])
def test_resumed_in_a_new_process_equals_uninterrupted_bit_for_bit(checkpoint, tmp_path, critic):
    learner = PpoLearner(train_config(critic=critic), checkpoint)
    learner.warm_up_critic(trajectories(10))
    for step in range(4):
        learner.update(trajectories(8, seed=step), step)
        if step == 1:
            (tmp_path / "state").mkdir()
            learner.save_state(tmp_path / "state")
    learner.save_policy(tmp_path / "policy")
    path = [str(Path.cwd()), str(Path.cwd() / "tests")]
    code = f"import sys; sys.path[:0] = {path!r}\n{RESUMED}"
    done = subprocess.run([sys.executable, "-c", code, checkpoint, tmp_path / "state", critic], timeout=240, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    straight, resumed = (folder / "policy" / "model.safetensors" for folder in (tmp_path, tmp_path / "state"))
    assert straight.read_bytes() == resumed.read_bytes()


def test_a_saved_policy_is_there_until_the_next_one_is(checkpoint, tmp_path, monkeypatch):
    learner, kept = PpoLearner(train_config(), checkpoint), []
    learner.save_policy(tmp_path / "policy")
    delete = shutil.rmtree

    def watched(folder, **options):
        delete(folder, **options)
        kept.append((tmp_path / "policy" / "model.safetensors").is_file())

    monkeypatch.setattr(shutil, "rmtree", watched)
    learner.save_policy(tmp_path / "policy")
    assert len(kept) > 2 and all(kept)
    assert [path.name for path in tmp_path.iterdir()] == ["policy"]


def test_a_full_disk_leaves_the_saved_policy_and_checkpoint_as_they_were(checkpoint, tmp_path):
    learner, store = PpoLearner(train_config(), checkpoint), CheckpointStore(tmp_path / "checkpoints")
    learner.save_policy(tmp_path / "policy")
    store.save(1, learner.save_state, {"step": 1})
    before = (tmp_path / "policy" / "model.safetensors").read_bytes()
    learner.update(trajectories(8), 0)
    with files_at_most(2**15), pytest.raises(ApprenticeError, match=r"policy: could not be written: .*it needs 0.1 MiB, and .* are free"):
        learner.save_policy(tmp_path / "policy")
    with files_at_most(2**15), pytest.raises(ApprenticeError, match=r"00000002: could not be written: .*it needs \d.\d MiB, and .* are free"):
        store.save(2, learner.save_state, {"step": 2})
    assert (tmp_path / "policy" / "model.safetensors").read_bytes() == before and store.latest()[1] == {"step": 1}
    assert sorted(path.name for path in tmp_path.rglob("0000*")) == ["00000001"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints", "policy"]


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
    """By how much the share of rewarded (even) answers grows over so many updates of the bandit."""
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
    """The plain way goes over everything before the first step."""
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
    """Of three groups one has rewards that differ: two of three optimizer steps have nothing but their momentum."""
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
    """One group of both, one that only failed and one that only succeeded; failures are twice as long as successes."""
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


def test_adapters_continue_bit_for_bit_and_their_checkpoint_is_small(checkpoint, tmp_path):
    def size(folder):
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

    made, policies = trajectories(8), {}
    for rank in (0, 2):
        learner = PpoLearner(train_config(advantage="rloo", lora_rank=rank), checkpoint, dtype="float32")
        learner.update(made, 0)
        learner.save_state(tmp_path / f"state{rank}")
    assert size(tmp_path / "state2") < size(tmp_path / "state0") / 3
    resumed = PpoLearner(train_config(advantage="rloo", lora_rank=2), checkpoint, dtype="float32")
    resumed.load_state(tmp_path / "state2")
    for name, each in (("whole", learner), ("resumed", resumed)):
        each.update(made, 1)
        each.save_policy(tmp_path / name)
        policies[name] = (tmp_path / name / "model.safetensors").read_bytes()
    assert policies["whole"] == policies["resumed"]


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


def test_a_saved_policy_is_bf16_loads_and_keeps_its_tokenizer(checkpoint, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    learner = PpoLearner(train_config(kl_coefficient=0.0), checkpoint)
    learner.update(trajectories(4), 0)
    learner.save_policy(tmp_path / "policy")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "policy")
    assert loaded.dtype == torch.bfloat16
    assert loaded.lm_head.weight.data_ptr() == loaded.model.embed_tokens.weight.data_ptr()
    live = learner.actor.module.language_model.state_dict()
    assert all(torch.equal(tensor, live[name].bfloat16()) for name, tensor in loaded.state_dict().items())
    assert AutoTokenizer.from_pretrained(tmp_path / "policy").chat_template


def test_a_saved_policy_carries_the_licence_of_its_base_model(checkpoint, tmp_path):
    source = shutil.copytree(checkpoint, tmp_path / "base")
    (source / "LICENSE.html").write_text("terms")
    (source / "NOTICE").write_text("notice")
    save_policy(load_language_model(source, torch.float32), source, tmp_path / "policy")
    assert [(tmp_path / "policy" / name).read_text() for name in ("LICENSE.html", "NOTICE")] == ["terms", "notice"]


class Killed(Exception):
    """Stands for a process that ends in the middle."""


class KilledAfter(Progress):
    """Ends the run once `steps` are done."""

    def __init__(self, path, steps):
        super().__init__(path, "distill")
        self.steps = steps

    def advance(self, phase, done, total):
        super().advance(phase, done, total)
        if done == self.steps:
            raise Killed


def test_fine_tuning_lowers_the_loss_and_continues_exactly_after_an_interruption(checkpoint, tmp_path):
    config, made = distill_config(), trajectories(8)

    def tune(name, progress):
        return fine_tune(config, checkpoint, made, tmp_path / name, CheckpointStore(tmp_path / f"{name}-store"), progress, checkpoint_every_s=0.0)

    straight = tune("straight", Progress(tmp_path / "events", "distill"))
    assert straight["loss_last"] < straight["loss_first"] - 0.3
    assert straight["steps"] == 6
    with pytest.raises(Killed):
        tune("resumed", KilledAfter(tmp_path / "events", 3))
    assert not (tmp_path / "resumed").exists()
    resumed = tune("resumed", Progress(tmp_path / "events", "distill"))
    assert resumed["loss_last"] == straight["loss_last"]
    assert (tmp_path / "resumed" / "model.safetensors").read_bytes() == (tmp_path / "straight" / "model.safetensors").read_bytes()
    assert not (tmp_path / "resumed-store").exists()


TRAINER = """
import os, sys
import torch
from apprentice.learning.engine import Engine

engine = Engine(torch.nn.Linear(4, 1), learning_rate=1e-2, max_gradient_norm=1.0)
engine.accumulate(engine(torch.ones(2, 4, dtype=torch.bfloat16)).float().sum())
print(engine.step(1e-2)[1])
"""


def test_the_trainer_compiles_nothing_and_needs_neither_a_home_nor_a_compiler(tmp_path):
    """Kernels compiled at the first start take minutes, break where the path has a blank, and lie in a cache that projects share."""
    extensions = tmp_path / "extensions"
    variables = {"PATH": str(tmp_path), "HOME": "/nonexistent", "TORCH_EXTENSIONS_DIR": str(extensions), "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", TRAINER], env=variables, capture_output=True, text=True, timeout=120)
    assert done.stdout.split()[-1:] == ["True"], done.stderr[-2000:]
    assert not extensions.exists()
