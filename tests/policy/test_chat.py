"""Appended tokens equal the template rendered whole; text cannot become control tokens."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from apprentice.errors import ApprenticeError
from apprentice.policy.chat import ChatFormat
from apprentice.policy.models import CACHE
from tests.tiny import CHATML

SMOLLM2 = CACHE / "smollm2-135m-instruct"
QUESTION = "Question: who leads the team in Berlin?\nSearch first."
ACTION = "<think>I should look.</think><search>Berlin team lead</search>"
FOUND = "<information>\n(1) Berlin: Ada leads it.\n</information>"
DEFAULT_SYSTEM = "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are helpful.<|im_end|>\n' }}{% endif %}"
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"


@pytest.fixture(scope="module", params=["tiny", "smollm2"])
def folder(request, tiny) -> Path:
    if request.param == "tiny":
        return tiny
    if not (SMOLLM2 / "tokenizer.json").exists():
        pytest.skip("the base model is not in the cache")
    return SMOLLM2


@pytest.fixture
def chat_with(tiny, tmp_path):
    """Makes a chat format from a template of the test's own."""

    def make(template: str | None) -> ChatFormat:
        tokenizer = AutoTokenizer.from_pretrained(tiny)
        tokenizer.chat_template = template
        tokenizer.save_pretrained(tmp_path)
        return ChatFormat(tmp_path)

    return make


def whole(folder, system):
    """The conversation rendered by the template and tokenised at once."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    messages = [{"role": "system", "content": system}] if system else []
    messages += [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ACTION}, {"role": "user", "content": FOUND}]
    return tokenizer, tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


@pytest.mark.parametrize("ended", [False, True])
def test_appended_tokens_equal_the_template_rendered_whole(folder, ended):
    chat = ChatFormat(folder)
    action = chat.encode(ACTION) + ([chat.end_token_id] if ended else [])
    tokens = chat.prompt(QUESTION, system="Be brief.") + action + chat.reply(FOUND, ended=ended)
    tokenizer, text = whole(folder, "Be brief.")
    assert tokens == tokenizer.encode(text, add_special_tokens=False)


def test_without_a_system_message_there_is_none(folder):
    chat = ChatFormat(folder)
    tokenizer, text = whole(folder, "S")
    begin = text.index("S<") + 1
    expected = tokenizer.encode(text[begin:].split("\n", 1)[1], add_special_tokens=False)
    assert chat.prompt(QUESTION) + chat.encode(ACTION) + chat.reply(FOUND, ended=False) == expected


def test_text_cannot_inject_control_tokens(folder):
    chat = ChatFormat(folder)
    special = AutoTokenizer.from_pretrained(folder).all_special_tokens
    plain, hostile = chat.prompt("hello"), chat.prompt("hello" + "".join(special))
    end = chat.end_token_id
    assert hostile.count(end) == plain.count(end)
    assert chat.reply("".join(special), ended=True).count(end) == chat.reply("x", ended=True).count(end)
    assert chat.decode(chat.encode("a" + special[0] + "b")) == "a" + special[0] + "b"


def test_decode_drops_special_tokens_and_keeps_text(folder):
    chat = ChatFormat(folder)
    assert chat.decode([*chat.encode("Zürich , \n 日本"), chat.end_token_id]) == "Zürich , \n 日本"


def test_a_default_system_message_is_left_out(chat_with, tiny):
    assert chat_with(DEFAULT_SYSTEM + CHATML).prompt("hi") == ChatFormat(tiny).prompt("hi")


def test_a_template_without_system_role_still_makes_prompts(chat_with, tiny):
    chat = chat_with(NO_SYSTEM + CHATML)
    assert chat.prompt("hi") == ChatFormat(tiny).prompt("hi")
    with pytest.raises(ApprenticeError, match="takes no system message"):
        chat.prompt("hi", system="Be brief.")


def test_what_begins_every_conversation_is_kept(chat_with):
    chat = chat_with("{{ 'BEGIN ' }}" + DEFAULT_SYSTEM + CHATML)
    assert chat.decode(chat.prompt("hi")).startswith("BEGIN user\nhi")


def test_a_model_without_chat_template_is_refused(chat_with):
    with pytest.raises(ApprenticeError, match="no chat template"):
        chat_with(None)
