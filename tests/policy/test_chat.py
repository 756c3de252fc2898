"""Appended turns have the tokens of the whole rendered conversation, and no text becomes a control token."""

from collections import Counter
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from apprentice.environments.tools import ANSWER, Call, parse_action
from apprentice.errors import ApprenticeError
from apprentice.policy.base_models import CACHE
from apprentice.policy.chat import ChatFormat
from apprentice.policy.sealing import SealedTokenizer
from tests.policy.chat_styles import CHATML_FIRST, CHATML_THEN, STYLES, Style
from tests.tiny import CHATML

SMOLLM2 = CACHE / "smollm2-135m-instruct"
QUESTION = "Question: who leads the team in Berlin?\nSearch first."
ACTIONS = "<search>Berlin team lead</search>", "<answer>Ada</answer>"
REPLIES = "<information>\n(1) Berlin: Ada leads it.\n\n(2) Paris\n</information>", "And then?"
TAGS = {"search": "query", ANSWER: "phrase"}
DEFAULT_SYSTEM = "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are helpful.<|im_end|>\n' }}{% endif %}"
CLOSED = "</think>\n\n"
"""Prefix of an action that was not sampled, if the template has opened a thought."""
RAISES = "{{ raise_exception('no luck') }}"


@pytest.fixture(scope="module", params=STYLES, ids=lambda style: style.name)
def styled(request, tmp_path_factory):
    """A chat style, with its chat format and tokenizer."""
    folder = request.param.save(tmp_path_factory.mktemp(request.param.name))
    return request.param, ChatFormat(folder), AutoTokenizer.from_pretrained(folder)


@pytest.fixture
def chat_with(tiny, tmp_path):
    """A function that makes a chat format from a template."""

    def make(template: str | None) -> ChatFormat:
        tokenizer = AutoTokenizer.from_pretrained(tiny)
        tokenizer.chat_template = template
        tokenizer.save_pretrained(tmp_path)
        return ChatFormat(tmp_path)

    return make


def saved(name: str, folder: Path) -> Path:
    return next(style for style in STYLES if style.name == name).save(folder)


def three_turns(style: Style, ended: bool) -> str:
    """Return a whole conversation without thoughts; if `ended`, each answer ends its turn without a space before it."""
    answers = [(CLOSED if style.opens else "") + style.lead + action for action in ACTIONS]
    messages = [style.first.format(QUESTION), *((style.then.lstrip() if ended else style.then).format(reply) for reply in REPLIES)]
    return messages[0] + style.opens + answers[0] + messages[1] + style.opens + answers[1] + messages[2] + style.opens


def appended(chat: ChatFormat, ended: bool) -> list[int]:
    """Return the tokens of the same conversation, appended turn by turn."""
    tokens = chat.prompt(QUESTION)
    for action, reply in zip(ACTIONS, REPLIES, strict=True):
        tokens += chat.action(action) + ([chat.end_token_id] if ended else []) + chat.reply(reply, ended=ended)
    return tokens


def control_tokens(tokenizer) -> dict[int, str]:
    """Return every added token that is not white space."""
    return {index: token.content for index, token in tokenizer.added_tokens_decoder.items() if token.content.strip("\n ▁")}


@pytest.mark.parametrize("ended", [False, True])
def test_appended_turns_are_the_tokens_of_the_whole_conversation(styled, ended):
    style, chat, tokenizer = styled
    whole = tokenizer.encode(three_turns(style, ended), add_special_tokens=False)
    assert tokenizer.convert_ids_to_tokens(appended(chat, ended)) == tokenizer.convert_ids_to_tokens(whole)


def test_the_template_and_not_the_tokenizer_defines_the_end_of_a_turn(styled):
    style, chat, tokenizer = styled
    assert tokenizer.convert_ids_to_tokens(chat.end_token_id) == style.end


def test_no_message_becomes_a_control_token(styled):
    style, chat, tokenizer = styled
    control = control_tokens(tokenizer)
    hostile = "a " + " b".join(control.values()) + "".join(control.values()) + "<think></think>"
    for encode in (chat.prompt, lambda text: chat.reply(text, ended=False), chat.action, chat.encode):
        plain, attacked = (Counter(token for token in encode(text) if token in control) for text in ("x", hostile))
        assert attacked == plain


def test_a_message_that_spells_control_tokens_keeps_its_text(styled):
    style, chat, tokenizer = styled
    text = "Zürich , " + " 日本\n".join(control_tokens(tokenizer).values()) + "\n\n  x"
    assert chat.decode([*chat.encode(text), chat.end_token_id]).removeprefix(style.opens) == text
    assert text in tokenizer.decode(chat.prompt(text))


def test_actions_are_understood_whether_or_not_the_template_opens_a_thought(styled):
    style, chat, tokenizer = styled
    sampled = ("Hm.\n</think>\n\n" if style.opens else "<think>Hm.</think>") + ACTIONS[0] + style.end
    assert parse_action(chat.decode(tokenizer.encode(sampled, add_special_tokens=False)), TAGS) == Call("search", "Berlin team lead")
    for written in (ACTIONS[0], "<think>Hm.</think>" + ACTIONS[0]):
        assert parse_action(chat.decode(chat.action(written)), TAGS) == Call("search", "Berlin team lead")


