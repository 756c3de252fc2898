"""Tensors that do not match the architecture are refused before random numbers replace them."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from apprentice.config import Layout, load_pipeline
from apprentice.errors import ApprenticeError
from apprentice.learning.models import load_language_model
from apprentice.policy.loading import load_causal_model
from apprentice.policy.transformers_engine import TransformersPolicy
from apprentice.records.events import Progress
from apprentice.stages import distill

UP = "model.layers.1.mlp.up_proj.weight"
LOADERS = {
    "on meta": lambda folder: load_causal_model(folder, torch.bfloat16, on_meta=True),
    "the trainer": lambda folder: load_language_model(folder, torch.float32),
    "the engine": lambda folder: TransformersPolicy(folder, max_sequences=1),
}


@pytest.fixture(params=LOADERS)
def load(request):
    return LOADERS[request.param]


def rewrite(folder, **changes) -> None:
    """Replace tensors in a folder; None removes one."""
    tensors = load_file(folder / "model.safetensors") | {name.replace("__", "."): tensor for name, tensor in changes.items()}
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, folder / "model.safetensors", metadata={"format": "pt"})


def reconfigure(folder, **changes) -> None:
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | changes))


def test_a_matching_model_is_loaded(copy, load):
    load(copy)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({UP.replace(".", "__"): None}, f"the tensors are not those of a LlamaForCausalLM. Tensors missing: {UP}\n"),
        ({UP.replace(".", "__"): torch.zeros(3, 32)}, f"Tensors of another shape: {UP}\n"),
        ({"score__weight": torch.zeros(2, 32)}, "Tensors not in the architecture: score.weight\n"),
    ],
    ids=["missing", "reshaped", "unexpected"],
)
def test_tensors_of_another_architecture_are_refused_by_name(copy, load, changes, message):
    rewrite(copy, **changes)
    with pytest.raises(ApprenticeError, match=message):
        load(copy)


def test_an_untied_model_without_head_is_refused(copy, load):
    reconfigure(copy, tie_word_embeddings=False)
    with pytest.raises(ApprenticeError, match=r"the head is not tied to the embeddings \(tie_word_embeddings\), but there is no head. .*lm_head.weight"):
        load(copy)


def test_many_missing_tensors_are_counted(copy, load):
    reconfigure(copy, num_hidden_layers=4)
    with pytest.raises(ApprenticeError, match=r"missing: model.layers.2.*, model.layers.2.* and 14 more"):
        load(copy)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "nothing_known"}, "cannot be loaded as a causal language model"),
        ({"model_type": "t5"}, "cannot be loaded as a causal language model"),
        ({"hidden_size": "wide"}, "cannot be loaded as a causal language model"),
        ({"num_attention_heads": 0}, "cannot be loaded as a causal language model"),
        ({"rope_parameters": 7}, "cannot be loaded as a causal language model"),
        ({"model_type": "custom", "auto_map": {"AutoConfig": "conf.Conf", "AutoModelForCausalLM": "mod.Mod"}}, "Python code of its own"),
    ],
    ids=["unknown", "not causal", "a word for a number", "zero", "a number for a table", "remote code"],
)
def test_an_architecture_that_transformers_cannot_load_is_one_error(copy, load, changes, message):
    (copy / "conf.py").write_text("raise SystemExit('ran')")
    (copy / "mod.py").write_text("raise SystemExit('ran')")
    reconfigure(copy, **changes)
    with pytest.raises(ApprenticeError, match=message):
        load(copy)


def test_distill_refuses_a_model_before_it_looks_for_traces(copy, tmp_path):
    reconfigure(copy, tie_word_embeddings=False)
    config = load_pipeline("quick")
    config = config.model_copy(update={"model": config.model.model_copy(update={"name": str(copy)})})
    layout = Layout("quick", tmp_path)
    with pytest.raises(ApprenticeError, match="lm_head.weight"):
        distill.run(config, layout, Progress(layout.events, "distill"))
    assert not layout.warm_start.exists()
