"""Checkpoints of the learner and saved policies."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from learning.toys import files_at_most, train_config, trajectories
from tiny import make_tiny_checkpoint

from apprentice.errors import ApprenticeError
from apprentice.learning.checkpoint import CheckpointStore
from apprentice.learning.export import save_policy
from apprentice.learning.models import load_language_model
from apprentice.learning.ppo import PpoLearner


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return make_tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


RESUMED = """
import sys
from pathlib import Path
from apprentice.learning.ppo import PpoLearner
from learning.toys import train_config, trajectories
learner = PpoLearner(train_config(critic=sys.argv[3]), Path(sys.argv[1]))
learner.load_state(Path(sys.argv[2]))
for step in (2, 3):
    learner.update(trajectories(8, seed=step), step)
learner.save_policy(Path(sys.argv[2]) / "policy")
"""


@pytest.mark.parametrize("critic", ["shared", "separate"])
def test_resumed_in_a_new_process_equals_uninterrupted_bit_for_bit(checkpoint, tmp_path, critic):
    learner = PpoLearner(train_config(critic=critic), checkpoint)
    learner.warm_up_critic(trajectories(10))
    for step in range(4):
        learner.update(trajectories(8, seed=step), step)
        if step == 1:
            (tmp_path / "state").mkdir()
            learner.save_state(tmp_path / "state")
    learner.save_policy(tmp_path / "policy")
    path = [str(Path.cwd()), str(Path.cwd() / "tests")]
    code = f"import sys; sys.path[:0] = {path!r}\n{RESUMED}"
    done = subprocess.run([sys.executable, "-c", code, checkpoint, tmp_path / "state", critic], timeout=240, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    straight, resumed = (folder / "policy" / "model.safetensors" for folder in (tmp_path, tmp_path / "state"))
    assert straight.read_bytes() == resumed.read_bytes()


def test_a_saved_policy_is_there_until_the_next_one_is(checkpoint, tmp_path, monkeypatch):
    learner, kept = PpoLearner(train_config(), checkpoint), []
    learner.save_policy(tmp_path / "policy")
    delete = shutil.rmtree

    def watched(folder, **options):
        delete(folder, **options)
        kept.append((tmp_path / "policy" / "model.safetensors").is_file())

    monkeypatch.setattr(shutil, "rmtree", watched)
    learner.save_policy(tmp_path / "policy")
    assert len(kept) > 2 and all(kept)
    assert [path.name for path in tmp_path.iterdir()] == ["policy"]


def test_a_full_disk_leaves_the_saved_policy_and_checkpoint_as_they_were(checkpoint, tmp_path):
    learner, store = PpoLearner(train_config(), checkpoint), CheckpointStore(tmp_path / "checkpoints")
    learner.save_policy(tmp_path / "policy")
    store.save(1, learner.save_state, {"step": 1})
    before = (tmp_path / "policy" / "model.safetensors").read_bytes()
    learner.update(trajectories(8), 0)
    with files_at_most(2**15), pytest.raises(ApprenticeError, match=r"policy: could not be written: .*it needs 0.1 MiB, and .* are free"):
        learner.save_policy(tmp_path / "policy")
    with files_at_most(2**15), pytest.raises(ApprenticeError, match=r"00000002: could not be written: .*it needs \d.\d MiB, and .* are free"):
        store.save(2, learner.save_state, {"step": 2})
    assert (tmp_path / "policy" / "model.safetensors").read_bytes() == before and store.latest()[1] == {"step": 1}
    assert sorted(path.name for path in tmp_path.rglob("0000*")) == ["00000001"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints", "policy"]


def test_adapters_continue_bit_for_bit_and_their_checkpoint_is_small(checkpoint, tmp_path):
    def size(folder):
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

    made, policies = trajectories(8), {}
    for rank in (0, 2):
        learner = PpoLearner(train_config(advantage="rloo", lora_rank=rank), checkpoint, dtype="float32")
        learner.update(made, 0)
        learner.save_state(tmp_path / f"state{rank}")
    assert size(tmp_path / "state2") < size(tmp_path / "state0") / 3
    resumed = PpoLearner(train_config(advantage="rloo", lora_rank=2), checkpoint, dtype="float32")
    resumed.load_state(tmp_path / "state2")
    for name, each in (("whole", learner), ("resumed", resumed)):
        each.update(made, 1)
        each.save_policy(tmp_path / name)
        policies[name] = (tmp_path / name / "model.safetensors").read_bytes()
    assert policies["whole"] == policies["resumed"]


def test_a_saved_policy_is_bf16_loads_and_keeps_its_tokenizer(checkpoint, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    learner = PpoLearner(train_config(kl_coefficient=0.0), checkpoint)
    learner.update(trajectories(4), 0)
    learner.save_policy(tmp_path / "policy")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "policy")
    assert loaded.dtype == torch.bfloat16
    assert loaded.lm_head.weight.data_ptr() == loaded.model.embed_tokens.weight.data_ptr()
    live = learner.actor.module.language_model.state_dict()
    assert all(torch.equal(tensor, live[name].bfloat16()) for name, tensor in loaded.state_dict().items())
    assert AutoTokenizer.from_pretrained(tmp_path / "policy").chat_template


def test_a_saved_policy_carries_the_licence_of_its_base_model(checkpoint, tmp_path):
    source = shutil.copytree(checkpoint, tmp_path / "base")
    (source / "LICENSE.html").write_text("terms")
    (source / "NOTICE").write_text("notice")
    save_policy(load_language_model(source, torch.float32), source, tmp_path / "policy")
    assert [(tmp_path / "policy" / name).read_text() for name in ("LICENSE.html", "NOTICE")] == ["terms", "notice"]
