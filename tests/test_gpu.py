"""On an NVIDIA GPU, what a CPU gives: attention, an update, sampling. Run with `pytest -m gpu`."""

import asyncio

import pytest
import torch
from learning.toys import train_config, trajectories
from tiny import make_tiny_checkpoint
from transformers import AutoModelForCausalLM

from apprentice.learning.attention import packed_attention
from apprentice.learning.models import Actor, load_language_model
from apprentice.learning.packing import pack
from apprentice.learning.ppo import PpoLearner
from apprentice.policy.protocol import Sampling
from apprentice.policy.transformers_engine import TransformersPolicy

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return make_tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


def test_packed_attention_and_its_gradients_equal_the_cpus():
    torch.manual_seed(0)
    shapes = ((1, 6, 700, 32), (1, 2, 700, 32), (1, 2, 700, 32))
    inputs = [torch.randn(shape) for shape in shapes]

    def attend(device, dtype):
        tensors = [tensor.to(device, dtype).requires_grad_() for tensor in inputs]
        out, _ = packed_attention(torch.nn.Module(), *tensors, None, lengths=(90, 600, 10))
        (out.float() * torch.linspace(-1, 1, out.numel(), device=device).view(out.shape)).sum().backward()
        return [out, *(tensor.grad for tensor in tensors)]

    for ours, exact in zip(attend("cuda", torch.bfloat16), attend("cpu", torch.float32), strict=True):
        ours, exact = ours.detach().float().cpu(), exact.detach()
        assert (ours - exact).norm() / exact.norm() < 0.01


def test_log_probabilities_equal_a_forward_pass_of_transformers(checkpoint):
    made = trajectories(6)
    [batch] = pack(made, 10_000)
    ours = Actor(load_language_model(checkpoint, torch.bfloat16).cuda())(batch.to("cuda")).logprobs.cpu()
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    expected = []
    for trajectory in made:
        ids = torch.tensor([trajectory.token_ids])
        logprobs = model(ids).logits[0].log_softmax(-1)
        expected += [logprobs[at - 1, ids[0, at]].item() for at, sampled in enumerate(trajectory.action_mask) if sampled and at]
    assert ours.tolist() == pytest.approx(expected, abs=0.05)


def test_updates_lower_the_loss_of_what_was_rewarded(checkpoint):
    learner = PpoLearner(train_config(learning_rate=1e-3), checkpoint)
    assert learner.actor.device.type == "cuda"
    made = trajectories(8)
    learner.warm_up_critic(made)
    rows = [learner.update(made, step) for step in range(3)]
    assert all(row["skipped"] == 0 and row["gradient_norm"] > 0 for row in rows)


def test_a_sampler_on_the_gpu_says_the_log_probabilities_of_what_it_drew(checkpoint):
    policy = TransformersPolicy(checkpoint, max_sequences=8)

    async def draw():
        return await asyncio.gather(*(policy.generate(prompt, Sampling(12, 1.0, seed)) for seed, prompt in enumerate(([10, 20, 30], [5]))))

    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    for prompt, completion in zip(([10, 20, 30], [5]), asyncio.run(draw()), strict=True):
        logprobs = model(torch.tensor([[*prompt, *completion.token_ids]])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        assert completion.logprobs == pytest.approx(logprobs[range(12), list(completion.token_ids)].tolist(), abs=0.05)
