"""The supervised warm start of a tiny model."""

import pytest
from learning.toys import distill_config, trajectories
from tiny import make_tiny_checkpoint

from apprentice.learning.checkpoint import CheckpointStore
from apprentice.learning.distillation import fine_tune
from apprentice.records.events import Progress


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return make_tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


class Killed(Exception):
    """Stands for the death of the process."""


class KilledAfter(Progress):
    """Raises `Killed` once `steps` optimizer steps are done."""

    def __init__(self, path, steps):
        super().__init__(path, "distill")
        self.steps = steps

    def advance(self, phase, done, total):
        super().advance(phase, done, total)
        if done == self.steps:
            raise Killed


def test_fine_tuning_lowers_the_loss_and_continues_exactly_after_an_interruption(checkpoint, tmp_path):
    config, made = distill_config(), trajectories(8)

    def tune(name, progress):
        return fine_tune(config, checkpoint, made, tmp_path / name, CheckpointStore(tmp_path / f"{name}-store"), progress, checkpoint_every_s=0.0)

    straight = tune("straight", Progress(tmp_path / "events", "distill"))
    assert straight["loss_last"] < straight["loss_first"] - 0.3
    assert straight["steps"] == 6
    with pytest.raises(Killed):
        tune("resumed", KilledAfter(tmp_path / "events", 3))
    assert not (tmp_path / "resumed").exists()
    resumed = tune("resumed", Progress(tmp_path / "events", "distill"))
    assert resumed["loss_last"] == straight["loss_last"]
    assert (tmp_path / "resumed" / "model.safetensors").read_bytes() == (tmp_path / "straight" / "model.safetensors").read_bytes()
    assert not (tmp_path / "resumed-store").exists()
