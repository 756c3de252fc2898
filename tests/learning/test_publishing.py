"""Publishing the trained weights through a file in memory."""

import os
import subprocess
import sys

import pytest
import torch
from learning.toys import train_config, trajectories
from safetensors.torch import load_file
from tiny import make_tiny_checkpoint

from apprentice.learning.ppo import PpoLearner
from apprentice.learning.publishing import unnamed_file


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return make_tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


def test_what_is_published_is_what_a_saved_policy_holds_after_every_update(checkpoint, tmp_path):
    learner = PpoLearner(train_config(learning_rate=1e-2), checkpoint)
    found = []
    with unnamed_file() as file:
        for step in range(2):
            learner.update(trajectories(8), step)
            learner.publish(file)
            learner.save_policy(tmp_path / str(step))
            found.append({name: weight.clone() for name, weight in load_file(file).items()})
    for step, weights in enumerate(found):
        saved = load_file(tmp_path / str(step) / "model.safetensors")
        assert weights.keys() == saved.keys() and all(torch.equal(weights[name], saved[name]) for name in saved)
    assert any(not torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_with_adapters_only_their_layers_are_published_merged(checkpoint, tmp_path):
    learner = PpoLearner(train_config(advantage="rloo", lora_rank=2, learning_rate=1e-1, kl_coefficient=0.0), checkpoint)
    learner.update(trajectories(8), 0)
    with unnamed_file() as file:
        learner.publish(file)
        found = {name: weight.clone() for name, weight in load_file(file).items()}
    learner.save_policy(tmp_path / "policy")
    saved, before = load_file(tmp_path / "policy" / "model.safetensors"), load_file(checkpoint / "model.safetensors")
    assert all(torch.equal(found[name], saved[name]) for name in found)
    assert found.keys() >= {name for name in saved if not torch.equal(saved[name], before[name].bfloat16())}
    assert not any("embed" in name or "norm" in name for name in found) and found


def test_others_open_the_file_while_its_maker_lives_and_nothing_is_left_of_it():
    program = "from apprentice.learning.publishing import unnamed_file\nwith unnamed_file() as file:\n    print(file, flush=True)\n    input()"
    maker = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    path = maker.stdout.readline().strip()
    with open(path, "r+b") as file:
        file.write(b"here")
    assert os.path.getsize(path) == 4
    maker.kill()
    maker.wait()
    maker.stdin.close()
    maker.stdout.close()
    assert not os.path.exists(path)
