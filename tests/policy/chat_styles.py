"""The chat styles of well-known models: a template, with a small tokenizer of the model's kind."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.policy.chat_templates import (
    COMMAND_R,
    DEEPSEEK_R1,
    GEMMA2,
    GEMMA3,
    GLM4,
    GRANITE3,
    LLAMA2,
    LLAMA2_DEFAULT_SYSTEM,
    LLAMA3,
    LLAMA31,
    MISTRAL_SMALL,
    MISTRAL_V1,
    MISTRAL_V3,
    PHI3,
    QWEN3,
    QWEN3_THINKING,
    QWEN25,
    SMOLLM3,
    ZEPHYR,
)

CORPUS = [
    "Question: who leads the team in Berlin?\nSearch first, then answer in a short phrase.\n\nThe team is led by Ada Lovelace.\n\n",
    "user\nassistant\nsystem\n\nYou are a helpful assistant named Qwen. Cutting Knowledge Date: December 2023. Today Date: 26 Jul 2024\n\n",
    "(1) Berlin: the capital of Germany has 3,700,000 people. (2) Who leads? [INST] [/INST] <<SYS>> <search>query</search> <answer>Ada</answer>\n",
    "I should look. I should think about this first, and then search for the leader of the team.\n<think>\n\n</think>\n\n```python\nprint(1)\n```\n",
]
WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
"""How Llama 3 and Qwen split text into words."""


@dataclass(frozen=True)
class Style:
    """How one model writes conversations."""

    name: str
    template: str
    make: Callable
    """Function that makes the tokenizer."""
    first: str
    """The first user message, `{}`, and the opening of the assistant's turn, without a system message."""
    then: str
    """From the end of an answer to the opening of the next assistant's turn."""
    end: str
    """The token that ends a turn."""
    lead: str = ""
    """Text between the opening and an answer."""
    opens: str = ""
    """Opening of a thought, which follows `first` and `then` in the newest turn only."""

    def save(self, folder: Path) -> Path:
        """Write tokenizer and template into a model folder."""
        tokenizer = self.make()
        tokenizer.chat_template = self.template
        tokenizer.save_pretrained(folder)
        return folder


def byte_level(special: tuple[str, ...], plain: tuple[str, ...] = (), **names: str):
    """Make a byte-level BPE tokenizer.

    Args:
        special: added tokens that are flagged as special.
        plain: added tokens that are not flagged.
        names: bos_token, eos_token and the like.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(WORDS), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=600, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False)
    tokenizer.train_from_iterator(CORPUS * 3, trainer)
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in special])
    tokenizer.add_tokens([AddedToken(text, special=False) for text in plain])
    return _fast(tokenizer, names)


def sentencepiece(space: str, special: tuple[str, ...], plain: tuple[str, ...] = (), rstrip: bool = False, **names: str):
    """Make a BPE tokenizer with `▁` for spaces and the control tokens in the model's vocabulary.

    Args:
        space: where the tokenizer adds a space: before the `first` word (Llama 2), after each added token (`legacy`),
            or `never` (Gemma).
        special: added tokens that are flagged as special.
        plain: added tokens that are not flagged.
        rstrip: whether the special tokens strip the white space after them.
        names: bos_token, eos_token and the like.
    """
    import json

    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split("\n", "isolated"), pre_tokenizers.Metaspace()])
    words.train_from_iterator(CORPUS * 3, trainers.BpeTrainer(vocab_size=400, show_progress=False))
    learned = json.loads(words.to_str())["model"]
    pieces = ["<unk>", *special, *plain, *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += [piece for piece in learned["vocab"] if piece not in pieces]
    merges = [tuple(merge) for merge in learned["merges"]]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    rewriting = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if space == "first":
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    else:
        prepend = [normalizers.Prepend("▁")] if space == "legacy" else []
        tokenizer.normalizer = normalizers.Sequence([*prepend, normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(rewriting if space == "never" else [*rewriting, decoders.Strip(" ", 1, 0)])
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False, rstrip=rstrip) for text in ("<unk>", *special)])
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in plain])
    return _fast(tokenizer, {"unk_token": "<unk>", **names})


def unigram(special: tuple[str, ...], **names: str):
    """Make a Unigram tokenizer that adds a space after each added token; control tokens are its likeliest pieces."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(set("".join(CORPUS).replace(" ", "▁")) | set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz|/_"))
    pieces = [("<unk>", 0.0), *((text, 0.0) for text in special), *((f"<0x{byte:02X}>", -20.0) for byte in range(256))]
    pieces += [(letter, -8.0) for letter in letters] + [("▁the", -4.0), ("▁team", -5.0), ("▁Berlin", -6.0), ("er", -5.0)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    rewriting = [decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="always")]
    tokenizer.decoder = decoders.Sequence(rewriting)
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in ("<unk>", *special)])
    return _fast(tokenizer, {"unk_token": "<unk>", **names})


