"""The chat templates of well-known models, each with a small tokenizer of its model's kind."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

CORPUS = [
    "Question: who leads the team in Berlin?\nSearch first, then answer in a short phrase.\n\nThe team is led by Ada Lovelace.\n\n",
    "user\nassistant\nsystem\n\nYou are a helpful assistant named Qwen. Cutting Knowledge Date: December 2023. Today Date: 26 Jul 2024\n\n",
    "(1) Berlin: the capital of Germany has 3,700,000 people. (2) Who leads? [INST] [/INST] <<SYS>> <search>query</search> <answer>Ada</answer>\n",
    "I should look. I should think about this first, and then search for the leader of the team.\n<think>\n\n</think>\n\n```python\nprint(1)\n```\n",
]
WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
"""How Llama 3 and Qwen cut text into words."""


@dataclass(frozen=True)
class Style:
    """One model's way to write conversations."""

    name: str
    template: str
    make: Callable
    """Makes the tokenizer, given nothing."""
    first: str
    """The first user message, `{}`, and what opens the assistant's turn; without a system message."""
    then: str
    """From the end of an answer to the next opening, as it stands in a conversation."""
    end: str
    lead: str = ""
    """Between the opening and an answer."""
    opens: str = ""
    """What only the newest turn is opened with, beyond `first` and `then`."""

    def save(self, folder: Path) -> Path:
        """Writes tokenizer and template as a model folder has them."""
        tokenizer = self.make()
        tokenizer.chat_template = self.template
        tokenizer.save_pretrained(folder)
        return folder


def byte_level(special: tuple[str, ...], plain: tuple[str, ...] = (), **names: str):
    """A byte-level BPE tokenizer: `special` are added tokens flagged so, `plain` are added and not flagged; `names` are bos_token and the like."""
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
    """A BPE tokenizer with `▁` for spaces, whose model's vocabulary holds the control tokens.

    Args:
        space: where it adds one: at the `first` word (Llama 2), behind each added token (`legacy`), or `never` (Gemma).
        special: added tokens flagged as special.
        plain: added tokens that are not.
        rstrip: the special ones take the white space that follows them.
        names: bos_token and the like.
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
    """A Unigram tokenizer, which adds a space behind each added token; its vocabulary holds the control tokens as its likeliest pieces."""
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

QWEN25 = """\
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0]['role'] == 'system' %}
        {{- messages[0]['content'] }}
    {%- else %}
        {{- 'You are Qwen, created by Alibaba Cloud. You are a helpful assistant.' }}
    {%- endif %}
    {{- "\\n\\n# Tools\\n\\n<tools></tools><|im_end|>\\n" }}
{%- else %}
    {%- if messages[0]['role'] == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>system\\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

QWEN3 = """\
{%- if messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- set tool = message.content is string and message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>') %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not tool %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning_content = message.reasoning_content %}
        {%- else %}
            {%- if '</think>' in content %}
                {%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
                {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
            {%- endif %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index %}
            {%- if loop.last or (not loop.last and reasoning_content) %}
                {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
            {%- else %}
                {{- '<|im_start|>' + message.role + '\\n' + content }}
            {%- endif %}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}"""

QWEN3_THINKING = QWEN3.partition("    {%- if enable_thinking is defined")[0].replace("assistant\\n' }}", "assistant\\n<think>\\n' }}") + "{%- endif %}"

LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}"
    "{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% for message in loop_messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}"
    "{% else %}{% set content = message['content'] %}{% endif %}"
    "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
LLAMA2_DEFAULT_SYSTEM = LLAMA2.replace("{% set system_message = false %}", "{% set system_message = 'You are a helpful, respectful and honest assistant.' %}")

LLAMA3 = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}"
    "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
