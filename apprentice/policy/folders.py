"""Checks of a model folder by its small files and the headers of its weights, before any long work starts."""

import re
from pathlib import Path
from typing import Any

from apprentice.errors import ApprenticeError
from apprentice.policy.headers import COPY_AGAIN, PATTERN, check_weights
from apprentice.records.files import read_json

PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
ADAPTER = "adapter_config.json"
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json")
READ = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json")
"""JSON files that Transformers reads if they exist."""
POINTER = b"version https://git-lfs"
"""First bytes of the text file that stands in for a file that Git LFS has not fetched."""
MAX_POINTER_BYTES = 1024
NOT_CAUSAL = re.compile(r"(For(MaskedLM|PreTraining|\w*Classification|QuestionAnswering)|(?<!LMHead)Model)$")
"""Matches the name of a Transformers class without a head that predicts the next token."""


def check_folder(folder: Path) -> None:
    """Check that a folder holds a complete causal language model with its tokenizer and chat template.

    Raises:
        ApprenticeError: a file is missing, damaged, unreadable, or belongs to another kind of model.
    """
    try:
        _check(folder)
    except OSError as error:
        where = error.filename or folder
        raise ApprenticeError(f"cannot be read: {error.strerror}", where=where, todo="replace it with a file that you can read") from None


def _check(folder: Path) -> None:
    _refuse_pointers(folder)
    if (folder / ADAPTER).exists():
        todo = "merge it into its base model (`merge_and_unload` of PEFT), save the whole model, and name that folder"
        raise ApprenticeError(f"is an adapter ({ADAPTER}), not a whole model", where=folder, todo=todo)
    if not (folder / "config.json").exists():
        raise ApprenticeError("is not a model folder: config.json is missing", where=folder, todo="name the folder that contains the model's config.json")
    settings = _settings(folder / "config.json")
    _check_weights(folder)
    if not any((folder / file).exists() for file in TOKENIZERS):
        raise ApprenticeError("contains no tokenizer", where=folder, todo="save the tokenizer beside the model")
    files = {name: read_json(folder / name) for name in READ if (folder / name).exists()}
    template = _chat_template(folder, files)
    if not template:
        raise ApprenticeError("the model has no chat template", where=folder, todo="choose an instruction-tuned model, or add chat_template.jinja")
    if "tokenizer.json" in files:
        _check_vocabulary(folder, files["tokenizer.json"], settings, template)


def _refuse_pointers(folder: Path) -> None:
    small = sorted(path for path in folder.iterdir() if path.is_file() and path.stat().st_size <= MAX_POINTER_BYTES)
    found = [path.name for path in small if path.read_bytes().startswith(POINTER)]
    if found:
        what = f"contains Git LFS pointers in place of {len(found)} files: {', '.join(found[:3])}"
        raise ApprenticeError(what, where=folder, todo="run `git lfs pull` in the repository that the folder comes from")


def _settings(path: Path) -> dict[str, Any]:
    """Read config.json, which must describe a causal language model with weights that are not quantised."""
    settings = read_json(path)
    if not isinstance(settings, dict) or not isinstance(settings.get("model_type"), str):
        raise ApprenticeError("is not a model's configuration: it has no `model_type`", where=path, todo="save the model with save_pretrained")
    names = settings.get("architectures") or []
    if names and all(NOT_CAUSAL.search(str(each)) for each in names):
        raise ApprenticeError(f"is not a causal language model: {names[0]}", where=path, todo="choose a model whose architecture ends in ForCausalLM")
    if settings.get("quantization_config"):
        raise ApprenticeError("the weights are quantised (quantization_config) and cannot be trained", where=path, todo="choose the unquantised model")
    return settings


def _check_weights(folder: Path) -> None:
    if not any(folder.glob(PATTERN)):
        pickles = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
        reason = f"; pickled weights ({pickles[0]}) can run code and are not loaded" if pickles else ""
        raise ApprenticeError(f"contains no weights ({PATTERN}){reason}", where=folder, todo="save the model with save_pretrained (safetensors)")
    check_weights(folder)


def _chat_template(folder: Path, files: dict[str, Any]) -> str:
    """Return the text of the folder's chat template or templates; empty if there is none."""
    if (folder / "chat_template.jinja").exists():
        return (folder / "chat_template.jinja").read_text(encoding="utf-8", errors="replace")
    older = read_json(folder / "chat_template.json") if (folder / "chat_template.json").exists() else None
    for values in (older, files.get("tokenizer_config.json")):
        if isinstance(values, dict) and values.get("chat_template"):
            return str(values["chat_template"])
    return ""


def _check_vocabulary(folder: Path, tokenizer: Any, settings: dict[str, Any], template: str) -> None:
    """Refuse a tokenizer with token ids beyond the model's embeddings.

    Added tokens that the chat template does not contain are not checked: Gemma 3 has one for images beyond its
    embeddings, and no text is encoded as it.
    """
    text = settings.get("text_config")
    size = settings.get("vocab_size") or (text.get("vocab_size") if isinstance(text, dict) else None)
    try:
        vocabulary = tokenizer["model"]["vocab"]
        ids = list(vocabulary.values()) if isinstance(vocabulary, dict) else [len(vocabulary) - 1]
        largest = max([*ids, *(each["id"] for each in tokenizer.get("added_tokens") or () if each["content"] in template)])
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ApprenticeError("is not a tokenizer: it lists no vocabulary", where=folder / "tokenizer.json", todo=COPY_AGAIN) from None
    if isinstance(size, int) and largest >= size:
        what = f"the tokenizer has token ids up to {largest}, and the model embeds {size} tokens (vocab_size)"
        raise ApprenticeError(what, where=folder, todo="take the tokenizer and the model from the same source")
