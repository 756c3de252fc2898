"""The in-process engine, compared with a naive forward pass over the whole sequence."""

import asyncio

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from apprentice.errors import ApprenticeError
from apprentice.policy.protocol import Sampling
from apprentice.policy.transformers_engine import TransformersPolicy

PROMPTS = [[10, 20, 30], [40, 50, 60, 70, 80, 90, 100], [5]]


@pytest.fixture
def policy(tiny):
    return TransformersPolicy(tiny, max_sequences=8, device="cpu")


def complete(policy, prompts, samplings):
    async def all_at_once():
        return await asyncio.gather(*(policy.generate(prompt, sampling) for prompt, sampling in zip(prompts, samplings, strict=True)))

    return asyncio.run(all_at_once())


def naive_logprobs(checkpoint, prompt, completion, temperature):
    """Return log-probabilities of a completion from one forward pass without cache or padding."""
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    with torch.inference_mode():
        logits = model(torch.tensor([[*prompt, *completion]])).logits[0, len(prompt) - 1 : -1]
    logprobs = (logits / temperature).log_softmax(-1)
    return logprobs, logprobs[range(len(completion)), list(completion)].tolist()


def test_logprobs_of_a_padded_batch_equal_a_full_forward_at_the_temperature(policy, tiny):
    samplings = [Sampling(12, 0.7, seed) for seed in range(3)]
    for prompt, completion in zip(PROMPTS, complete(policy, PROMPTS, samplings), strict=True):
        _, expected = naive_logprobs(tiny, prompt, completion.token_ids, 0.7)
        assert completion.logprobs == pytest.approx(expected, abs=1e-4)


def test_greedy_decoding_takes_the_likeliest_token_with_its_logprob_at_temperature_1(policy, tiny):
    for prompt, completion in zip(PROMPTS, complete(policy, PROMPTS, [Sampling(12, 0.0, 0)] * 3), strict=True):
        every, expected = naive_logprobs(tiny, prompt, completion.token_ids, 1.0)
        assert completion.token_ids == tuple(every.argmax(-1).tolist())
        assert completion.logprobs == pytest.approx(expected, abs=1e-4)


def test_the_same_requests_give_the_same_completions_bit_for_bit(policy):
    samplings = [Sampling(20, 1.0, seed) for seed in range(3)]
    assert complete(policy, PROMPTS, samplings) == complete(policy, PROMPTS, samplings)


def test_a_sample_depends_on_its_seed_and_not_on_its_batch(policy):
    alone = complete(policy, PROMPTS[:1], [Sampling(20, 1.0, 7)])[0]
    together = complete(policy, PROMPTS, [Sampling(20, 1.0, 7), Sampling(20, 1.0, 8), Sampling(20, 1.0, 9)])[0]
    otherwise = complete(policy, PROMPTS[:1], [Sampling(20, 1.0, 8)])[0]
    assert alone.token_ids == together.token_ids != otherwise.token_ids


def test_all_requests_are_answered_if_they_exceed_one_batch(tiny):
    small = TransformersPolicy(tiny, max_sequences=2, device="cpu")
    assert len(complete(small, [[1, 2]] * 5, [Sampling(3, 1.0, seed) for seed in range(5)])) == 5


def test_a_completion_ends_with_a_stop_token_that_is_not_the_tokenizers_end(policy):
    free = complete(policy, PROMPTS[:1], [Sampling(30, 1.0, 3)])[0]
    end = free.token_ids[4]
    stopped = complete(policy, PROMPTS[:1], [Sampling(30, 1.0, 3, stop_token_ids=(end,))])[0]
    assert stopped.finish_reason == "stop"
    assert stopped.token_ids == free.token_ids[: free.token_ids.index(end) + 1]


def test_a_completion_ends_with_the_stop_string_included(policy, tiny):
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    free = complete(policy, PROMPTS[:1], [Sampling(30, 1.0, 3)])[0]
    stop = tokenizer.decode(free.token_ids[4:6])
    stopped = complete(policy, PROMPTS[:1], [Sampling(30, 1.0, 3, (stop,))])[0]
    assert stopped.finish_reason == "stop"
    assert stopped.token_ids == free.token_ids[: len(stopped.token_ids)]
    assert tokenizer.decode(stopped.token_ids).endswith(stop)


def test_the_end_token_is_part_of_the_completion(policy, tiny):
    end = AutoTokenizer.from_pretrained(tiny).eos_token_id
    completions = complete(policy, [[1, 2]] * 8, [Sampling(200, 3.0, seed) for seed in range(8)])
    ended = [completion for completion in completions if completion.finish_reason == "stop"]
    assert ended and all(completion.token_ids[-1] == end and end not in completion.token_ids[:-1] for completion in ended)


def test_max_tokens_bounds_a_completion(policy):
    completion = complete(policy, [[10, 20]], [Sampling(4, 0.0, 0, ("never",))])[0]
    assert (len(completion.token_ids), len(completion.logprobs), completion.finish_reason) == (4, 4, "length")


def test_load_changes_outputs_and_version(policy, tiny, other):
    before = complete(policy, PROMPTS[:1], [Sampling(10, 0.0, 0)])[0]
    asyncio.run(policy.load(other, 3))
    after = complete(policy, PROMPTS[:1], [Sampling(10, 0.0, 0)])[0]
    asyncio.run(policy.load(tiny, 4))
    again = complete(policy, PROMPTS[:1], [Sampling(10, 0.0, 0)])[0]
    assert (before.version, after.version, again.version) == (0, 3, 4)
    assert after.logprobs != before.logprobs == again.logprobs


def test_changed_weights_replace_those_of_the_checkpoint(policy, tiny, other, tmp_path):
    save_file(load_file(other / "model.safetensors"), tmp_path / "all")
    save_file({"model.rotary": torch.zeros(1)}, tmp_path / "foreign")
    asyncio.run(policy.load(other, 5))
    expected = complete(policy, PROMPTS[:1], [Sampling(10, 0.0, 0)])[0]
    asyncio.run(policy.load(tiny, 6, tmp_path / "all"))
    found = complete(policy, PROMPTS[:1], [Sampling(10, 0.0, 0)])[0]
    assert (found.token_ids, found.logprobs, found.version) == (expected.token_ids, expected.logprobs, 6)
    with pytest.raises(ApprenticeError, match="model.rotary"):
        asyncio.run(policy.load(tiny, 7, tmp_path / "foreign"))
    asyncio.run(policy.load(tiny, 0))


def test_a_folder_without_weights_is_refused(policy, tmp_path):
    with pytest.raises(ApprenticeError, match="contains no weights"):
        asyncio.run(policy.load(tmp_path, 1))


def test_a_failing_request_raises_its_error(policy):
    with pytest.raises(IndexError):
        complete(policy, [[10**6]], [Sampling(4, 0.0, 0)])
