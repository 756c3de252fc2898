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

    def sync_weights(self, checkpoint: str, version: str) -> dict:
        """Replaces the weights by those of a checkpoint folder on this machine.

        vLLM's own reload leaves a tied output layer with the packed copy of the old embeddings (CPU): its outputs then change
        and are still wrong. The layer is packed anew.
        """
        self._policy = {"version": UNKNOWN, "checkpoint": ""}
        self.reload_weights(weights_iterator=_tensors(Path(checkpoint)))
        self._repack_tied_head()
        self._policy = {"version": int(version), "checkpoint": checkpoint}
        return self._policy

    def policy_version(self) -> dict:
        """Which checkpoint folder the weights came from, and the version given to it; UNKNOWN before the first sync."""
        return getattr(self, "_policy", {"version": UNKNOWN, "checkpoint": ""})

    def _repack_tied_head(self) -> None:
        from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead

        if not getattr(self.model_runner.model_config.hf_text_config, "tie_word_embeddings", False):
            return
        for layer in self.model_runner.get_model().modules():
            if isinstance(layer, ParallelLMHead):
                layer.quant_method.process_weights_after_loading(layer)


def _tensors(checkpoint: Path) -> Iterator[tuple]:
    from safetensors.torch import load_file

    index = checkpoint / "model.safetensors.index.json"
    shards = sorted(set(json.loads(index.read_text())["weight_map"].values())) if index.exists() else ["model.safetensors"]
    for shard in shards:
        yield from load_file(checkpoint / shard).items()
