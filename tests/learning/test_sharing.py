"""Sequences merged into trees are what they were alone."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from learning.toys import trajectory
from tiny import make_tiny_checkpoint

from apprentice.learning import attention, sharing
from apprentice.learning.models import Actor, load_language_model
from apprentice.learning.packing import action_offsets, pack
from apprentice.learning.sharing import prefix_trees


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return make_tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


def branching():
    """Eight trajectories of 30 tokens that part at tokens 20, 25 and 28, one that is the beginning of another, and two that are alike."""
    root = trajectory(0, length=30, actions=10)
    made = []
    for number, (start, token) in enumerate(((30, 0), (20, 1), (20, 2), (25, 3), (28, 4), (28, 5))):
        made.append(replace(root, id=str(number), token_ids=(*root.token_ids[:start], *([token] * (30 - start)))))
    beginning = replace(root, id="6", token_ids=root.token_ids[:26], action_mask=root.action_mask[:26], logprobs=root.logprobs[:26])
    return [*made, beginning, replace(made[3], id="7")]


sequences = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), min_size=1, max_size=12)


@given(sequences)
def test_every_path_spells_its_sequence_and_attends_to_it_alone(drawn):
    trees = prefix_trees(dict(enumerate(drawn)))
    assert sorted(number for tree in trees for number in tree.paths) == list(range(len(drawn)))
    for tree in trees:
        hidden = tree.sight()
        hidden = torch.ones(len(tree), len(tree)).triu(1).bool() if hidden is None else hidden
        for number, path in tree.paths.items():
            assert [tree.token_ids[at] for at in path] == drawn[number]
            assert [tree.depths[at] for at in path] == list(range(len(path)))
            for depth, at in enumerate(path):
                assert (~hidden[at]).nonzero()[:, 0].tolist() == sorted(path[: depth + 1])


@given(sequences)
def test_a_tree_holds_nothing_twice_and_what_does_not_begin_alike_is_apart(drawn):
    for tree in prefix_trees(dict(enumerate(drawn))):
        prefixes = {tuple(tree.token_ids[at] for at in path[: depth + 1]) for path in tree.paths.values() for depth in range(len(path))}
        assert len(prefixes) == len(tree)
        assert len({drawn[number][0] for number in tree.paths}) == 1


def test_a_tree_of_short_sequences_stays_small_enough_for_a_mask_and_one_of_long_ones_within_the_budget(monkeypatch):
    monkeypatch.setattr(sharing, "MASKED", 10)
    short = prefix_trees({number: [1, 2, 3, 4, number] for number in range(5, 25)}, 1000)
    assert max(map(len, short)) == 10 and sum(len(tree.paths) for tree in short) == 20
    long = prefix_trees({number: [*range(1, 12), number] for number in range(20, 40)}, 22)
    assert max(map(len, long)) == 22 and sum(len(tree.paths) for tree in long) == 20


@pytest.mark.parametrize("masked", [sharing.MASKED, 0], ids=["masked", "by branches"])
@pytest.mark.parametrize("block", [attention.BLOCK, 4], ids=["one block", "blocks"])
def test_log_probabilities_and_gradients_equal_those_without_sharing(checkpoint, block, masked, monkeypatch):
    made = branching()
    weights = torch.linspace(-1, 1, action_offsets(made)[-1])
    monkeypatch.setattr(attention, "BLOCK", block)
    monkeypatch.setattr(sharing, "MASKED", masked)
    results = [_scored(checkpoint, made, weights, share) for share in (True, False)]
    (shared, gradients, tokens), (plain, expected, all_tokens) = results
    assert (tokens, all_tokens) == (30 + 10 + 10 + 5 + 2 + 2, 8 * 30 - 4)
    torch.testing.assert_close(shared, plain, atol=1e-5, rtol=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[name], atol=2e-5, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}")


def _scored(checkpoint, made, weights, share: bool):
    """Log-probabilities, the gradients of their weighted sum, and how many tokens were computed."""
    actor = Actor(load_language_model(checkpoint, torch.float32))
    found, tokens = torch.zeros_like(weights), 0
    for chosen in [None] if share else [[index] for index in range(len(made))]:
        for batch in pack(made, 1000, chosen):
            logprobs = actor(batch, 0.7).logprobs
            found[batch.actions] = logprobs.detach()
            (logprobs * weights[batch.actions]).sum().backward()
            tokens += batch.token_ids.shape[1]
    return found, {name: parameter.grad for name, parameter in actor.named_parameters()}, tokens
