"""Plans: exact weight counts, memory under ZeRO, seconds computed by hand, and the advised parameters."""

import json
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from learning.toys import train_config, trajectory
from tiny import make_tiny_checkpoint

from apprentice.cli import main
from apprentice.config import load_pipeline, set_overrides
from apprentice.errors import ApprenticeError
from apprentice.planning.advice import advise, enough_gpus
from apprentice.planning.estimate import Episodes, Load, step_seconds
from apprentice.planning.hardware import GPUS, Efficiency, Hardware, hardware, this_machine
from apprentice.planning.plan import expected_episodes, plan
from apprentice.planning.shape import Shape

PARAMS = Path(__file__).parents[2] / "params.yaml"
QWEN_32B = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_size": 5120,
    "intermediate_size": 27648,
    "num_attention_heads": 40,
    "num_key_value_heads": 8,
    "num_hidden_layers": 64,
    "vocab_size": 152064,
    "tie_word_embeddings": False,
}
EIGHT = hardware("h200", 8)
SMOLLM2_135M = Shape(134_515_008, 30, 576, 1536, edges=30 * 10_176, body=106_168_320, vocabulary=49_152, width=576, key_width=192)
TOY = Shape(parameters=1000, layers=2, hidden=10, intermediate=20, edges=100, body=800, vocabulary=20, width=10, key_width=5)
WHOLE = Efficiency(
    forward=0.5,
    backward=0.25,
    attention=0.1,
    decode=0.5,
    memory=0.5,
    link=0.5,
    layer_exchange_s=0.001,
    decode_step_s=0.01,
    decode_sequence_s=0.001,
    sync_gbs=1e-6,
)
"""Round shares, for calculations by hand."""
SLOW = Hardware(gpus=1, memory_gib=1, tflops=1e-6, bandwidth_gbs=1e-3, link_gbs=1e-3, host_gbs=1e-4, efficiency=WHOLE)
"""1 MFLOP/s, 1 MB/s."""


@pytest.fixture
def qwen(tmp_path: Path) -> Path:
    (tmp_path / "qwen").mkdir()
    (tmp_path / "qwen" / "config.json").write_text(json.dumps(QWEN_32B))
    return tmp_path / "qwen"


def trained(config, **changes):
    return config.model_copy(update={"train": config.train.model_copy(update=changes)})


def toy(**changes):
    """Return a pipeline without critic and reference, with micro-batches of 100 tokens."""
    changes = {"advantage": "rloo", "kl_coefficient": 0.0, "epochs": 1, "minibatches": 1, "micro_batch_tokens": 100} | changes
    return trained(load_pipeline("quick", PARAMS), **changes)


def planned(config, shape, machine=EIGHT):
    return plan(config, shape, expected_episodes(config), machine)


def test_the_weights_are_as_many_as_the_model_card_says(qwen):
    shape = Shape.of(qwen)
    assert shape.parameters == 32_763_876_352
    assert (shape.layers, shape.hidden, shape.width, shape.key_width) == (64, 5120, 5120, 1024)
    assert shape.body == 64 * (2 * 5120 * 5120 + 2 * 5120 * 1024 + 3 * 5120 * 27648)
    assert shape.embeddings == 152064 * 5120


def test_each_zero_stage_shards_its_share_of_the_memory(qwen):
    config, shape = load_pipeline("assistant-32b", PARAMS), Shape.of(qwen)
    memory = {stage: planned(trained(config, zero_stage=stage), shape).memory_gib for stage in (1, 2, 3)}
    weights, gradients = "weights (bf16)", "gradients (fp32)"
    assert memory[3][weights] == pytest.approx(memory[1][weights] / 8) == pytest.approx(2 * shape.parameters / 8 / 2**30)
    assert memory[2][gradients] == pytest.approx(memory[1][gradients] / 8) == pytest.approx(memory[3][gradients])
    assert memory[1]["optimizer (fp32 weights, two moments)"] == pytest.approx(12 * shape.parameters / 8 / 2**30)


def test_adapters_need_only_their_own_gradients_and_offloading_removes_the_optimizer_state(qwen):
    config, shape = load_pipeline("assistant-32b", PARAMS), Shape.of(qwen)
    assert shape.edges == 64 * (5120 + 5120 + 2 * (5120 + 1024) + 5120 + 5120 + 3 * (5120 + 27648))
    adapted = planned(trained(config, lora_rank=16, kl_coefficient=0.1), shape).memory_gib
    assert adapted["gradients (fp32)"] == pytest.approx(4 * 16 * shape.edges / 8 / 2**30)
    assert not any(name.startswith("reference") for name in adapted)
    offloaded = planned(trained(config, offload_optimizer=True), shape).memory_gib
    assert not any(name.startswith("optimizer") for name in offloaded)


