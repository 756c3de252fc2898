"""Model folders that are damaged, incomplete, or contain no model: each gives one error that names the file."""

import json
import shutil
import struct

import pytest
from safetensors.torch import load_file, save_file

from apprentice.errors import ApprenticeError
from apprentice.policy.base_models import base_model, checked_model

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 269060552\n"


@pytest.fixture
def sharded(copy):
    """A folder whose weights are in three files with an index, as save_pretrained writes large models."""
    tensors = load_file(copy / SINGLE)
    (copy / SINGLE).unlink()
    names = sorted(tensors)
    shards = {f"model-0000{place + 1}-of-00003.safetensors": names[place::3] for place in range(3)}
    for shard, contents in shards.items():
        save_file({name: tensors[name] for name in contents}, copy / shard, metadata={"format": "pt"})
    weight_map = {name: shard for shard, contents in shards.items() for name in contents}
    (copy / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return copy


def refusal(folder) -> str:
    """Return the message of the error that a folder gives."""
    with pytest.raises(ApprenticeError) as caught:
        base_model(str(folder))
    assert caught.value.where and caught.value.todo, caught.value
    return str(caught.value)


def edit(path, **changes) -> None:
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not None}))


def test_sharded_weights_are_accepted(sharded):
    assert base_model(str(sharded)) == sharded


def header(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda whole: whole[:-1000], r"is truncated: it has \d+ bytes, and its tensors take \d+"),
        (lambda whole: whole[:100], r"is truncated: its header alone takes \d+ bytes, the file has 100"),
        (lambda whole: whole + b"\0" * 10, r"is too long: it has \d+ bytes"),
        (lambda whole: b"", "is empty"),
        (lambda whole: b"\1\2\3", "is not a safetensors file"),
        (lambda whole: b"<!DOCTYPE html><html>Not found</html>", "is not a safetensors file"),
        (lambda whole: header(b"[1, 2]"), "its header does not list tensors"),
        (lambda whole: header(b'{"a": 1}'), "its header does not list tensors"),
        (lambda whole: header(b"\xff\xfe{}"), "its header does not list tensors"),
        (lambda whole: header(b"[" * 100_000), "its header does not list tensors"),
    ],
)
def test_damaged_weights_are_refused_by_their_header(copy, damage, message):
    (copy / SINGLE).write_bytes(damage((copy / SINGLE).read_bytes()))
    said = refusal(copy)
    assert said.startswith(f"{copy / SINGLE}: ")
    with pytest.raises(ApprenticeError, match=message):
        base_model(str(copy))


def test_a_damaged_shard_is_named(sharded):
    shard = sharded / "model-00002-of-00003.safetensors"
    shard.write_bytes(shard.read_bytes()[:-7])
    assert refusal(sharded).startswith(f"{shard}: is truncated")


def test_missing_shards_are_named(sharded):
    (sharded / "model-00003-of-00003.safetensors").unlink()
    assert "1 of 3 shards are missing: model-00003-of-00003.safetensors" in refusal(sharded)


def test_a_shard_of_another_model_is_named(sharded):
    shutil.copy(sharded / "model-00001-of-00003.safetensors", sharded / "model-00002-of-00003.safetensors")
    assert "model-00002-of-00003.safetensors: lacks 7 tensors that model.safetensors.index.json expects in it: model." in refusal(sharded)


def test_shards_without_an_index_are_refused(sharded):
    (sharded / INDEX).unlink()
    assert "has neither model.safetensors nor model.safetensors.index.json" in refusal(sharded)


@pytest.mark.parametrize("text", ["[]", "{}", '{"weight_map": {}}', '{"weight_map": {"a": "../b.safetensors"}}', '{"weight_map": {"a": 1}}'])
def test_an_invalid_index_is_refused(sharded, text):
    (sharded / INDEX).write_text(text)
    assert f"{sharded / INDEX}: is not an index of weights" in refusal(sharded)


def test_weights_that_are_a_broken_link_are_refused(copy):
    (copy / SINGLE).rename(copy / "elsewhere")
    (copy / SINGLE).symlink_to("nowhere")
    assert "has neither model.safetensors nor" in refusal(copy)


@pytest.mark.parametrize("name", [SINGLE, "tokenizer.json", "config.json"])
def test_a_git_lfs_pointer_is_named_with_the_command_that_fetches_the_file(copy, name):
    (copy / name).write_text(POINTER)
    assert f"{copy}: contains Git LFS pointers in place of 1 files: {name}\n  What to do: run `git lfs pull`" in refusal(copy)


def test_pickled_weights_are_refused(copy):
    (copy / SINGLE).rename(copy / "pytorch_model.bin")
    assert "pickled weights (pytorch_model.bin) can run code" in refusal(copy)