@pytest.mark.parametrize("name", ["llama-3.1", "smollm3", "granite-3", "mistral-small"])
def test_a_dated_system_message_is_left_out(name, tmp_path):
    folder = saved(name, tmp_path)
    prompt = AutoTokenizer.from_pretrained(folder).decode(ChatFormat(folder).prompt("hi"))
    assert "Date" not in prompt and "date" not in prompt and "system" not in prompt.lower()


@pytest.mark.skipif(not (SMOLLM2 / "tokenizer.json").exists(), reason="the base model is not in the cache")
def test_the_packaged_models_turns_are_the_tokens_of_the_whole_conversation():
    style = Style("smollm2", "", None, CHATML_FIRST, CHATML_THEN, "<|im_end|>")
    assert appended(ChatFormat(SMOLLM2), ended=True) == AutoTokenizer.from_pretrained(SMOLLM2).encode(three_turns(style, ended=True), add_special_tokens=False)


def test_decode_drops_special_tokens_and_keeps_text(tiny):
    chat = ChatFormat(tiny)
    assert chat.decode([*chat.encode("Zürich , \n 日本"), chat.end_token_id]) == "Zürich , \n 日本"


def test_white_space_around_a_message_is_stripped_if_the_template_strips_it(tmp_path, tiny):
    stripping, keeping = ChatFormat(saved("gemma-3", tmp_path)), ChatFormat(tiny)
    assert stripping.prompt("\n hi \n") == stripping.prompt("hi") and stripping.reply("\n hi \n", False) == stripping.reply("hi", False)
    assert keeping.prompt("\n hi \n") != keeping.prompt("hi")


def test_a_default_system_message_is_left_out(chat_with, tiny):
    assert chat_with(DEFAULT_SYSTEM + CHATML).prompt("hi") == ChatFormat(tiny).prompt("hi")


def test_a_template_without_system_role_makes_prompts(chat_with, tiny):
    no_system = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    assert chat_with(no_system + CHATML).prompt("hi") == ChatFormat(tiny).prompt("hi")


def test_the_beginning_of_every_conversation_is_kept(chat_with):
    chat = chat_with("{{ 'BEGIN ' }}" + DEFAULT_SYSTEM + CHATML)
    assert chat.decode(chat.prompt("hi")).startswith("BEGIN user\nhi")


NUMBERED = CHATML.replace("'<|im_start|>' + message['role']", "'<|im_start|>' + message['role'] + loop.index|string")
SHOUTED = CHATML.replace("message['content']", "message['content']|upper")
WITHOUT_OPENING = CHATML.partition("{% if add")[0]
HEADLESS = WITHOUT_OPENING.replace("<|im_start|>", "").replace("<|im_end|>", "") + "{% if add_generation_prompt %}assistant\n{% endif %}"
DIFFERS = (
    "the chat template cannot be continued turn by turn: "
    "token 131 of three turns is '4' (19) in the rendered conversation and '2' (17) where each turn is appended"
)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (None, "the model has no chat template"),
        ("{% for x %}", "the chat template fails: TemplateSyntaxError"),
        (RAISES, "the chat template fails: TemplateError: no luck"),
        ("{{ messages[7].content + 1 }}", "the chat template fails: UndefinedError"),
        ("{{ 1 / 0 }}", "the chat template fails: ZeroDivisionError"),
        ("{{ messages[0].content + 1 }}", "the chat template fails: TypeError"),
        ("{{ ''.__class__.__mro__ }}", "the chat template fails: SecurityError"),
        ("{% for m in range(10**9) %}{% endfor %}", "the chat template fails: OverflowError"),
        ("hello", "the chat template does not write every message's text"),
        (HEADLESS, "the chat template does not end the assistant's turn with a control token"),
        (WITHOUT_OPENING, "the chat template does not open the assistant's turn"),
        ("{{ strftime_now('%d %b %Y') }} " + CHATML, "the chat template writes today's date into every conversation"),
        (SHOUTED, "the chat template does not write every message's text"),
        (NUMBERED, DIFFERS),
    ],
)
def test_an_unusable_template_is_refused_in_one_message(chat_with, tmp_path, template, said):
    with pytest.raises(ApprenticeError) as refusal:
        chat_with(template)
    assert str(refusal.value).startswith(f"{tmp_path}: {said}") and "What to do: " in str(refusal.value)


@pytest.mark.parametrize("damage", ["{", "", '{"version": "1.0"}', "\ud800".encode("utf-8", "surrogatepass")])
def test_a_damaged_tokenizer_is_one_error(tmp_path, damage):
    folder = saved("qwen3", tmp_path)
    (folder / "tokenizer.json").write_bytes(damage if isinstance(damage, bytes) else damage.encode())
    with pytest.raises(ApprenticeError, match="the tokenizer cannot be read"):
        ChatFormat(folder)


def test_a_model_with_several_templates_uses_its_default(tmp_path, tiny):
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    tokenizer.chat_template = {"default": CHATML, "tool_use": RAISES}
    tokenizer.save_pretrained(tmp_path)
    assert ChatFormat(tmp_path).prompt("hi") == ChatFormat(tiny).prompt("hi")


def test_each_sealed_tokenizer_has_its_own_secret_spellings(tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(saved("qwen2.5", tmp_path))
    first, second = (SealedTokenizer(tokenizer, "") for _ in range(2))
    [end] = first.encode(first.seal("<|im_end|>"))
    assert end == tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert end not in second.encode(first.seal("<|im_end|>"))
