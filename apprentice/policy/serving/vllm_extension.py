"""Extension of vLLM's worker that loads new weights from safetensors files into the running engine.

This folder is not a package, so vLLM's environment can import this module without importing Apprentice.
"""

import json
from collections.abc import Iterator
from pathlib import Path

UNKNOWN = -1
"""Version before the first load, or after a load that failed."""


class PolicyWeights:
    """Mixin of vLLM's worker (`--worker-extension-cls`); clients call its methods through `/collective_rpc`."""

    def sync_weights(self, version: str, *sources: str) -> dict:
        """Replace the weights that the sources contain, and keep all others.

        On a CPU, vLLM's reload leaves a tied output layer with the packed copy of the old embeddings, so the outputs
        change but are wrong. This method packs the layer again.

        Args:
            version: version of the new weights.
            sources: checkpoint folders or safetensors files on this machine; a later one overrides an earlier one.
        """
        self._policy = {"version": UNKNOWN, "sources": []}
        weights = {name: weight for source in sources for name, weight in _tensors(Path(source))}
        self.reload_weights(weights_iterator=iter(weights.items()))
        self._repack_tied_head()
        self._policy = {"version": int(version), "sources": list(sources)}
        return self._policy

    def policy_version(self) -> dict:
        """Return the version and sources of the last `sync_weights`; the version is UNKNOWN before the first one."""
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