@pytest.mark.parametrize(("missing", "message"), [("config.json", "config.json is missing"), (SINGLE, "contains no weights")])
def test_an_incomplete_folder_is_refused(copy, missing, message):
    (copy / missing).unlink()
    assert message in refusal(copy)


def test_an_adapter_is_refused_with_advice_to_merge_it(copy):
    (copy / SINGLE).rename(copy / "adapter_model.safetensors")
    (copy / "config.json").rename(copy / "adapter_config.json")
    assert "is an adapter (adapter_config.json), not a whole model\n  What to do: merge it into its base model" in refusal(copy)


def test_an_adapter_beside_a_whole_model_is_refused(copy):
    """Transformers would load both of them."""
    (copy / "adapter_config.json").write_text("{}")
    assert "is an adapter" in refusal(copy)


@pytest.mark.parametrize("name", ["BertForMaskedLM", "BertModel", "LlamaForSequenceClassification", "RobertaForQuestionAnswering", "BertForPreTraining"])
def test_an_architecture_without_a_head_for_the_next_token_is_refused(copy, name):
    edit(copy / "config.json", architectures=[name])
    assert f"{copy / 'config.json'}: is not a causal language model: {name}" in refusal(copy)


@pytest.mark.parametrize("name", ["GPT2LMHeadModel", "Gemma3ForConditionalGeneration", "LlamaForCausalLM"])
def test_an_architecture_with_such_a_head_is_accepted(copy, name):
    edit(copy / "config.json", architectures=[name])
    assert base_model(str(copy)) == copy


def test_quantised_weights_are_refused(copy):
    edit(copy / "config.json", quantization_config={"quant_method": "gptq", "bits": 4})
    assert "the weights are quantised" in refusal(copy)


DAMAGES = {"half": lambda text: text[: len(text) // 2], "binary": lambda text: b"\xff\xfe" + text, "nested": lambda text: b"[" * 100_000}


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_json_file_is_named(copy, name, damage):
    (copy / name).write_bytes(DAMAGES[damage]((copy / name).read_bytes()))
    with pytest.raises(ApprenticeError, match=f"{copy / name}.*is not JSON"):
        base_model(str(copy))


@pytest.mark.parametrize(("name", "message"), [("config.json", "is not a model's configuration"), ("tokenizer.json", "is not a tokenizer")])
def test_a_json_file_with_other_content_is_named(copy, name, message):
    (copy / name).write_text('["something else"]')
    assert message in refusal(copy)


def test_a_tokenizer_of_another_model_is_refused(copy):
    values = json.loads((copy / "tokenizer.json").read_text())
    values["model"]["vocab"] |= {f"more{number}": 258 + number for number in range(5)}
    (copy / "tokenizer.json").write_text(json.dumps(values))
    assert "the tokenizer has token ids up to 262, and the model embeds 258 tokens (vocab_size)" in refusal(copy)


def test_an_added_token_beyond_the_embeddings_is_refused_if_the_template_writes_it(copy):
    values = json.loads((copy / "tokenizer.json").read_text())
    added = {**values["added_tokens"][0], "id": 300, "content": "<image>"}
    (copy / "tokenizer.json").write_text(json.dumps(values | {"added_tokens": [*values["added_tokens"], added]}))
    assert base_model(str(copy)) == copy
    template = copy / "chat_template.jinja"
    template.write_text(template.read_text() + "<image>")
    assert "the tokenizer has token ids up to 300" in refusal(copy)


def test_a_folder_without_tokenizer_is_refused(copy):
    for file in copy.glob("tokenizer*"):
        file.unlink()
    assert "contains no tokenizer" in refusal(copy)


def test_a_model_without_chat_template_is_refused(copy):
    (copy / "chat_template.jinja").unlink()
    assert "no chat template" in refusal(copy)


def test_missing_tensors_are_named_by_the_check_in_a_separate_process(copy):
    tensors = load_file(copy / SINGLE)
    del tensors["model.layers.0.mlp.up_proj.weight"]
    save_file(tensors, copy / SINGLE, metadata={"format": "pt"})
    with pytest.raises(ApprenticeError, match="Tensors missing: model.layers.0.mlp.up_proj.weight\n") as caught:
        checked_model(str(copy))
    assert caught.value.where == str(copy)


def test_an_encoder_without_a_causal_mask_is_refused_by_its_architecture(tiny, tmp_path):
    from transformers import BertConfig, BertForMaskedLM

    folder = shutil.copytree(tiny, tmp_path / "bert")
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertForMaskedLM(BertConfig(vocab_size=258, **sizes)).save_pretrained(folder)
    assert "is not a causal language model: BertForMaskedLM" in refusal(folder)


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json"])
def test_a_file_that_cannot_be_read_is_named(copy, name):
    (copy / name).unlink()
    (copy / name).mkdir()
    assert f"{copy / name}: cannot be read: Is a directory" in refusal(copy)
