"""Packed sequences have the same scores as on their own."""

from itertools import accumulate

import pytest
import torch
from learning.toys import trajectories
from tiny import make_tiny_checkpoint

from apprentice.learning import attention
from apprentice.learning.models import Actor, load_language_model, token_scores
from apprentice.learning.packing import action_logprobs, action_offsets, pack


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return make_tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


def plain_logprobs(model, trajectory, temperature):
    ids = torch.tensor([trajectory.token_ids])
    logprobs = (model(input_ids=ids).logits[0, :-1].float() / temperature).log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
    return logprobs[torch.tensor(trajectory.action_mask[1:], dtype=torch.bool)]


@pytest.mark.parametrize("block", [attention.BLOCK, 5])
def test_packed_log_probabilities_and_gradients_equal_those_of_each_sequence_alone(checkpoint, monkeypatch, block):
    from transformers import AutoModelForCausalLM

    monkeypatch.setattr(attention, "BLOCK", block)
    made = trajectories(7)
    alone = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32, attn_implementation="eager")
    expected = torch.cat([plain_logprobs(alone, trajectory, 0.7) for trajectory in made])
    weights = torch.linspace(-1, 1, len(expected))
    (expected * weights).sum().backward()

    actor = Actor(load_language_model(checkpoint, torch.float32))
    found = torch.empty_like(expected)
    for batch in pack(made, 80):
        logprobs = actor(batch, 0.7).logprobs
        found[batch.actions] = logprobs.detach()
        (logprobs * weights[batch.actions]).sum().backward()

    torch.testing.assert_close(found, expected.detach(), atol=1e-5, rtol=1e-5)
    for (name, mine), (_, theirs) in zip(actor.language_model.named_parameters(), alone.named_parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, atol=2e-5, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}")


def test_what_stands_after_an_action_does_not_change_it_and_neighbours_do_not_matter(checkpoint):
    actor = Actor(load_language_model(checkpoint, torch.float32)).eval()
    made = trajectories(4)
    with torch.no_grad():
        (together,) = pack(made, 1000)
        (single,) = pack(made, 1000, [2])
        scores = torch.zeros(action_offsets(made)[-1])
        scores[together.actions] = actor(together).logprobs
        torch.testing.assert_close(scores[single.actions], actor(single).logprobs, atol=1e-5, rtol=1e-5)


def test_batches_keep_to_the_budget_hold_each_sequence_once_and_are_balanced():
    made = trajectories(40)
    batches = pack(made, 200)
    loads = [batch.token_ids.shape[1] for batch in batches]
    assert sorted(torch.cat([batch.actions for batch in batches]).tolist()) == list(range(action_offsets(made)[-1]))
    assert max(loads) <= 200
    assert max(loads) - min(loads) <= 40
    assert [batch.lengths for batch in pack(made, 200)] == [batch.lengths for batch in batches]


def test_a_sequence_longer_than_the_budget_gets_a_batch_of_its_own():
    assert sorted(batch.lengths for batch in pack(trajectories(3), 10)) == [(19,), (26,), (33,)], "what the last action token predicts is not asked for"


def test_targets_are_the_sampled_tokens_and_predictors_their_predecessors():
    made = trajectories(5)
    tokens = [token for item in made for token, sampled in zip(item.token_ids, item.action_mask, strict=True) if sampled]
    for batch in pack(made, 70):
        assert batch.targets.tolist() == [tokens[index] for index in batch.actions]
        followers = [(at + 1, target) for at, target in zip(batch.predictors.tolist(), batch.targets.tolist(), strict=True)]
        ends = set(accumulate(batch.lengths))
        assert [int(batch.token_ids[0, at]) for at, _ in followers if at not in ends] == [target for at, target in followers if at not in ends]
        assert {at for at, _ in followers} >= ends
    assert len(action_logprobs(made)) == len(tokens)


def test_log_probabilities_and_entropy_and_their_gradients_equal_autograd():
    torch.manual_seed(0)
    logits = torch.randn(600, 50, dtype=torch.float64).float().requires_grad_()
    targets, a, b = torch.randint(0, 50, (600,)), torch.randn(600), torch.randn(600)
    plain = logits.detach().clone().requires_grad_()
    logprobs, entropy = token_scores(logits, targets, 0.8, True)
    (logprobs @ a + entropy @ b).backward()
    full = (plain / 0.8).log_softmax(-1)
    (full.gather(1, targets[:, None])[:, 0] @ a + (-(full.exp() * full).sum(-1)) @ b).backward()
    torch.testing.assert_close(entropy, -(full.exp() * full).sum(-1).detach(), atol=1e-5, rtol=1e-5, check_stride=False)
    torch.testing.assert_close(logits.grad, plain.grad, atol=1e-5, rtol=1e-4)
