"""Packed sequences have the scores that plain Transformers gives each on its own, or the model is refused."""

from dataclasses import replace

import pytest
import torch
import transformers
from learning.architectures import PACKED, ROWS, WINDOW, make_model
from learning.toys import train_config, trajectories, trajectory

from apprentice.errors import ApprenticeError
from apprentice.learning import attention
from apprentice.learning.attention import packed_attention
from apprentice.learning.models import Actor, load_language_model
from apprentice.learning.packing import action_positions, pack
from apprentice.learning.ppo import PpoLearner

EVERY = {name: (*made, "packed") for name, made in PACKED.items()} | ROWS


def made():
    """Two sequences with a common prefix longer than a window and two without, all longer than a window, over the tiny
    vocabulary."""
    root = [number * 7 % 96 for number in range(3 * WINDOW + 10)]
    branch = [*root[: 2 * WINDOW + 5], *(number * 11 % 96 for number in range(13))]
    alone = [[number * step % 96 for number in range(length)] for step, length in ((5, 2 * WINDOW), (13, WINDOW + 3))]
    return [_sampled(number, ids) for number, ids in enumerate([root, branch, *alone])]


def _sampled(number, ids):
    mask = tuple(int(place >= len(ids) - 10) for place in range(len(ids)))
    return replace(trajectory(number), token_ids=tuple(ids), action_mask=mask, logprobs=tuple(-1.0 * each for each in mask))


def plain_logprobs(model, item):
    ids, places = torch.tensor([item.token_ids]), torch.tensor(action_positions(item))
    return (model(input_ids=ids, use_cache=False).logits[0, places - 1] / 0.7).log_softmax(-1).gather(1, ids[0, places, None])[:, 0]


@pytest.mark.parametrize("name", EVERY)
def test_scores_and_gradients_are_those_of_plain_transformers_one_sequence_at_a_time(name, tmp_path):
    config, changes, expected_attention = EVERY[name]
    folder, sample = make_model(config, changes, tmp_path / "model"), made()
    plain = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    expected = torch.cat([plain_logprobs(plain, item) for item in sample])
    weights = torch.linspace(-1, 1, len(expected))
    (expected * weights).sum().backward()

    actor = Actor(load_language_model(folder, torch.float32))
    assert actor.language_model.config._attn_implementation == expected_attention
    found = torch.zeros_like(expected)
    for batch in pack(sample, 80, rows=actor.takes_rows):
        scores = actor(batch, 0.7)
        assert scores.features.shape == (len(batch.targets), 32)
        found[batch.actions] = scores.logprobs.detach()
        (scores.logprobs * weights[batch.actions]).sum().backward()
    torch.testing.assert_close(found, expected.detach(), atol=1e-4, rtol=1e-4)
    theirs = dict(plain.named_parameters())
    for parameter, weight in actor.language_model.named_parameters():
        if weight.grad is not None or theirs[parameter].grad is not None:
            torch.testing.assert_close(weight.grad, theirs[parameter].grad, atol=2e-3, rtol=2e-3, msg=lambda text, at=parameter: f"{at}: {text}")


@pytest.mark.parametrize("block", [attention.BLOCK, 5], ids=["one block", "blocks"])
def test_attention_with_a_window_is_the_same_in_pytorchs_kernels_and_written_out_in_blocks(block, monkeypatch):
    torch.manual_seed(0)
    (batch,) = pack(made(), 1000)
    shapes = [(1, heads, batch.token_ids.shape[1], 8) for heads in (4, 2, 2)]
    tensors = [torch.randn(shape, requires_grad=True) for shape in shapes]
    assert sum(tree is not None for tree in batch.branches) == 1, "two sequences share a tree"
    monkeypatch.setattr(attention, "BLOCK", block)
    ours, _ = packed_attention(None, *tensors, None, sliding_window=WINDOW, lengths=batch.lengths, branches=batch.branches)
    parts = zip(*(tensor.split(batch.lengths, 2) for tensor in tensors), batch.branches, strict=True)
    kernels = torch.cat([attention.tree_attention(*part, 8**-0.5, WINDOW) for part in parts], 2).transpose(1, 2)
    torch.testing.assert_close(ours, kernels)
    for mine, theirs in zip(*(torch.autograd.grad(out.square().sum(), tensors) for out in (ours, kernels)), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)


def test_rows_are_padded_within_the_budget_and_none_is_lost():
    sample = made()
    batches = pack(sample, 60, rows=True)
    assert [len(batch.lengths) * max(batch.lengths) for batch in batches] == [33, 33, 30]
    assert sorted(torch.cat([batch.actions for batch in batches]).tolist()) == list(range(40))


