"""Two processes train as one does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from learning.toys import trajectories
from safetensors.torch import load_file
from tiny import make_tiny_checkpoint

from apprentice.learning.packing import pack, rank_share

TESTS = Path(__file__).parent.parent
SCRIPT = """
import json, sys
from pathlib import Path
from learning.toys import train_config, trajectories
from apprentice.learning.ranks import open_learner

settings, checkpoint, folder, count = json.loads(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
made = trajectories(count)
config = train_config(epochs=2, minibatches=2, warmup_steps=0, learning_rate=1e-2, advantage="gae", critic_warmup_epochs=1, **settings)
with open_learner(config, checkpoint, folder / "run", dtype="float32") as learner:
    metrics = {"warm": learner.warm_up_critic(made), "first": learner.update(made, 0)}
    learner.save_policy(folder / "first")
    learner.save_state(folder / "state")
    metrics["second"] = learner.update(made[:3], 1)
    learner.load_state(folder / "state")
    metrics["again"] = learner.update(made[:3], 1)
    learner.save_policy(folder / "policy")
(folder / "metrics.json").write_text(json.dumps(metrics))
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return make_tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


def trained(checkpoint: Path, folder: Path, count: int = 7, **settings) -> tuple[dict, dict[str, torch.Tensor]]:
    """The metrics and the weights after two updates, in a process of its own: a process joins one group of ranks
    only."""
    import json

    folder.mkdir()
    variables = {**os.environ, "PYTHONPATH": f"{TESTS}:{TESTS.parent}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SCRIPT, json.dumps(settings), str(checkpoint), str(folder), str(count)]
    finished = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=300)
    log = folder / "run" / "ranks.log"
    assert finished.returncode == 0, finished.stderr + (log.read_text() if log.exists() else "")
    return json.loads((folder / "metrics.json").read_text()), load_file(folder / "policy" / "model.safetensors")


def test_every_rank_gets_as_many_micro_batches_and_none_twice():
    batches = pack(trajectories(7), 60)
    shares = [rank_share(batches, rank, 3) for rank in range(3)]
    assert len({len(share) for share in shares}) == 1
    actions = torch.cat([batch.actions for share in shares for batch in share])
    assert sorted(actions.tolist()) == sorted(torch.cat([batch.actions for batch in batches]).tolist())
    assert rank_share([], 0, 3) == []


@pytest.fixture(scope="module")
def alone(checkpoint, tmp_path_factory):
    return trained(checkpoint, tmp_path_factory.mktemp("alone") / "one")


@pytest.mark.slow
@pytest.mark.parametrize("zero_stage", [2, 3])
def test_two_ranks_update_as_one_does(checkpoint, alone, tmp_path, zero_stage):
    one, expected = alone
    two, found = trained(checkpoint, tmp_path / "two", ranks=2, zero_stage=zero_stage)
    for part in one:
        for name, value in one[part].items():
            if name in ("approx_kl", "ratio_max"):  # measured on one micro-batch a rank
                assert 0 < two[part][name] < 2 * value, f"{part}: {name}"
            elif not name.startswith("seconds"):
                assert two[part][name] == pytest.approx(value, rel=2e-3, abs=2e-5), f"{part}: {name}"
    assert two["again"]["policy_loss"] == pytest.approx(two["second"]["policy_loss"], rel=1e-6)
    for name, weight in expected.items():
        torch.testing.assert_close(found[name].float(), weight.float(), atol=2e-2, rtol=2e-2, msg=lambda text, name=name: f"{name}: {text}")
