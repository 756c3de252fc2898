"""Tensors that do not fit the architecture, before random numbers take their place."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from apprentice.errors import ApprenticeError
from apprentice.learning.models import load_language_model
from apprentice.policy.loading import load_causal_model
from apprentice.policy.transformers_engine import TransformersPolicy

UP = "model.layers.1.mlp.up_proj.weight"
LOADERS = {
    "on paper": lambda folder: load_causal_model(folder, torch.bfloat16, on_paper=True),
    "the trainer": lambda folder: load_language_model(folder, torch.float32),
    "the engine": lambda folder: TransformersPolicy(folder, max_sequences=1),
}


@pytest.fixture
def copy(tiny, tmp_path):
    return shutil.copytree(tiny, tmp_path / "model")


@pytest.fixture(params=LOADERS)
def load(request):
    return LOADERS[request.param]


def rewrite(folder, **changes) -> None:
    """Other tensors in a folder; None takes one away."""
    tensors = load_file(folder / "model.safetensors") | {name.replace("__", "."): tensor for name, tensor in changes.items()}
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, folder / "model.safetensors", metadata={"format": "pt"})


def reconfigure(folder, **changes) -> None:
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | changes))


def test_what_fits_is_loaded(copy, load):
    load(copy)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({UP.replace(".", "__"): None}, f"a LlamaForCausalLM has. What the folder lacks: {UP}\n"),
        ({UP.replace(".", "__"): torch.zeros(3, 32)}, f"What the folder has in another shape: {UP}\n"),
        ({"score__weight": torch.zeros(2, 32)}, "What the folder holds and the architecture does not: score.weight\n"),
    ],
    ids=["missing", "reshaped", "unexpected"],
)
def test_tensors_of_another_architecture_are_refused_by_name(copy, load, changes, message):
    rewrite(copy, **changes)
    with pytest.raises(ApprenticeError, match=message):
        load(copy)


def test_an_untied_model_without_head_is_refused(copy, load):
    reconfigure(copy, tie_word_embeddings=False)
    with pytest.raises(ApprenticeError, match=r"the head is not tied to the embeddings \(tie_word_embeddings\), and there is none. .*lm_head.weight"):
        load(copy)


def test_many_missing_tensors_are_counted(copy, load):
    reconfigure(copy, num_hidden_layers=4)
    with pytest.raises(ApprenticeError, match=r"lacks: model.layers.2.*, model.layers.2.* and 14 more"):
        load(copy)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "nothing_known"}, "cannot be loaded as a causal language model"),
        ({"model_type": "t5"}, "cannot be loaded as a causal language model"),
        ({"model_type": "custom", "auto_map": {"AutoConfig": "conf.Conf", "AutoModelForCausalLM": "mod.Mod"}}, "Python code of its own"),
    ],
    ids=["unknown", "no causal model", "remote code"],
)
def test_an_architecture_that_transformers_does_not_load_is_one_error(copy, load, changes, message):
    (copy / "conf.py").write_text("raise SystemExit('ran')")
    (copy / "mod.py").write_text("raise SystemExit('ran')")
    reconfigure(copy, **changes)
    with pytest.raises(ApprenticeError, match=message):
        load(copy)


def test_names_and_shapes_are_checked_in_a_process_of_its_own(copy):
    reconfigure(copy, tie_word_embeddings=False)
    done = subprocess.run([sys.executable, "-m", "apprentice.policy.loading", str(copy)], capture_output=True, text=True)
    assert (done.returncode, done.stderr.splitlines()[-1][:16]) == (1, "  What to do: sa")
