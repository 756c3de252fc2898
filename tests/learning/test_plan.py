"""The dry run: exact weight counts, ZeRO's memory, the arithmetic of batches."""

import json
from pathlib import Path

import pytest

from apprentice.cli import main
from apprentice.config import load_pipeline, set_overrides
from apprentice.errors import ApprenticeError
from apprentice.learning.plan import Hardware, Shape, plan

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
EIGHT = Hardware(gpus=8, memory_gib=141, tflops=989, utilisation=0.4)


@pytest.fixture
def qwen(tmp_path: Path) -> Path:
    (tmp_path / "qwen").mkdir()
    (tmp_path / "qwen" / "config.json").write_text(json.dumps(QWEN_32B))
    return tmp_path / "qwen"


def test_the_weights_are_counted_as_the_model_card_says(qwen):
    shape = Shape.of(qwen)
    assert shape.parameters == 32_763_876_352
    assert (shape.layers, shape.hidden) == (64, 5120)


def test_zero_shards_what_its_stage_says(qwen):
    config, shape = load_pipeline("assistant-32b", PARAMS), Shape.of(qwen)
    memory = {stage: plan(staged(config, stage), shape, EIGHT).memory_gib for stage in (1, 2, 3)}
    weights, gradients = "weights (bf16)", "gradients (fp32)"
    assert memory[3][weights] == pytest.approx(memory[1][weights] / 8) == pytest.approx(2 * shape.parameters / 8 / 2**30)
    assert memory[2][gradients] == pytest.approx(memory[1][gradients] / 8) == pytest.approx(memory[3][gradients])
    assert memory[1]["optimizer (fp32 weights, two moments)"] == pytest.approx(12 * shape.parameters / 8 / 2**30)


def staged(config, stage):
    return trained(config, zero_stage=stage)


def trained(config, **changes):
    return config.model_copy(update={"train": config.train.model_copy(update=changes)})


def test_adapters_need_gradients_and_optimizer_state_of_themselves_only_and_offloading_none_of_the_latter(qwen):
    config, shape = load_pipeline("assistant-32b", PARAMS), Shape.of(qwen)
    assert shape.edges == 64 * (5120 + 5120 + 2 * (5120 + 1024) + 5120 + 5120 + 3 * (5120 + 27648))
    adapted = plan(trained(config, lora_rank=16, kl_coefficient=0.1), shape, EIGHT).memory_gib
    assert adapted["gradients (fp32)"] == pytest.approx(4 * 16 * shape.edges / 8 / 2**30)
    assert not any(name.startswith("reference") for name in adapted)
    offloaded = plan(trained(config, offload_optimizer=True), shape, EIGHT).memory_gib
    assert not any(name.startswith("optimizer") for name in offloaded)


def test_batches_tokens_and_hours_follow_from_the_parameters(qwen):
    config, shape = load_pipeline("assistant-32b", PARAMS), Shape.of(qwen)
    train, made = config.train, plan(config, Shape.of(qwen), EIGHT)
    assert made.episodes_a_step == train.tasks_per_step * train.attempts
    assert made.tokens == train.steps * made.episodes_a_step * config.environment.max_tokens
    assert made.optimizer_steps == train.steps * train.minibatches * train.epochs
    assert made.hours == pytest.approx(12 * shape.parameters * made.tokens / (8 * 989e12 * 0.4) / 3600)  # 2 to sample, 2 before, 8 to update; no reference


def test_the_published_run_has_72_tasks_and_all_variants(qwen):
    data = load_pipeline("assistant-32b", PARAMS).data
    assert (data.train, data.heldout_variants) == (72, 0)


def test_the_command_prints_the_plan_and_refuses_what_does_not_fit(qwen, tmp_path, monkeypatch, capsys):
    (tmp_path / "params.yaml").write_text(PARAMS.read_text())
    set_overrides("assistant-32b", [f"model.name={qwen}"], tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    assert main(["plan", "assistant-32b", "--gpus", "8", "--gpu-memory", "141"]) == 0
    told = capsys.readouterr().out
    assert "32.8 billion weights" in told and "gradients (fp32)" in told and "hours" in told
    assert main(["plan", "assistant-32b", "--gpus", "2", "--gpu-memory", "80"]) == 1
    assert "does not fit" in capsys.readouterr().out


def test_a_folder_without_an_architecture_is_refused(tmp_path):
    with pytest.raises(ApprenticeError, match="no model's architecture"):
        Shape.of(tmp_path)
