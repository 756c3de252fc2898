"""The real vLLM server: its tokens, log-probabilities and weights, compared with Transformers."""

import asyncio
import json
import os
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from apprentice.config.schema import PolicyConfig
from apprentice.policy.base_models import CACHE
from apprentice.policy.protocol import Sampling
from apprentice.policy.server import INTERPRETER, PolicyServer
from apprentice.policy.vllm_client import VllmPolicy

MODEL = CACHE / "smollm2-135m-instruct"
CONFIG = PolicyConfig(engine="vllm", port=0, max_context=512, max_sequences=32, kv_cache_gib=1, gpus=1, first_gpu=0, sleep=True)
NOISE = 0.1
"""Bound on the mean |difference| of log-probabilities between vLLM's and Transformers' bf16 kernels; usual is 0.045."""
QUESTIONS = ["What is the capital of France?", "Name three colours.", "Write one sentence about the sea.", "Who was Ada Lovelace?"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not INTERPRETER.exists(), reason="vLLM's environment .venv-serve is absent"),
    pytest.mark.skipif(not MODEL.exists(), reason="the base model is not in the cache"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Folder of the server's log and state."""
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def server(folder):
    with PolicyServer(CONFIG, MODEL, folder / "server.log", state=folder / "state.json") as server:
        server.wait()
        yield server


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    header = "You answer briefly. " * 12
    texts = [f"<|im_start|>user\n{header}{question}<|im_end|>\n<|im_start|>assistant\n" for question in QUESTIONS]
    return [tokenizer.encode(text, add_special_tokens=False) for text in texts]


@pytest.fixture(scope="module")
def embeddings(changed) -> Path:
    """A file with only the weights in which `changed` differs from the base model."""
    name = "model.embed_tokens.weight"
    save_file({name: load_file(changed / "model.safetensors")[name]}, changed / "part")
    return changed / "part"


@pytest.fixture(scope="module")
def changed(tmp_path_factory) -> Path:
    """The base model with other embeddings, which are also its output layer."""
    folder = tmp_path_factory.mktemp("changed")
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.bfloat16)
    embeddings = model.get_input_embeddings().weight
    noise = torch.randn(embeddings.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        embeddings.add_((noise * embeddings.float().std() * 0.3).to(embeddings.dtype))
    model.save_pretrained(folder)
    return folder


def ask(server, prompts, sampling, load=None):
    """Return the completions of all prompts, after loading (checkpoint, version) if given."""

    async def scenario():
        policy = VllmPolicy(server.endpoint)
        if load:
            await policy.load(*load)
        completions = await asyncio.gather(*(policy.generate(prompt, sampling) for prompt in prompts))
        await policy.close()
        return completions

    return asyncio.run(scenario())


def gap(checkpoint, prompts, completions, temperature=1.0) -> float:
    """Return the mean absolute difference between the completions' log-probabilities and those of Transformers."""
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.bfloat16).eval()
    differences = []
    for prompt, completion in zip(prompts, completions, strict=True):
        with torch.inference_mode():
            logits = model(torch.tensor([[*prompt, *completion.token_ids]])).logits[0, len(prompt) - 1 : -1].float()
        expected = (logits / temperature).log_softmax(-1)[range(len(completion.token_ids)), list(completion.token_ids)]
        differences += (expected - torch.tensor(completion.logprobs)).abs().tolist()
    return sum(differences) / len(differences)


def test_greedy_logprobs_agree_with_transformers(server, prompts):
    completions = ask(server, prompts, Sampling(16, 0.0, 0), load=(MODEL, 0))
    assert gap(MODEL, prompts, completions) < NOISE


def test_sampled_logprobs_are_those_at_the_temperature(server, prompts):
    completions = ask(server, prompts, Sampling(24, 0.6, 1), load=(MODEL, 0))
    assert gap(MODEL, prompts, completions, temperature=0.6) < NOISE
    assert gap(MODEL, prompts, completions, temperature=1.0) > gap(MODEL, prompts, completions, temperature=0.6)


def test_greedy_logprobs_are_at_temperature_1_beside_sampled_requests(server, prompts):
    async def scenario():
        policy = VllmPolicy(server.endpoint)
        await policy.load(MODEL, 0)
        answers = await asyncio.gather(*(policy.generate(prompts[0], Sampling(12, temperature, 0)) for temperature in (0.0, 0.5, 0.7)))
        await policy.close()
        return answers

    assert gap(MODEL, prompts[:1], asyncio.run(scenario())[:1]) < NOISE


