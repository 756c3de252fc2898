"""Sequences merged into trees have the same scores as on their own."""

from dataclasses import replace
from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from learning.toys import trajectory
from tiny import make_tiny_checkpoint

from apprentice.learning import attention, sharing
from apprentice.learning.models import Actor, load_language_model
from apprentice.learning.packing import action_offsets, pack
from apprentice.learning.sharing import MIN_SHARED, Branch, prefix_trees


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return make_tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


def branching():
    """Nine trajectories of up to 30 tokens that branch at tokens 20, 25 and 28; some are prefixes of or equal to others."""
    root = trajectory(0, length=30, actions=10)
    made = []
    for number, (start, token) in enumerate(((30, 0), (20, 1), (20, 2), (25, 3), (28, 4), (28, 5))):
        made.append(replace(root, id=str(number), token_ids=(*root.token_ids[:start], *([token] * (30 - start)))))
    return [*made, _cut(root, 26, id="6"), replace(made[3], id="7"), _cut(made[1], 28, id="8", token_ids=(*root.token_ids[:20], *([6] * 8)))]


def _cut(whole, end, **changes):
    first = {name: getattr(whole, name)[:end] for name in ("token_ids", "action_mask", "logprobs")}
    return replace(whole, **(first | changes))


sequences = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), min_size=1, max_size=12)


def every_tree(sampled):
    """Trees of up to 40 tokens, merged from a single common token on."""
    with patch.object(sharing, "MIN_SHARED", 1):
        return prefix_trees(dict(enumerate(sampled)), 40)


@given(sequences)
def test_every_path_spells_its_sequence_and_attends_to_it_alone(sampled):
    trees = every_tree(sampled)
    assert sorted(number for tree in trees for number in tree.paths) == list(range(len(sampled)))
    for tree in trees:
        seen = {}
        for branch in tree.branches() or (Branch(torch.zeros(0, dtype=torch.long), 0, len(tree)),):
            seen |= {at: sorted([*branch.ancestors.tolist(), *range(branch.first, at + 1)]) for at in range(branch.first, branch.end)}
        for number, path in tree.paths.items():
            assert [tree.token_ids[at] for at in path] == sampled[number]
            assert [tree.depths[at] for at in path] == list(range(len(path)))
            for depth, at in enumerate(path):
                assert seen[at] == sorted(path[: depth + 1])


@given(sequences)
def test_a_tree_holds_nothing_twice_and_what_does_not_begin_alike_is_apart(sampled):
    for tree in every_tree(sampled):
        prefixes = {tuple(tree.token_ids[at] for at in path[: depth + 1]) for path in tree.paths.values() for depth in range(len(path))}
        assert len(prefixes) == len(tree)
        assert len({sampled[number][0] for number in tree.paths}) == 1


def test_a_tree_of_several_sequences_stays_within_the_budget_and_few_tokens_in_common_make_none():
    shared = list(range(100, 100 + MIN_SHARED))
    trees = prefix_trees({number: [*shared, number] for number in range(20)}, MIN_SHARED + 6)
    assert [len(tree.paths) for tree in trees] == [6, 6, 6, 2]
    assert len(prefix_trees({number: [*shared[1:], 1, number] for number in range(20)}, 1000)) == 1
    assert len(prefix_trees({number: [*shared[1:], number, 1] for number in range(20)}, 1000)) == 20


@pytest.mark.parametrize("block", [attention.BLOCK, 4], ids=["one block", "blocks"])
@pytest.mark.parametrize("kernels", ["written out", "PyTorch's"])
def test_log_probabilities_and_gradients_equal_those_without_sharing(checkpoint, block, kernels, monkeypatch):
    made = branching()
    weights = torch.linspace(-1, 1, action_offsets(made)[-1])
    monkeypatch.setattr(attention, "BLOCK", block)
    if kernels == "PyTorch's":
        monkeypatch.setattr(attention.BlockAttention, "apply", _in_pytorchs_kernels)
    results = [_scored(checkpoint, made, weights, share) for share in (True, False)]
    (shared, gradients, tokens), (plain, expected, all_tokens) = results
    assert (tokens, all_tokens) == (29 + 9 + 9 + 7 + 4 + 1 + 1, 9 * 29 - 4 - 2), "what a sequence ends with predicts nothing"
    torch.testing.assert_close(shared, plain, atol=1e-5, rtol=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[name], atol=2e-5, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}")


def _in_pytorchs_kernels(query, key, value, groups, scaling, window):
    """The attention that a GPU computes for one tree."""
    runs = sorted(((ancestors, own) for group in groups for ancestors, own in _runs(group, query.shape[2])), key=lambda found: found[1])
    branches = tuple(Branch(torch.tensor(ancestors, dtype=torch.long), own[0], own[-1] + 1) for ancestors, own in runs)
    return attention.tree_attention(query, key, value, branches if len(branches) > 1 else None, scaling, window)


def _runs(group, row: int) -> list[tuple[list[int], list[int]]]:
    """Ancestors and own tokens of a group's branches, without padding."""
    return [tuple([at for at in part if at < row] for part in (places[: group.ancestors], places[group.ancestors :])) for places in group.positions.tolist()]


@given(sequences)
def test_each_token_of_a_row_is_in_one_run_and_sees_its_ancestors_there(sampled):
    trees = every_tree(sampled)
    row = sum(map(len, trees))
    found, start = {}, 0
    for group in attention.group_branches(tuple(map(len, trees)), tuple(tree.branches() for tree in trees)):
        runs = _runs(group, row)
        assert all(len(own) * (len(ancestors) + len(own)) >= attention.MIN_FILL * group.longest * group.positions.shape[1] for ancestors, own in runs)
        if group.padding is not None:
            assert torch.equal(group.padding[:, 0], group.positions[:, : group.ancestors] == row)
        found |= {own[0]: (ancestors, own) for ancestors, own in runs}
    for tree in trees:
        for ancestors, first, end in tree.runs:
            assert found.pop(start + first) == ([start + at for at in ancestors], [*range(start + first, start + end)])
        start += len(tree)
    assert not found


def test_branches_share_their_products_as_far_as_the_cache_goes():
    whole, first = [*range(50)], [100, 101]
    sampled = {number: [*first, number, *whole[:length]] for number, length in enumerate((49, 48, 40, 20))}
    with patch.object(sharing, "MIN_SHARED", 1):
        (tree,) = prefix_trees(sampled, 1000)
    assert _shapes(tree) == [(3, 54), (1, 23)], "the first, whole, and two branches; the fourth is too short"
    with patch.object(attention, "MAX_PAIRS", 2 * 52 * 54):
        assert _shapes(tree) == [(2, 54), (1, 43), (1, 23)]


def _shapes(tree) -> list[tuple[int, ...]]:
    return [tuple(group.positions.shape) for group in attention.group_branches((len(tree),), (tree.branches(),))]


def _scored(checkpoint, made, weights, share: bool):
    """Log-probabilities, the gradients of their weighted sum, and the number of computed tokens."""
    actor = Actor(load_language_model(checkpoint, torch.float32))
    found, tokens = torch.zeros_like(weights), 0
    for chosen in [None] if share else [[index] for index in range(len(made))]:
        for batch in pack(made, 1000, chosen):
            logprobs = actor(batch, 0.7).logprobs
            found[batch.actions] = logprobs.detach()
            (logprobs * weights[batch.actions]).sum().backward()
            tokens += batch.token_ids.shape[1]
    return found, {name: parameter.grad for name, parameter in actor.named_parameters()}, tokens
