"""Several processes that train as one. Each holds a learner; what the first one is told, it tells the others, and all do it together.

The first is the process that also runs the simulator; the others are started here, end with it, and run `python -m apprentice.learning.ranks`.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from apprentice.config.schema import TrainConfig
from apprentice.errors import ApprenticeError, InfrastructureFault
from apprentice.processes.children import Child, spawn
from apprentice.records import Trajectory

STORE, LOG = "ranks.store", "ranks.log"
LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
"""All ranks are on this machine, and nobody else is to reach them."""


@contextmanager
def open_learner(config: TrainConfig, checkpoint: Path, folder: Path, *, dtype: str | None = None) -> Iterator[Any]:
    """A `PpoLearner`, or several behind one that has its methods.

    Args:
        config: the `train` section; `ranks` says how many.
        checkpoint: folder of the starting policy.
        folder: the ranks find each other through a file there, and what the others write goes into another.
        dtype: of weights and activations, `bfloat16` or `float32`; None is what the processor computes in (see `precision.py`).

    Raises:
        ApprenticeError: the folder holds no model.
    """
    from apprentice.learning.ppo import PpoLearner

    if config.ranks == 1:
        yield PpoLearner(config, checkpoint, dtype=dtype)
        return
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    (folder / STORE).unlink(missing_ok=True)
    os.environ.update(LOOPBACK)
    threads = max(1, torch.get_num_threads() // config.ranks)
    torch.set_num_threads(threads)
    followers = [_start(rank, config.ranks, folder, threads) for rank in range(1, config.ranks)]
    try:
        _join(0, config.ranks, folder)
        _tell((config.model_dump(), str(checkpoint), dtype))
        yield Leader(PpoLearner(config, checkpoint, dtype=dtype), followers, folder / LOG)
        _tell(None)
        for follower in followers:
            follower.wait()
    finally:
        for follower in followers:
            follower.stop()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


class Leader:
    """The learner of rank 0; every call is made on all ranks."""

    def __init__(self, learner: Any, followers: Sequence[Child], log: Path):
        self._learner, self._followers, self._log = learner, followers, log

    def warm_up_critic(self, trajectories: Sequence[Trajectory]) -> dict[str, float]:
        """`PpoLearner.warm_up_critic`."""
        return self._together("warm_up_critic", list(trajectories))

    def update(self, trajectories: Sequence[Trajectory], step: int) -> dict[str, float]:
        """`PpoLearner.update`."""
        return self._together("update", list(trajectories), step)

    def save_policy(self, folder: Path) -> None:
        """`PpoLearner.save_policy`."""
        self._together("save_policy", folder)

    def publish(self, file: Path) -> None:
        """`PpoLearner.publish`."""
        self._together("publish", file)

    def save_state(self, folder: Path) -> None:
        """`PpoLearner.save_state`."""
        self._together("save_state", folder)

    def load_state(self, folder: Path) -> None:
        """`PpoLearner.load_state`."""
        self._together("load_state", folder)

    def _together(self, method: str, *arguments: Any) -> Any:
        """Calls a method on all ranks; what rank 0's returns.

        Raises:
            InfrastructureFault: another rank has ended.
        """
        try:
            _tell((method, arguments))
            return getattr(self._learner, method)(*arguments)
        except RuntimeError as error:
            if all(follower.poll() is None for follower in self._followers):
                raise
            raise InfrastructureFault(f"another rank of the trainer ended, see {self._log}: run again, it continues") from error


def _start(rank: int, ranks: int, folder: Path, threads: int) -> Child:
    variables = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks), "OMP_NUM_THREADS": str(threads)}
    return spawn([sys.executable, "-m", "apprentice.learning.ranks", str(folder.absolute())], env=variables, log=folder / LOG)


def _join(rank: int, ranks: int, folder: Path) -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_device(rank)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    torch.distributed.init_process_group(backend, store=torch.distributed.FileStore(str(folder / STORE), ranks), rank=rank, world_size=ranks)


def _tell(what: Any) -> Any:
    """Sends `what` from rank 0 to all; returns it on every rank."""
    import torch

    box = [what]
    torch.distributed.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    return box[0]


def _follow(folder: Path) -> None:
    """Does what rank 0 does, until it says that it is over."""
    from apprentice.learning.ppo import PpoLearner

    _join(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), folder)
    config, checkpoint, dtype = _tell(None)
    learner = PpoLearner(TrainConfig(**config), Path(checkpoint), dtype=dtype)
    while (told := _tell(None)) is not None:
        method, arguments = told
        try:
            getattr(learner, method)(*arguments)
        except ApprenticeError:
            continue  # rank 0 has met the same, and says so


if __name__ == "__main__":
    _follow(Path(sys.argv[1]))