LLAMA31 = """\
{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Cutting Knowledge Date: December 2023\\n" }}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

MISTRAL_V1 = (
    "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token}}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
MISTRAL_V3 = """\
{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for message in loop_messages %}
    {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
        {{- raise_exception("After the optional system message, conversation roles must alternate user/assistant/user/assistant/...") }}
    {%- endif %}
    {%- set ns.index = ns.index + 1 %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token}}
    {%- else %}
        {{- raise_exception("Only user and assistant roles are supported, with the exception of an initial optional system message!") }}
    {%- endif %}
{%- endfor %}
"""
MISTRAL_SMALL = """\
{%- set today = strftime_now("%Y-%m-%d") %}
{%- set default_system_message = "You are Mistral Small 3. The current date is " + today + ".\\n\\n" %}
{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set system_message = default_system_message %}
    {%- set loop_messages = messages %}
{%- endif %}
{{- '[SYSTEM_PROMPT]' + system_message + '[/SYSTEM_PROMPT]' }}
{%- for message in loop_messages %}
    {%- if message['role'] == 'user' %}
        {{- '[INST]' + message['content'] + '[/INST]' }}
    {%- elif message['role'] == 'assistant' %}
        {{- message['content'] + eos_token }}
    {%- else %}
        {{- raise_exception('Only user, system and assistant roles are supported!') }}
    {%- endif %}
{%- endfor %}"""

GEMMA2 = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"
)
GEMMA3 = """\
{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set first_user_prefix = messages[0]['content'] + '

' -%}
    {%- else -%}
        {%- set first_user_prefix = messages[0]['content'][0]['text'] + '

' -%}
    {%- endif -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Conversation roles must alternate user/assistant/user/assistant/...") }}
    {%- endif -%}
    {%- if (message['role'] == 'assistant') -%}
        {%- set role = "model" -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<start_of_turn>' + role + '
' + (first_user_prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'image' -%}
                {{ '<start_of_image>' }}
            {%- elif item['type'] == 'text' -%}
                {{ item['text'] | trim }}
            {%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{ raise_exception("Invalid content type") }}
    {%- endif -%}
    {{ '<end_of_turn>
' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model
'}}
{%- endif -%}
"""

PHI3 = (
    "{% for message in messages %}{% if message['role'] == 'system' %}{{'<|system|>\n' + message['content'] + '<|end|>\n'}}"
    "{% elif message['role'] == 'user' %}{{'<|user|>\n' + message['content'] + '<|end|>\n'}}"
    "{% elif message['role'] == 'assistant' %}{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
ZEPHYR = (
    "{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\n' + message['content'] + eos_token }}\n"
    "{% elif message['role'] == 'system' %}\n{{ '<|system|>\n' + message['content'] + eos_token }}\n"
    "{% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}\n"
    "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
)
DEEPSEEK_R1 = (
    "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}"
    "{% set ns = namespace(is_first=false, is_tool=false, is_output_first=true, system_prompt='') %}"
    "{%- for message in messages %}{%- if message['role'] == 'system' %}{% set ns.system_prompt = message['content'] %}{%- endif %}{%- endfor %}"
    "{{bos_token}}{{ns.system_prompt}}{%- for message in messages %}"
    "{%- if message['role'] == 'user' %}{%- set ns.is_tool = false -%}{{'<｜User｜>' + message['content']}}{%- endif %}"
    "{%- if message['role'] == 'assistant' and message['content'] is not none %}{% set content = message['content'] %}"
    "{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}"
    "{{'<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>'}}{%- endif %}{%- endfor -%}"
    "{% if add_generation_prompt and not ns.is_tool %}{{'<｜Assistant｜><think>\\n'}}{% endif %}"
)
COMMAND_R = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}"
    "{% elif false == true %}{% set loop_messages = messages %}{% set system_message = 'You are Command-R.' %}"
    "{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}"
    "{% if system_message != false %}{{ '<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>' + system_message + '<|END_OF_TURN_TOKEN|>' }}{% endif %}"
    "{% for message in loop_messages %}{% set content = message['content'] %}"
    "{% if message['role'] == 'user' %}{{ '<|START_OF_TURN_TOKEN|><|USER_TOKEN|>' + content.strip() + '<|END_OF_TURN_TOKEN|>' }}"
    "{% elif message['role'] == 'assistant' %}{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>'  + content.strip() + '<|END_OF_TURN_TOKEN|>' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}{% endif %}"
)
SMOLLM3 = """\
{%- if enable_thinking is not defined -%}
{%- set enable_thinking = true -%}
{%- endif -%}
{%- if enable_thinking -%}
  {%- set reasoning_mode = "/think" -%}
{%- else -%}
  {%- set reasoning_mode = "/no_think" -%}
{%- endif -%}
{{- "<|im_start|>system\\n" -}}
{{- "## Metadata\\n\\n" -}}
{{- "Knowledge Cutoff Date: June 2025\\n" -}}
{%- set today = strftime_now("%d %B %Y") -%}
{{- "Today Date: " ~ today ~ "\\n" -}}
{{- "Reasoning Mode: " + reasoning_mode + "\\n\\n" -}}
{{- "## Custom Instructions\\n\\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face.\\n\\n" -}}
{{- "<|im_end|>\\n" -}}
{%- for message in messages -%}
    {%- set content = message.content if message.content is string else "" -%}
    {%- if message.role == "user" -%}
        {{ "<|im_start|>" + message.role + "\\n"  + content + "<|im_end|>\\n" }}
    {%- elif message.role == "assistant" -%}
        {%- if reasoning_mode == "/think" -%}
            {{ "<|im_start|>assistant\\n" + content.lstrip("\\n") + "<|im_end|>\\n" }}
        {%- else -%}
            {{ "<|im_start|>assistant\\n" + "<think>\\n\\n</think>\\n" + content.lstrip("\\n") + "<|im_end|>\\n" }}
        {%- endif -%}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {%- if reasoning_mode == "/think" -%}
        {{ "<|im_start|>assistant\\n" }}
    {%- else -%}
        {{ "<|im_start|>assistant\\n" + "<think>\\n\\n</think>\\n"  }}
    {%- endif -%}
{%- endif -%}
"""
GRANITE3 = """\
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set system_message = "Knowledge Cutoff Date: April 2024.\\nToday's Date: " + strftime_now('%B %d, %Y') + ".\\nYou are Granite, developed by IBM." %}
    {%- set loop_messages = messages %}
{%- endif %}
{{- '<|start_of_role|>system<|end_of_role|>' + system_message + '<|end_of_text|>\\n' }}
{%- for message in loop_messages %}
    {{- '<|start_of_role|>' + message['role'] + '<|end_of_role|>' + message['content'] + '<|end_of_text|>\\n' }}
    {%- if loop.last and add_generation_prompt %}
        {{- '<|start_of_role|>assistant<|end_of_role|>' }}
    {%- endif %}
{%- endfor %}"""
GLM4 = (
    "[gMASK]<sop>{% for item in messages %}{% if item['role'] == 'user' %}<|user|>\n{{ item['content'] }}"
    "{% elif item['role'] == 'assistant' %}<|assistant|>\n{{ item['content'] }}{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)

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
