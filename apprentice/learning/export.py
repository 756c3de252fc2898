"""Writes a policy as a Hugging Face folder: bf16 safetensors, config and tokenizer."""

import shutil
from pathlib import Path

import torch
from torch import nn

from apprentice.learning.models import merged_weights
from apprentice.records.files import atomic_folder

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "tokenizer.model", "vocab.json", "merges.txt", "added_tokens.json")
CHAT_FILES = ("chat_template.jinja", "generation_config.json")
LICENCES = ("LICENSE*", "NOTICE*")
"""Files that some licences, such as Gemma's, require in every copy and derivative of a model."""


def save_policy(language_model: nn.Module, source: Path, folder: Path) -> None:
    """Writes the weights in bf16 and the tokenizer of the starting checkpoint; on an error the old folder stays.

    Args:
        language_model: a Transformers causal language model; tied weights are stored once, adapters are merged.
        source: checkpoint from which tokenizer, chat template and licence are copied.
        folder: the target, replaced if it exists.

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
