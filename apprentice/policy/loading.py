"""Read a causal language model from its folder, and refuse one whose tensors are not those of its architecture."""

import textwrap
from collections.abc import Collection
from pathlib import Path

from apprentice.errors import ApprenticeError
from apprentice.processes.output import quiet_libraries

NAMED = 4
"""Tensors that an error names."""
REASON_CHARS = 300
"""Characters that are shown of an error of Transformers'."""


def load_causal_model(folder: Path, dtype, *, attention: str = "sdpa", on_paper: bool = False):
    """The model of a folder, in `dtype`, with every tensor from its safetensors.

    Args:
        folder: holds config.json and safetensors.
        dtype: a `torch.dtype`.
        attention: one of Transformers' own, `sdpa` or `eager`; where the model knows no `sdpa`, it is `eager`.
        on_paper: no tensor is read; what is checked are names and shapes.

    Raises:
        ApprenticeError: Transformers cannot load it as a causal language model, or tensors are missing, have another shape, or belong to no layer.
    """
    from transformers import AutoModelForCausalLM

    quiet_libraries()
    how = {"use_safetensors": True, "trust_remote_code": False, "local_files_only": True, "attn_implementation": attention}
    told = {"output_loading_info": True, "ignore_mismatched_sizes": True, **({"device_map": "meta"} if on_paper else {})}
    try:
        with _quietly():
            model, found = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **how, **told)
    except unfit_errors() as error:
        if attention != "eager" and isinstance(error, ValueError) and "eager" in str(error):
            return load_causal_model(folder, dtype, attention="eager", on_paper=on_paper)
        raise _unfit(folder, error) from None
    _refuse_other_tensors(folder, type(model).__name__, found)
    return model


def unfit_errors() -> tuple[type[Exception], ...]:
    """What Transformers raises where a config.json or safetensors file cannot be used.

    It calculates with the values of a config.json, whatever they are.
    """
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    return (ArithmeticError, AttributeError, ImportError, LookupError, OSError, RuntimeError, TypeError, ValueError, SafetensorError, StrictDataclassError)


def _refuse_other_tensors(folder: Path, architecture: str, found: dict) -> None:
    """Transformers fills what is missing with random numbers, and drops what it has no use for."""
    reshaped = [name if isinstance(name, str) else name[0] for name in found["mismatched_keys"]]
    kinds = (("lacks", found["missing_keys"]), ("has in another shape", reshaped), ("holds and the architecture does not", found["unexpected_keys"]))
    wrong = [f"{kind}: {_some(names)}" for kind, names in kinds if names]
    if not wrong:
        return
    headless = "lm_head.weight" in found["missing_keys"]
    hint = "; config.json says that the head is not tied to the embeddings (tie_word_embeddings), and there is none" if headless else ""
    raise ApprenticeError(
        f"holds other tensors than a {architecture} has{hint}. What the folder {'; what it '.join(wrong)}",
        where=folder,
        todo="save the whole causal language model with save_pretrained, or copy or download the folder anew",
    )


def _some(names: Collection[str]) -> str:
    chosen = sorted(names)[:NAMED]
    return ", ".join(chosen) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def _unfit(folder: Path, error: Exception) -> ApprenticeError:
    reason = textwrap.shorten(f"{type(error).__name__}: {error}", REASON_CHARS, placeholder=" …")
    if "trust_remote_code" in str(error):
        reason = "it comes with Python code of its own (auto_map in config.json), which is never run"
    return ApprenticeError(
        f"cannot be loaded as a causal language model: {reason}", where=folder, todo="choose a causal language model that Transformers itself knows"
    )


def _quietly():
    """Without Transformers' report of what it filled in: what is wrong is raised."""
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


if __name__ == "__main__":  # checks the folder that is named: an error is one JSON object on the standard output
    import json
    import sys

    import torch

    try:
        load_causal_model(Path(sys.argv[1]), torch.bfloat16, on_paper=True)
    except ApprenticeError as refusal:
        print(json.dumps({"what": refusal.what, "where": str(refusal.where), "todo": refusal.todo}))
        sys.exit(1)
