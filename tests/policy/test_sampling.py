"""Sampling of tokens by the policy server on a CPU."""

import pytest
import torch

from apprentice.policy.serving.sampling import sample

SAMPLES = 20_000


def generators(rows: int, seed: int = 0) -> dict[int, torch.Generator]:
    return {row: torch.Generator().manual_seed(seed + row) for row in range(rows)}


@pytest.mark.parametrize("vocabulary", [7, 1000, 1024])
def test_tokens_are_sampled_with_their_probabilities(vocabulary):
    logits = torch.randn(vocabulary, generator=torch.Generator().manual_seed(1)) * 2
    tokens, _ = sample(logits.repeat(SAMPLES, 1), generators(SAMPLES))
    expected = logits.softmax(-1) * SAMPLES
    likely = expected >= 20
    counts = torch.bincount(tokens, minlength=vocabulary)[likely]
    chi_square = float(((counts - expected[likely]) ** 2 / expected[likely]).sum())
    freedom = int(likely.sum())
    assert freedom > 5 and abs(chi_square - freedom) < 5 * (2 * freedom) ** 0.5


def test_a_token_of_probability_0_is_never_sampled():
    logits = torch.full((SAMPLES, 512), -torch.inf)
    logits[:, 300] = 0.0
    logits[:, 17] = -1.0
    assert set(sample(logits, {})[0].tolist()) == {17, 300}


def test_uniform_numbers_at_the_ends_of_their_range_select_a_possible_token(monkeypatch):
    nearly_one = 1 - 2**-53
    for uniform, expected in ((0.0, 3), (nearly_one, 290)):
        monkeypatch.setattr(torch, "rand", lambda *shape, uniform=uniform, **_: torch.full(shape, uniform, dtype=torch.float64))
        logits = torch.full((2, 512), -torch.inf)
        logits[:, [3, 290]] = 0.1
        assert sample(logits, {})[0].tolist() == [expected] * 2


def test_log_probabilities_are_those_of_the_softmax():
    logits = torch.randn(4, 300)
    expected = logits.log_softmax(-1)
    assert torch.equal(sample(logits, {})[1], expected)


def test_a_seed_gives_the_same_token_in_every_batch():
    logits = torch.randn(5, 1024, generator=torch.Generator().manual_seed(2))
    together, _ = sample(logits.clone(), generators(5))
    alone, _ = sample(logits[3:4].clone(), {0: torch.Generator().manual_seed(3)})
    assert together[3] == alone[0]
    assert not torch.equal(together, sample(logits.clone(), generators(5, seed=9))[0])
