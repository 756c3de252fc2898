"""The sizes of a model's architecture that determine memory and time."""

from dataclasses import dataclass
from pathlib import Path

from apprentice.errors import ApprenticeError
from apprentice.policy.loading import unfit_errors


@dataclass(frozen=True)
class Shape:
    """Sizes of a model, from its config.json."""

    parameters: int
    layers: int
    hidden: int
    intermediate: int
    edges: int
    """Inputs plus outputs of all linear layers but the last: the weights of adapters of rank 1."""
    body: int
    """Weights of all linear layers but the last, which every token passes."""
    vocabulary: int
    width: int
    """Width of all query heads of a layer together."""
    key_width: int
    """Width of all key heads of a layer together; a layer caches twice as many values per token."""

    @property
    def embeddings(self) -> int:
        """Weights of the last linear layer."""
        return self.vocabulary * self.hidden

    @classmethod
    def of(cls, folder: Path) -> "Shape":
        """Count the weights exactly, without allocating them.

        Raises:
            ApprenticeError: the folder has no config.json of a causal language model.
        """
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM

        try:
            config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            with torch.device("meta"):
                model = AutoModelForCausalLM.from_config(config)
        except unfit_errors() as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise ApprenticeError(f"contains no known model architecture: {reason}", where=folder, todo="name a folder with a model's config.json") from None
        weights = {id(weight): weight.numel() for weight in model.parameters()}
        linear = [layer for layer in model.base_model.modules() if isinstance(layer, torch.nn.Linear)]
        decoder = [layer for layer in model.get_decoder().modules() if isinstance(layer, torch.nn.Linear)]
        config = config.get_text_config()
        head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return cls(
            parameters=sum(weights.values()),
            layers=config.num_hidden_layers,
            hidden=config.hidden_size,
            intermediate=config.intermediate_size,
            edges=sum(layer.in_features + layer.out_features for layer in linear),
            body=sum(layer.weight.numel() for layer in decoder),
            vocabulary=config.vocab_size,
            width=config.num_attention_heads * head,
            key_width=(getattr(config, "num_key_value_heads", None) or config.num_attention_heads) * head,
        )