def test_batches_tokens_and_hours_follow_from_the_parameters(qwen):
    config, shape = load_pipeline("assistant-32b", PARAMS), Shape.of(qwen)
    train, made = config.train, planned(config, shape)
    assert made.tokens == train.steps * train.tasks_per_step * train.attempts * config.environment.max_tokens
    assert made.optimizer_steps == train.steps * train.minibatches * train.epochs
    assert made.micro_batches_a_rank == 4  # 240 episodes, one a micro-batch, 8 optimizer steps, 8 ranks
    assert made.hours == pytest.approx(train.steps * made.seconds.total / 3600)


def test_a_shared_prefix_is_computed_once_in_each_tree():
    train = toy().train.model_copy(update={"micro_batch_tokens": 512})
    alone = Load.of(train, Episodes(tasks=2, attempts=4, tokens=256, actions=64), ranks=1)
    assert (alone.tokens, alone.pairs) == (2 * 4 * 256, 2 * 4 * 256**2 / 2)
    # A micro-batch of 512 tokens holds 192 + 5 x 64, so all four attempts.
    together = Load.of(train, Episodes(tasks=2, attempts=4, tokens=256, actions=64, shared=192), ranks=1)
    assert (together.tokens, together.actions) == (2 * (192 + 4 * 64), 2 * 4 * 64)
    assert together.pairs == 2 * (192**2 / 2 + 4 * 64 * (192 + 32))
    eight = Load.of(train, Episodes(tasks=1, attempts=8, tokens=256, actions=64, shared=192), ranks=1)
    assert eight.tokens == 2 * 192 + 8 * 64
    little = Load.of(train, Episodes(tasks=1, attempts=8, tokens=256, actions=64, shared=15), ranks=1)
    assert little.tokens == 8 * 256


def test_ranks_share_whole_micro_batches():
    episodes = Episodes(tasks=5, attempts=1, tokens=100, actions=10)
    assert [Load.of(toy().train, episodes, ranks).micro_batches for ranks in (1, 2, 5, 8)] == [5, 3, 1, 1]
    assert [Load.of(toy().train, episodes, ranks).share for ranks in (1, 2, 5, 8)] == pytest.approx([1, 3 / 5, 1 / 5, 1 / 5])


def test_the_seconds_of_an_update_are_those_computed_by_hand():
    seconds = step_seconds(toy(), TOY, Episodes(tasks=1, attempts=1, tokens=100, actions=10), SLOW)
    linear = 2 * (800 * 100 + 200 * 10)  # 164 kFLOP: 0.328 s at half the peak
    attention = 4 * 2 * 10 * 100**2 / 2  # 400 kFLOP: 4 s at a tenth
    accumulated = 10 * 1000 / 0.5e6
    assert seconds.update == pytest.approx(linear / 0.5e6 + attention / 0.1e6 + 2 * linear / 0.25e6 + 2.5 * attention / 0.1e6 + accumulated)
    assert seconds.optimizer == pytest.approx((12 + 4 + 12 + 2 + 12) * 1000 / 0.5e6)
    assert seconds.sync == pytest.approx(2 * 1000 / 1e3)
    assert (seconds.old, seconds.reference, seconds.ranks) == (0, 0, 0)


def test_the_objective_determines_the_passes_before_the_update():
    episodes = Episodes(tasks=4, attempts=2, tokens=100, actions=10)

    def before(**changes):
        seconds = step_seconds(toy(**changes), TOY, episodes, SLOW)
        return seconds.old, seconds.reference

    whole, _ = before(advantage="gae")
    assert before(kl_coefficient=0.1) == (0, pytest.approx(whole))
    assert before(kl_coefficient=0.1, kl_in="reward") == (pytest.approx(whole), pytest.approx(whole))
    assert before(minibatches=4) == (pytest.approx(whole * 3 / 4), 0)
    assert before(advantage="gae", critic="separate")[0] == pytest.approx(2 * whole)


def test_the_seconds_of_sampling_are_those_computed_by_hand():
    seconds = step_seconds(toy(), TOY, Episodes(tasks=3, attempts=1, tokens=100, actions=10), SLOW)
    kept = 2 * 2 * 2 * 5 * 50  # keys and values of two layers at half the length: 2 kB a sequence
    work, read = 2 * 1000 * 3 / 0.5e6, (2 * 1000 + 3 * kept) / 0.5e6
    step = max(work, read) + 0.01 + 3 * 0.001
    prefill = 2 * 800 * 270 / 0.5e6 + 4 * 2 * 10 * 3 * 100**2 / 2 * 0.9 / 0.1e6
    assert seconds.sampling == pytest.approx(10 * step + prefill)


