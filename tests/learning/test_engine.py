"""The DeepSpeed engine on one process, compared with plain AdamW."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from learning.toys import trajectories, weights
from tiny import make_tiny_checkpoint

from apprentice.learning.engine import Engine
from apprentice.learning.models import Actor, ValueHead, load_language_model
from apprentice.learning.objectives import negative_log_likelihood
from apprentice.learning.packing import pack

BUDGETS = (400, 60, 90)
"""Tokens per micro-batch in each of three optimizer steps: one micro-batch, then many."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return make_tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


def train(actor, backward, step):
    made = trajectories(6)
    for number, budget in enumerate(BUDGETS):
        batches = pack(made, budget)
        count = sum(len(batch.targets) for batch in batches)
        for batch in batches:
            logprobs = actor(batch).logprobs
            backward(negative_log_likelihood(logprobs, denominator=count))
        step(1e-2 / (number + 1))


@pytest.mark.parametrize(("dtype", "zero_stage", "tolerance"), [("float32", 1, 1e-5), ("bfloat16", 1, 0.1), ("bfloat16", 2, 0.1)])
def test_the_engine_takes_the_steps_of_plain_adamw_whatever_the_number_of_micro_batches(checkpoint, dtype, zero_stage, tolerance):
    plain = Actor(load_language_model(checkpoint, torch.float32))
    optimizer = torch.optim.AdamW(plain.parameters(), betas=(0.9, 0.95), weight_decay=0.0)
    norms = []

    def step(learning_rate):
        norms.append(float(torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.5)))
        optimizer.param_groups[0]["lr"] = learning_rate
        optimizer.step()
        optimizer.zero_grad()

    train(plain, lambda loss: loss.backward(), step)

    kind = getattr(torch, dtype)
    model = Actor(load_language_model(checkpoint, kind))
    engine = Engine(model, learning_rate=1e-2, max_gradient_norm=0.5, zero_stage=zero_stage, dtype=kind)
    found = []
    train(engine, engine.accumulate, lambda learning_rate: found.append(engine.step(learning_rate)[0]))
    assert found == pytest.approx(norms, rel=1e-6 if dtype == "float32" else 1e-2)
    start = weights(load_language_model(checkpoint, torch.float32))
    difference, movement = 0.0, 0.0
    for name, expected in weights(plain.language_model).items():
        difference += float((model.language_model.state_dict()[name].float() - expected).pow(2).sum())
        movement += float((expected - start[name]).pow(2).sum())
    assert (difference / movement) ** 0.5 < tolerance


def test_the_engine_keeps_rotary_frequencies_as_exact_as_they_were_loaded(checkpoint):
    model = Actor(load_language_model(checkpoint, torch.bfloat16))
    frequencies = model.language_model.model.rotary_emb.inv_freq.clone()
    engine = Engine(model, learning_rate=1e-2, max_gradient_norm=1.0)
    assert {weight.dtype for weight in engine.module.parameters()} == {torch.bfloat16}
    torch.testing.assert_close(engine.module.language_model.model.rotary_emb.inv_freq, frequencies, rtol=0, atol=0)


def test_a_loss_that_is_not_finite_skips_the_step(checkpoint):
    model = Actor(load_language_model(checkpoint, torch.bfloat16))
    engine = Engine(model, learning_rate=1e-2, max_gradient_norm=1.0)
    before = weights(model)
    (batch,) = pack(trajectories(3), 1000)
    engine.accumulate(engine(batch).logprobs.mean())
    engine.accumulate(engine(batch).logprobs.mean() * float("nan"))
    _, stepped = engine.step(1e-2)
    assert not stepped
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(model).items())
    engine.accumulate(engine(batch).logprobs.mean())
    assert engine.step(1e-2)[1]


@pytest.mark.parametrize(("dtype", "zero_stage"), [("float32", 1), ("bfloat16", 1), ("float32", 2), ("float32", 3), ("bfloat16", 3)])
def test_overwritten_weights_are_those_that_the_optimizer_goes_on_from(dtype, zero_stage):
    kind = getattr(torch, dtype)
    engine = Engine(ValueHead(8), learning_rate=1e-2, max_gradient_norm=1.0, zero_stage=zero_stage, dtype=kind)
    source = ValueHead(8)
    torch.nn.init.normal_(source.linear.weight)
    engine.copy_weights(engine.module, source)
    engine.accumulate(0.0 * engine(torch.ones(2, 8)).sum())
    assert engine.step(1e-2)[1]
    with engine.gathered_weights():
        for mine, other in zip(engine.module.parameters(), source.parameters(), strict=True):
            assert torch.equal(mine, other.to(kind))


TRAINER = """
import os, sys
import torch
from apprentice.learning.engine import Engine

engine = Engine(torch.nn.Linear(4, 1), learning_rate=1e-2, max_gradient_norm=1.0)
engine.accumulate(engine(torch.ones(2, 4, dtype=torch.bfloat16)).float().sum())
print(engine.step(1e-2)[1])
"""


def test_the_trainer_compiles_nothing_and_needs_neither_a_home_nor_a_compiler(tmp_path):
    """Compiling kernels takes minutes, fails where the path has a space, and fills a cache that projects share."""
    extensions = tmp_path / "extensions"
    variables = {"PATH": str(tmp_path), "HOME": "/nonexistent", "TORCH_EXTENSIONS_DIR": str(extensions), "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", TRAINER], env=variables, capture_output=True, text=True, timeout=120)
    assert done.stdout.split()[-1:] == ["True"], done.stderr[-2000:]
    assert not extensions.exists()
