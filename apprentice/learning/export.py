"""A policy as a folder that any Hugging Face tool reads: bf16 safetensors, config and tokenizer."""

import shutil
from pathlib import Path

import torch
from torch import nn

from apprentice.learning.models import merged_weights
from apprentice.records.files import atomic_folder

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "tokenizer.model", "vocab.json", "merges.txt", "added_tokens.json")
CHAT_FILES = ("chat_template.jinja", "generation_config.json")
LICENCES = ("LICENSE*", "NOTICE*")
"""A licence may have to go with every copy and derivative of a model, as Gemma's has."""


def save_policy(language_model: nn.Module, source: Path, folder: Path) -> None:
    """Writes the weights in bf16 with the tokenizer of the checkpoint that training started from; whole, or the old folder stays.

    Args:
        language_model: a Transformers causal language model; tied weights are stored once, adapters merged into the weights.
        source: the checkpoint whose tokenizer and chat template are copied.
        folder: replaced if it exists.

    Raises:
        ApprenticeError: the disk has no room for the weights, or the folder cannot be written.
    """
    need = sum(weight.numel() for _, weight in merged_weights(language_model)) * torch.bfloat16.itemsize
    with atomic_folder(folder, need=need) as part:
        _write(language_model, source, part)


def _write(language_model: nn.Module, source: Path, folder: Path) -> None:
    from safetensors.torch import save_file

    weights = {name: weight.to("cpu", torch.bfloat16).contiguous().clone() for name, weight in merged_weights(language_model)}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = language_model.config.to_dict() | {"dtype": "bfloat16", "use_cache": True, "architectures": [type(language_model).__name__]}
    for private in [key for key in config if key.startswith("_")]:
        del config[private]
    type(language_model.config).from_dict(config).save_pretrained(folder)
    for name in (*TOKENIZER_FILES, *CHAT_FILES):
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    for path in (path for pattern in LICENCES for path in source.glob(pattern) if path.is_file()):
        shutil.copyfile(path, folder / path.name)