@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_an_update_on_attempts_with_a_common_prefix_works_with_and_without_packed_attention(name, tmp_path):
    config, changes, _ = EVERY[name]
    learner = PpoLearner(train_config(advantage="rloo", kl_coefficient=0.0), make_model(config, changes, tmp_path / "model"))
    metrics = learner.update([replace(item, reward=float(number)) for number, item in enumerate(made()[:2])], 0)
    assert metrics["gradient_norm"] > 0 and metrics["approx_kl"] > 0


class Odd(transformers.LlamaForCausalLM):
    """Its logits depend on how many tokens are computed at once."""

    def forward(self, input_ids, **how):
        output = super().forward(input_ids=input_ids, **how)
        output.logits = output.logits * (1 + input_ids.numel() / 10)
        return output


@pytest.fixture
def odd_llama():
    """Loads `Odd` for Llama's config."""
    transformers.AutoModelForCausalLM.register(transformers.LlamaConfig, Odd, exist_ok=True)
    yield
    transformers.AutoModelForCausalLM.register(transformers.LlamaConfig, transformers.LlamaForCausalLM, exist_ok=True)


@pytest.mark.usefixtures("odd_llama")
def test_an_architecture_whose_packed_scores_differ_is_refused_by_name(tmp_path):
    folder = make_model("LlamaConfig", {}, tmp_path / "model")
    with pytest.raises(ApprenticeError, match=r"model: Odd cannot be trained: .* differ from those of each sequence on its own \(nats per token: packed \d"):
        load_language_model(folder, torch.float32)


def test_an_encoder_that_is_loaded_as_a_causal_model_is_refused(tmp_path):
    folder = make_model("BertConfig", {}, tmp_path / "model")
    with pytest.raises(ApprenticeError, match="BertLMHeadModel is not a causal language model: a token's probability depends on later tokens"):
        load_language_model(folder, torch.float32)


def test_dropout_is_off_also_while_activations_are_computed_again(tmp_path):
    dropout = dict(n_embd=32, n_layer=2, n_head=4, resid_pdrop=0.5, embd_pdrop=0.5, attn_pdrop=0.5)
    actor = Actor(load_language_model(make_model("GPT2Config", dropout, tmp_path / "model"), torch.float32, recompute=True))
    (batch,) = pack(made(), 1000)
    assert torch.equal(actor(batch).logprobs, actor(batch).logprobs)


def test_a_model_that_takes_rows_refuses_a_tree(tmp_path):
    config, changes, _ = ROWS["gemma2"]
    actor = Actor(load_language_model(make_model(config, changes, tmp_path / "model"), torch.float32))
    with pytest.raises(ValueError, match="pack with `rows=True`"):
        actor(pack(made(), 1000)[0])


@pytest.fixture(scope="module")
def seeing(tmp_path_factory):
    """A tiny Gemma 3 that also reads images, as the models from 4B up do."""
    text = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    windows = {"head_dim": 8, "layer_types": ["sliding_attention", "full_attention"], "sliding_window": WINDOW, "initializer_range": 0.5}
    vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    images = {"mm_tokens_per_image": 4, "image_token_index": 299, "boi_token_index": 297, "eoi_token_index": 298}
    folder = tmp_path_factory.mktemp("seeing")
    torch.manual_seed(0)
    config = transformers.Gemma3Config(text_config=text | windows, vision_config=vision, **images)
    transformers.Gemma3ForConditionalGeneration(config).save_pretrained(folder)
    return folder


def test_a_model_that_reads_images_scores_text_as_plain_transformers_does(seeing):
    sample, actor = made(), Actor(load_language_model(seeing, torch.float32))
    assert type(actor.language_model).__name__ == "Gemma3ForConditionalGeneration" and not actor.takes_rows
    plain = transformers.AutoModelForCausalLM.from_pretrained(seeing, dtype=torch.float32, attn_implementation="eager")
    expected = torch.cat([plain_logprobs(plain, item) for item in sample])
    (batch,) = pack(sample, 1000)
    torch.testing.assert_close(actor(batch, 0.7).logprobs, expected[batch.actions], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("critic", ["shared", "separate"])
def test_a_model_that_reads_images_is_trained_on_text(seeing, tmp_path, critic):
    learner = PpoLearner(train_config(critic=critic, kl_coefficient=0.0), seeing)
    before = {name: weight.clone() for name, weight in learner.actor.module.language_model.state_dict().items()}
    learner.update(trajectories(4), 0)
    learner.save_policy(tmp_path / "policy")
    after = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "policy", dtype=torch.bfloat16).state_dict()
    changed = {name for name, weight in after.items() if not torch.equal(weight, before[name].bfloat16())}
    assert changed and not any("vision" in name or "projector" in name for name in changed)
