"""Loading of a causal language model from its folder; one whose tensors do not match its architecture is refused."""

import textwrap
from collections.abc import Collection
from pathlib import Path

from apprentice.errors import ApprenticeError
from apprentice.processes.output import quiet_libraries

MAX_NAMED = 4
"""Tensors that an error names at most."""
REASON_CHARS = 300
"""Characters of an error from Transformers that a message quotes at most."""


def load_causal_model(folder: Path, dtype, *, attention: str = "sdpa", on_meta: bool = False):
    """Load the model of a folder in `dtype`, with every tensor from its safetensors files.

    Args:
        folder: folder with config.json and safetensors files.
        dtype: a `torch.dtype`.
        attention: attention of Transformers, `sdpa` or `eager`; a model without `sdpa` gets `eager`.
        on_meta: put the model on PyTorch's meta device: names and shapes are checked, and no tensor is read.

    Raises:
        ApprenticeError: Transformers cannot load the folder as a causal language model; or tensors are missing, have
            another shape, or belong to no layer.
    """
    from transformers import AutoModelForCausalLM

    quiet_libraries()
    options = {"use_safetensors": True, "trust_remote_code": False, "local_files_only": True, "attn_implementation": attention}
    options |= {"output_loading_info": True, "ignore_mismatched_sizes": True, **({"device_map": "meta"} if on_meta else {})}
    try:
        with _quietly():
            model, found = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **options)
    except unfit_errors() as error:
        if attention != "eager" and isinstance(error, ValueError) and "eager" in str(error):
            return load_causal_model(folder, dtype, attention="eager", on_meta=on_meta)
        raise _unfit(folder, error) from None
    _refuse_other_tensors(folder, type(model).__name__, found)
    return model


def unfit_errors() -> tuple[type[Exception], ...]:
    """Return the exceptions that Transformers raises if it cannot use a config.json or safetensors file.

    Transformers computes with the values of a config.json unchecked, so these include errors of arithmetic and lookup.
    """
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    return (ArithmeticError, AttributeError, ImportError, LookupError, OSError, RuntimeError, TypeError, ValueError, SafetensorError, StrictDataclassError)


def _refuse_other_tensors(folder: Path, architecture: str, found: dict) -> None:
    """Raise an error about tensors that do not match; Transformers would initialise or drop them silently."""
    reshaped = [name if isinstance(name, str) else name[0] for name in found["mismatched_keys"]]
    kinds = (("missing", found["missing_keys"]), ("of another shape", reshaped), ("not in the architecture", found["unexpected_keys"]))
    wrong = [f"{kind}: {_some(names)}" for kind, names in kinds if names]
    if not wrong:
        return
    headless = "lm_head.weight" in found["missing_keys"]
    hint = "; config.json says that the head is not tied to the embeddings (tie_word_embeddings), but there is no head" if headless else ""
    raise ApprenticeError(
        f"the tensors are not those of a {architecture}{hint}. Tensors {'; tensors '.join(wrong)}",
        where=folder,
        todo="save the whole causal language model with save_pretrained, or copy or download the folder again",
    )


def _some(names: Collection[str]) -> str:
    chosen = sorted(names)[:MAX_NAMED]
    return ", ".join(chosen) + (f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else "")


def _unfit(folder: Path, error: Exception) -> ApprenticeError:
    reason = textwrap.shorten(f"{type(error).__name__}: {error}", REASON_CHARS, placeholder=" …")
    if "trust_remote_code" in str(error):
        reason = "it needs Python code of its own (auto_map in config.json), which is never run"
    return ApprenticeError(
        f"cannot be loaded as a causal language model: {reason}", where=folder, todo="choose a causal language model that Transformers itself supports"
    )


def _quietly():
    """Silence Transformers' report of tensors that do not match; `_refuse_other_tensors` raises an error instead."""
    import contextlib

    from transformers.utils import logging

    @contextlib.contextmanager
    def quiet():
        before = logging.get_verbosity()
        logging.set_verbosity_error()
        try:
            yield
        finally:
            logging.set_verbosity(before)

    return quiet()


if __name__ == "__main__":  # checks the folder named on the command line; an error is one JSON object on the standard output
    import json
    import sys

    import torch

    try:
        load_causal_model(Path(sys.argv[1]), torch.bfloat16, on_meta=True)
    except ApprenticeError as refusal:
        print(json.dumps({"what": refusal.what, "where": str(refusal.where), "todo": refusal.todo}))
        sys.exit(1)
