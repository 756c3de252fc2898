"""Tiny random models of many architectures: windows, soft-caps, sinks, scaled logits, experts, recurrence."""

from pathlib import Path

WINDOW = 8

COMMON = dict(
    vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
    bos_token_id=None, eos_token_id=0, pad_token_id=0, initializer_range=0.5,
)  # fmt: skip
HEADS = dict(head_dim=8)
HALF = dict(layer_types=["sliding_attention", "full_attention"], sliding_window=WINDOW)

PACKED = {
    "llama": ("LlamaConfig", {}),
    "qwen2": ("Qwen2Config", {}),
    "qwen2 with a window": ("Qwen2Config", dict(use_sliding_window=True, sliding_window=WINDOW, max_window_layers=1)),
    "qwen3": ("Qwen3Config", HEADS),
    "phi3": ("Phi3Config", {}),
    "phi3 with a window": ("Phi3Config", dict(sliding_window=WINDOW)),
    "smollm3": ("SmolLM3Config", {}),
    "mistral": ("MistralConfig", dict(sliding_window=None)),
    "mistral with a window": ("MistralConfig", dict(sliding_window=WINDOW)),
    "gemma": ("GemmaConfig", HEADS),
    "gemma3": ("Gemma3TextConfig", HEADS | HALF | dict(query_pre_attn_scalar=8)),
    "gemma3 with soft-capped logits": ("Gemma3TextConfig", HEADS | HALF | dict(final_logit_softcapping=2.0)),
    "gemma2 without soft-capped scores": ("Gemma2Config", HEADS | HALF | dict(attn_logit_softcapping=None, final_logit_softcapping=2.0)),
    "granite": ("GraniteConfig", dict(logits_scaling=4.0, attention_multiplier=0.3, embedding_multiplier=3.0, residual_multiplier=0.5)),
    "cohere": ("CohereConfig", dict(logit_scale=0.25)),
    "cohere2": ("Cohere2Config", HALF | dict(logit_scale=0.25)),
    "olmo2": ("Olmo2Config", {}),
    "mixtral": ("MixtralConfig", dict(num_local_experts=4, sliding_window=None)),
}
"""Models that are trained with packed attention."""

ROWS = {
    "gemma2": ("Gemma2Config", HEADS | HALF | dict(attn_logit_softcapping=2.0, final_logit_softcapping=2.0), "eager"),
    "gpt-oss": ("GptOssConfig", HEADS | HALF | dict(num_local_experts=4, num_experts_per_tok=2), "eager"),
    "qwen3 next": (
        "Qwen3NextConfig",
        HEADS
        | dict(layer_types=["linear_attention", "full_attention"], num_experts=0, linear_num_value_heads=4, linear_num_key_heads=2)
        | dict(linear_key_head_dim=8, linear_value_head_dim=8, mlp_only_layers=[0, 1]),
        "sdpa",
    ),
}
"""Models that are trained with Transformers' own attention, one row per sequence."""


def make_model(config: str, changes: dict, folder: Path) -> Path:
    """Writes a random model of the given architecture."""
    import torch
    import transformers

    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(getattr(transformers, config)(**(COMMON | changes)), dtype=torch.float32)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name or "sinks" in name:
                weight.add_(0.3 * torch.randn_like(weight))
    model.save_pretrained(folder)
    return folder
