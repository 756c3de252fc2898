"""Runs inside vLLM's worker: new weights from safetensors files into the running engine.

Lives in a folder of its own, outside any package: vLLM's environment can import it without importing Apprentice.
"""

import json
from collections.abc import Iterator
from pathlib import Path

UNKNOWN = -1
"""No version has been loaded, or loading one failed half-way."""


class PolicyWeights:
    """Mixed into vLLM's worker (`--worker-extension-cls`); its methods are called through `/collective_rpc`."""

    def sync_weights(self, version: str, *sources: str) -> dict:
        """Replaces weights by those of checkpoint folders or safetensors files on this machine, of the last that holds them; the others stay as they are.

        vLLM's own reload leaves a tied output layer with the packed copy of the old embeddings (CPU): its outputs then change
        and are still wrong. The layer is packed anew.
        """
        self._policy = {"version": UNKNOWN, "sources": []}
        weights = {name: weight for source in sources for name, weight in _tensors(Path(source))}
        self.reload_weights(weights_iterator=iter(weights.items()))
        self._repack_tied_head()
        self._policy = {"version": int(version), "sources": list(sources)}
        return self._policy

    def policy_version(self) -> dict:
        """Where the weights that were replaced last came from, and the version given to them; UNKNOWN before the first sync."""
        return getattr(self, "_policy", {"version": UNKNOWN, "sources": []})

    def _repack_tied_head(self) -> None:
        from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead

        if not getattr(self.model_runner.model_config.hf_text_config, "tie_word_embeddings", False):
            return
        for layer in self.model_runner.get_model().modules():
            if isinstance(layer, ParallelLMHead):
                layer.quant_method.process_weights_after_loading(layer)


def _tensors(source: Path) -> Iterator[tuple]:
    from safetensors.torch import load_file

    for file in _shards(source) if source.is_dir() else [source]:
        yield from load_file(file).items()


def _shards(checkpoint: Path) -> list[Path]:
    index = checkpoint / "model.safetensors.index.json"
    names = sorted(set(json.loads(index.read_text())["weight_map"].values())) if index.exists() else ["model.safetensors"]
    return [checkpoint / name for name in names]