def test_the_cache_limits_the_episodes_at_a_time():
    config = toy()
    small = config.model_copy(update={"policy": config.policy.model_copy(update={"kv_cache_gib": 2 * 2000 / 2**30})})
    episodes = Episodes(tasks=4, attempts=1, tokens=100, actions=10)
    wide, narrow = (step_seconds(each, TOY, episodes, SLOW).sampling for each in (config, small))
    assert narrow - wide == pytest.approx(20 * (max(2 * 2000 / 0.5e6, 6000 / 0.5e6) + 0.012) - 10 * (max(4 * 2000 / 0.5e6, 10_000 / 0.5e6) + 0.014))


def test_communication_depends_on_the_zero_stage():
    episodes, two = Episodes(tasks=4, attempts=1, tokens=100, actions=10), replace(SLOW, gpus=2)
    seconds = [step_seconds(toy(zero_stage=stage), TOY, episodes, two).ranks for stage in (0, 1, 2, 3)]
    # 1000 weights, half of each collective through a link of 0.5 MB/s, two micro-batches per rank, one optimizer step;
    # in stage 3, six passes of two layers.
    moved = [1000 * size / 2 / 0.5e6 for size in (10, 10, 2 * 2 + 2, 2 * 2 + 2 * 2 * 2)]
    assert seconds == pytest.approx([*moved[:3], moved[3] + 6 * 2 * 0.001])


@pytest.mark.parametrize("what", ["tasks", "attempts", "tokens", "actions"])
def test_more_work_never_takes_less_time(what):
    config, episodes = load_pipeline("quick", PARAMS), Episodes(tasks=2, attempts=2, tokens=400, actions=100)
    sizes = [replace(episodes, **{what: getattr(episodes, what) + more}) for more in range(0, 140, 7)]
    totals = [step_seconds(config, SMOLLM2_135M, size, hardware("h100", 1)).total for size in sizes]
    assert all(before <= after for before, after in pairwise(totals))


def test_recomputing_activations_trades_time_for_memory(qwen):
    config, shape = load_pipeline("assistant-32b", PARAMS), Shape.of(qwen)
    kept, again = (planned(trained(config, recompute_activations=each), shape) for each in (False, True))
    assert again.total_gib < kept.total_gib and again.seconds.total > kept.seconds.total


def test_the_advice_is_the_smallest_stage_that_fits():
    config = toy(zero_stage=3, micro_batch_tokens=1)
    shape = replace(TOY, parameters=4 * 10**9)
    episodes = expected_episodes(config, actions=64)

    def stage(memory_gib):
        machine = replace(EIGHT, memory_gib=memory_gib)
        train = advise(config, shape, episodes, machine)
        assert plan(config.model_copy(update={"train": train}), shape, episodes, machine).total_gib <= memory_gib
        assert not train.recompute_activations and not train.offload_optimizer
        return train.zero_stage

    # Optimizer and policy server take 7.5 GiB. Weights, gradients and buffers take 7.5 + 14.9 + 1.9, 7.5 + 1.9 + 0.9
    # and 0.9 + 1.9 + 2.8 GiB.
    assert [stage(memory) for memory in (40, 24, 16)] == [1, 2, 3]


def test_a_sleeping_server_leaves_its_memory_to_the_activations():
    config = toy()
    awake = planned(config, SMOLLM2_135M)
    asleep = planned(config.model_copy(update={"policy": config.policy.model_copy(update={"sleep": True})}), SMOLLM2_135M)
    server = sum(size for name, size in awake.memory_gib.items() if "server" in name)
    activations = sum(size for name, size in awake.memory_gib.items() if "activations" in name)
    assert server > 0 and activations > 0
    assert asleep.total_gib == pytest.approx(awake.total_gib - min(server, activations))


def test_nothing_is_offloaded_or_recomputed_if_everything_fits():
    config, whole = load_pipeline("quick", PARAMS), replace(SLOW, memory_gib=64, host_gbs=1.0)
    train = advise(config, SMOLLM2_135M, expected_episodes(config), whole)
    assert (train.zero_stage, train.recompute_activations, train.offload_optimizer) == (1, False, False)


def test_the_advised_micro_batch_is_the_largest_that_fits(qwen):
    config, shape = load_pipeline("assistant-32b", PARAMS), Shape.of(qwen)
    episodes = expected_episodes(config, actions=4000)
    train = advise(config, shape, episodes, EIGHT)
    larger = trained(config, **(train.model_dump() | {"micro_batch_tokens": train.micro_batch_tokens + 256}))
    assert plan(larger, shape, episodes, EIGHT).total_gib > EIGHT.memory_gib or train.micro_batch_tokens * 8 >= episodes.count * episodes.tokens / 8