def test_the_same_seed_gives_the_same_first_token_and_another_seed_other_tokens(server, prompts):
    async def scenario():
        policy = VllmPolicy(server.endpoint)
        answers = [await policy.generate(prompts[2], Sampling(16, 1.0, seed)) for seed in (5, 5, 6)]
        await policy.close()
        return answers

    first, again, different = asyncio.run(scenario())
    assert first.token_ids[0] == again.token_ids[0] and first.token_ids != different.token_ids


def test_stop_string_and_end_token_are_part_of_the_completion(server, prompts):
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    stopped = ask(server, prompts[:1], Sampling(32, 0.0, 0, (" is",)), load=(MODEL, 0))[0]
    ended = ask(server, prompts[:1], Sampling(64, 0.0, 0))[0]
    assert tokenizer.decode(stopped.token_ids).endswith(" is") and stopped.finish_reason == "stop"
    assert ended.token_ids[-1] == tokenizer.eos_token_id and ended.finish_reason == "stop"


def test_after_an_embedding_change_neither_old_weights_nor_a_stale_cache_answer(server, prompts, changed):
    """The prefix cache has the prompts' keys and values under the old weights, because they were answered before."""
    sampling = Sampling(16, 0.0, 0)
    before = ask(server, prompts, sampling, load=(MODEL, 1))
    after = ask(server, prompts, sampling, load=(changed, 2))
    assert {completion.version for completion in before} == {1} and {completion.version for completion in after} == {2}
    assert gap(changed, prompts, after) < NOISE
    assert gap(MODEL, prompts, after) > 3 * NOISE
    restored = ask(server, prompts, sampling, load=(MODEL, 3))
    assert gap(MODEL, prompts, restored) < NOISE


def test_changed_weights_replace_only_the_old_ones_of_their_names(server, prompts, changed, embeddings):
    async def scenario():
        policy, answers = VllmPolicy(server.endpoint), []
        for version, part in enumerate((None, embeddings, None)):
            await policy.load(MODEL, version, part)
            answers.append(await asyncio.gather(*(policy.generate(prompt, Sampling(16, 0.0, 0)) for prompt in prompts)))
        await policy.close()
        return answers

    _, other, restored = asyncio.run(scenario())
    assert gap(changed, prompts, other) < NOISE < 3 * NOISE < gap(MODEL, prompts, other)
    assert gap(MODEL, prompts, restored) < NOISE


def test_a_server_that_slept_answers_with_the_weights_loaded_afterwards(server, prompts, changed):
    """On a CPU, vLLM has no GPU memory to free, but it pauses and resumes as it does on a GPU."""

    async def scenario():
        policy = VllmPolicy(server.endpoint, sleeps=True)
        await policy.load(MODEL, 1)
        await policy.generate(prompts[0], Sampling(16, 0.0, 0))
        await policy.sleep()
        asleep = server.endpoint.get("/is_sleeping", 5).json()
        await policy.load(changed, 2)
        completions = await asyncio.gather(*(policy.generate(prompt, Sampling(16, 0.0, 0)) for prompt in prompts))
        await policy.close()
        return asleep, completions

    asleep, completions = asyncio.run(scenario())
    assert asleep == {"is_sleeping": True}
    assert gap(changed, prompts, completions) < NOISE


@pytest.mark.parametrize("path", ["/health", "/v1/models", "/is_sleeping", "/metrics", "/version", "/openapi.json"])
def test_every_route_of_a_server_on_a_port_requires_its_key(server, path):
    assert replace(server.endpoint, key="").get(path, 5).status_code == 401
    assert server.endpoint.get(path, 5).status_code in (200, 404)


def test_the_engine_survives_many_seeded_prompts_at_once(server, prompts):
    long = [[token % 40000 + 100 for token in range(offset, offset + 400)] for offset in range(24)]
    assert len(ask(server, long, Sampling(4, 1.0, 0))) == 24 and server.alive


def test_a_killed_server_is_restarted_with_the_weights_loaded_last(server, folder, prompts, changed, embeddings):
    async def scenario():
        async def revive():
            await asyncio.to_thread(server.revive)
            return server.endpoint

        policy = VllmPolicy(server.endpoint, revive=revive)
        await policy.load(MODEL, 7, embeddings)
        watcher = json.loads((folder / "state.json").read_text())["pid"]
        child = subprocess.run(["pgrep", "-P", str(watcher)], capture_output=True, text=True).stdout.split()[0]
        waiting = [asyncio.create_task(policy.generate(prompt, Sampling(48, 0.0, 0))) for prompt in prompts]
        await asyncio.sleep(0.5)
        os.kill(int(child), signal.SIGKILL)
        completions = await asyncio.gather(*waiting)
        await policy.close()
        return completions

    completions = asyncio.run(scenario())
    assert {completion.version for completion in completions} == {7}
    assert gap(changed, prompts, completions) < NOISE