def _fast(tokenizer, names: dict[str, str]):
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


CHATML_FIRST = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
CHATML_THEN = "<|im_end|>\n" + CHATML_FIRST
CHATML_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
QWEN3_PLAIN = ("<tool_call>", "</tool_call>", "<|fim_prefix|>", "<tool_response>", "<think>", "</think>")

LLAMA3_TOKENS = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>", "<|python_tag|>")
LLAMA3_FIRST = "<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
llama3 = partial(byte_level, LLAMA3_TOKENS, bos_token="<|begin_of_text|>", eos_token="<|end_of_text|>")
chatml = partial(byte_level, CHATML_TOKENS, eos_token="<|im_end|>", pad_token="<|endoftext|>")
qwen3 = partial(byte_level, CHATML_TOKENS, QWEN3_PLAIN, eos_token="<|im_end|>", pad_token="<|endoftext|>")
gemma = partial(
    sentencepiece,
    "never",
    ("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"),
    ("\n\n", "\n\n\n", "▁▁", "▁▁▁", "<table>", "<h1>", "<unused7>"),
    bos_token="<bos>",
    eos_token="<eos>",
)
GEMMA_FIRST = "<start_of_turn>user\n{}<end_of_turn>\n<start_of_turn>model\n"
DEEPSEEK_SPECIAL, DEEPSEEK_PLAIN = ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"), ("<｜User｜>", "<｜Assistant｜>", "<think>", "</think>")
COMMAND_SPECIAL = ("<BOS_TOKEN>", "<EOS_TOKEN>", "<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>", "<|SYSTEM_TOKEN|>")
COMMAND_FIRST = "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>{}<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>"
sentence = {"bos_token": "<s>", "eos_token": "</s>"}
llama2 = partial(sentencepiece, "first", ("<s>", "</s>"), **sentence)
legacy = partial(sentencepiece, "legacy", ("<s>", "</s>"), **sentence)
MISTRAL_TOKENS = ("<s>", "</s>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CALLS]")
PHI3_TOKENS = ("<s>", "<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>")
INST_V1, INST_V3, INST_SMALL = "[INST] {} [/INST]", "[INST] {}[/INST]", "[INST]{}[/INST]"
ZEPHYR_FIRST = "<|user|>\n{}</s>\n<|assistant|>\n"
PHI3_FIRST = "<|user|>\n{}<|end|>\n<|assistant|>\n"
phi3 = partial(sentencepiece, "legacy", PHI3_TOKENS, rstrip=True, bos_token="<s>", eos_token="<|endoftext|>")
DEEPSEEK_END, DEEPSEEK_FIRST = DEEPSEEK_SPECIAL[1], "<｜User｜>{}<｜Assistant｜>"
deepseek = partial(byte_level, DEEPSEEK_SPECIAL, DEEPSEEK_PLAIN, bos_token=DEEPSEEK_SPECIAL[0], eos_token=DEEPSEEK_SPECIAL[1])
command = partial(byte_level, COMMAND_SPECIAL, bos_token="<BOS_TOKEN>", eos_token="<EOS_TOKEN>")
granite = partial(byte_level, ("<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>"), eos_token="<|end_of_text|>")
glm = partial(byte_level, ("<|endoftext|>", "[gMASK]", "<sop>"), ("<|system|>", "<|user|>", "<|assistant|>"), eos_token="<|endoftext|>")
GRANITE_FIRST = "<|start_of_role|>user<|end_of_role|>{}<|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>"