def test_the_advice_is_more_gpus_if_nothing_fits(qwen):
    config, shape = load_pipeline("assistant-32b", PARAMS), Shape.of(qwen)
    episodes, two = expected_episodes(config), hardware("h100", 2)
    assert advise(config, shape, episodes, two) is None
    enough = enough_gpus(config, shape, episodes, two)
    assert advise(config, shape, episodes, replace(two, gpus=enough)) and not advise(config, shape, episodes, replace(two, gpus=enough // 2))
    assert enough_gpus(config, shape, replace(episodes, tokens=10**9), two) is None


def test_the_published_run_has_72_tasks_and_all_variants():
    data = load_pipeline("assistant-32b", PARAMS).data
    assert (data.train, data.heldout_variants) == (72, 0)


def test_the_command_prints_the_plan_and_refuses_what_does_not_fit(qwen, tmp_path, monkeypatch, capsys):
    (tmp_path / "params.yaml").write_text(PARAMS.read_text())
    set_overrides("assistant-32b", [f"model.name={qwen}"], tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    assert main(["plan", "assistant-32b", "--gpus", "8", "--gpu-memory", "141"]) == 0
    output = capsys.readouterr().out
    assert all(words in output for words in ("32.8 billion weights", "gradients (fp32)", "sampling", "hours", "advice: train.zero_stage=3"))
    assert output.endswith("train.ranks=8 policy.gpus=8\n")
    assert main(["plan", "assistant-32b", "--gpus", "2", "--gpu", "h100"]) == 1
    output = capsys.readouterr().out
    assert "does not fit" in output and "GPUs, train.zero_stage=" in output
    assert main(["plan", "assistant-32b", "--context", "8192", "--actions", "2000", "--shared", "3000", "--utilisation", "0.4"]) == 0
    assert "240 episodes of 8,192 tokens, 2,000 sampled" in capsys.readouterr().out


@pytest.mark.parametrize(
    "flags", [["--gpu", "b9000"], ["--gpus", "0"], ["--utilisation", "2"], ["--gpu-link", "-1"], ["--actions", "0"], ["--shared", "99999"]]
)
def test_the_command_refuses_invalid_flags(flags, qwen, tmp_path, monkeypatch):
    (tmp_path / "params.yaml").write_text(PARAMS.read_text())
    set_overrides("assistant-32b", [f"model.name={qwen}"], tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ApprenticeError):
        main(["plan", "assistant-32b", *flags])


@pytest.mark.slow
def test_an_update_takes_about_as_long_as_predicted(tmp_path):
    """The bound is a factor of 5, because other processes may use the machine; see `benchmarks.scaling`."""
    from apprentice.learning.ppo import PpoLearner

    folder = make_tiny_checkpoint(tmp_path / "model", hidden=512, layers=4)
    config = load_pipeline("quick", PARAMS).model_copy(update={"train": train_config(micro_batch_tokens=1024, minibatches=1)})
    shape, learner = Shape.of(folder), PpoLearner(config.train, folder)
    for count, tokens in ((4, 256), (1, 1024)):
        made = [trajectory(number, length=tokens, actions=64) for number in range(count)]
        machine, seconds = this_machine(), min(timed(learner, made) for _ in range(2))
        predicted = step_seconds(config, shape, Episodes(tasks=count, attempts=1, tokens=tokens, actions=64), machine).learning
        assert predicted / 5 < seconds < predicted * 5, (count, tokens)


def timed(learner, made):
    began = time.perf_counter()
    learner.update(made, 0)
    return time.perf_counter() - began


def test_gpus_have_the_values_of_their_data_sheets():
    assert GPUS["h100"].tflops == GPUS["h200"].tflops == 989 and GPUS["a100"].tflops == 312
    assert hardware("h200", 4).memory_gib == 141 and hardware("h200", 4).gpus == 4


def test_a_folder_without_an_architecture_is_refused(tmp_path):
    with pytest.raises(ApprenticeError, match="contains no known model architecture"):
        Shape.of(tmp_path)


@pytest.mark.parametrize("changes", [{"hidden_size": "wide"}, {"num_attention_heads": 0}, {"rope_parameters": 7}], ids=str)
def test_an_invalid_architecture_is_refused(tmp_path, changes):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "hidden_size": 32, "num_attention_heads": 4} | changes))
    with pytest.raises(ApprenticeError, match="contains no known model architecture: .*"):
        Shape.of(tmp_path)


def test_a_model_with_a_vision_part_is_counted_by_its_text_part(tmp_path):
    from transformers import Gemma3Config

    text = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    Gemma3Config(text_config=text | {"head_dim": 8}, vision_config=vision).save_pretrained(tmp_path)
    shape = Shape.of(tmp_path)
    assert (shape.layers, shape.hidden, shape.vocabulary, shape.width, shape.key_width) == (2, 32, 300, 32, 16)
    assert shape.body == 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48)