STYLES = [
    Style("qwen2.5", QWEN25, chatml, CHATML_FIRST, CHATML_THEN, "<|im_end|>"),
    Style("qwen2.5-base", QWEN25, partial(byte_level, CHATML_TOKENS, eos_token="<|endoftext|>"), CHATML_FIRST, CHATML_THEN, "<|im_end|>"),
    Style("qwen2.5-unflagged", QWEN25, partial(byte_level, (), CHATML_TOKENS), CHATML_FIRST, CHATML_THEN, "<|im_end|>"),
    Style("qwen3", QWEN3, qwen3, CHATML_FIRST, CHATML_THEN, "<|im_end|>"),
    Style("qwen3-thinking", QWEN3_THINKING, qwen3, CHATML_FIRST, CHATML_THEN, "<|im_end|>", opens="<think>\n"),
    Style("llama-2", LLAMA2, llama2, "<s>" + INST_V1, " </s><s>" + INST_V1, "</s>", lead=" "),
    Style("llama-2-default-system", LLAMA2_DEFAULT_SYSTEM, legacy, "<s>" + INST_V1, " </s><s>" + INST_V1, "</s>", lead=" "),
    Style("llama-3", LLAMA3, llama3, "<|begin_of_text|>" + LLAMA3_FIRST, "<|eot_id|>" + LLAMA3_FIRST, "<|eot_id|>"),
    Style("llama-3.1", LLAMA31, llama3, "<|begin_of_text|>" + LLAMA3_FIRST, "<|eot_id|>" + LLAMA3_FIRST, "<|eot_id|>"),
    Style("mistral-v0.1", MISTRAL_V1, legacy, "<s>" + INST_V1, "</s>" + INST_V1, "</s>"),
    Style("mistral-v0.3", MISTRAL_V3, partial(sentencepiece, "first", MISTRAL_TOKENS, **sentence), "<s>" + INST_V3, "</s>" + INST_V3, "</s>", lead=" "),
    Style("mistral-small", MISTRAL_SMALL, partial(byte_level, MISTRAL_TOKENS, **sentence), "<s>" + INST_SMALL, "</s>" + INST_SMALL, "</s>"),
    Style("gemma-2", GEMMA2, gemma, "<bos>" + GEMMA_FIRST, "<end_of_turn>\n" + GEMMA_FIRST, "<end_of_turn>"),
    Style("gemma-3", GEMMA3, gemma, "<bos>" + GEMMA_FIRST, "<end_of_turn>\n" + GEMMA_FIRST, "<end_of_turn>"),
    Style("phi-3", PHI3, phi3, PHI3_FIRST, "<|end|>\n" + PHI3_FIRST, "<|end|>"),
    Style("zephyr", ZEPHYR, legacy, ZEPHYR_FIRST, "</s>\n" + ZEPHYR_FIRST, "</s>"),
    Style("zephyr-unigram", ZEPHYR, partial(unigram, ("<s>", "</s>"), **sentence), ZEPHYR_FIRST, "</s>\n" + ZEPHYR_FIRST, "</s>"),
    Style("deepseek-r1-distill", DEEPSEEK_R1, deepseek, DEEPSEEK_SPECIAL[0] + DEEPSEEK_FIRST, DEEPSEEK_END + DEEPSEEK_FIRST, DEEPSEEK_END, opens="<think>\n"),
    Style("command-r", COMMAND_R, command, "<BOS_TOKEN>" + COMMAND_FIRST, "<|END_OF_TURN_TOKEN|>" + COMMAND_FIRST, "<|END_OF_TURN_TOKEN|>"),
    Style("smollm3", SMOLLM3, qwen3, CHATML_FIRST, CHATML_THEN, "<|im_end|>"),
    Style("granite-3", GRANITE3, granite, GRANITE_FIRST, "<|end_of_text|>\n" + GRANITE_FIRST, "<|end_of_text|>"),
    Style("glm-4", GLM4, glm, "[gMASK]<sop><|user|>\n{}<|assistant|>\n", "<|user|>\n{}<|assistant|>\n", "<|user|>"),
]
