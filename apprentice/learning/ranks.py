"""Training with several ranks, each a process with a learner of its own.

Rank 0 also runs the simulator and broadcasts every call of the learner to the others. It starts them as
`python -m apprentice.learning.ranks`, and they end with it.
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
"""All ranks are on this machine and not reachable from others."""


@contextmanager
def open_learner(config: TrainConfig, checkpoint: Path, folder: Path, *, dtype: str | None = None) -> Iterator[Any]:
    """Opens a `PpoLearner`, or with several ranks a `Leader` with the same methods.

    Args:
        config: the `train` section, including the number of ranks.
        checkpoint: folder of the starting policy.
        folder: holds the file through which the ranks find each other, and the log of the other ranks.
        dtype: type of weights and activations, `bfloat16` or `float32`; None chooses the type that the processor
            computes in (`precision.py`).

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
        _broadcast((config.model_dump(), str(checkpoint), dtype))
        yield Leader(PpoLearner(config, checkpoint, dtype=dtype), followers, folder / LOG)
        _broadcast(None)
        for follower in followers:
            follower.wait()
    finally:
        for follower in followers:
            follower.stop()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


class Leader:
    """The learner of rank 0, whose calls run on all ranks."""

    def __init__(self, learner: Any, followers: Sequence[Child], log: Path):
        self._learner, self._followers, self._log = learner, followers, log

    def warm_up_critic(self, trajectories: Sequence[Trajectory]) -> dict[str, float]:
        """`PpoLearner.warm_up_critic`."""
        return self._on_all_ranks("warm_up_critic", list(trajectories))

    def update(self, trajectories: Sequence[Trajectory], step: int) -> dict[str, float]:
        """`PpoLearner.update`."""
        return self._on_all_ranks("update", list(trajectories), step)

    def save_policy(self, folder: Path) -> None:
        """`PpoLearner.save_policy`."""
        self._on_all_ranks("save_policy", folder)

    def publish(self, file: Path) -> None:
        """`PpoLearner.publish`."""
        self._on_all_ranks("publish", file)

    def save_state(self, folder: Path) -> None:
        """`PpoLearner.save_state`."""
        self._on_all_ranks("save_state", folder)

    def load_state(self, folder: Path) -> None:
        """`PpoLearner.load_state`."""
        self._on_all_ranks("load_state", folder)

    def _on_all_ranks(self, method: str, *arguments: Any) -> Any:
        """Calls a method on all ranks; returns the result of rank 0.

        Raises:
            InfrastructureFault: another rank has ended. The message names the log.
        """
        try:
            _broadcast((method, arguments))
            return getattr(self._learner, method)(*arguments)
        except RuntimeError as error:
            if all(follower.poll() is None for follower in self._followers):
                raise
            raise InfrastructureFault(f"another rank of the trainer has ended, see {self._log}; run again to continue from the last checkpoint") from error


def _start(rank: int, ranks: int, folder: Path, threads: int) -> Child:
    variables = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks), "OMP_NUM_THREADS": str(threads)}
    return spawn([sys.executable, "-m", "apprentice.learning.ranks", str(folder.absolute())], env=variables, log=folder / LOG)


def _join(rank: int, ranks: int, folder: Path) -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_device(rank)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    torch.distributed.init_process_group(backend, store=torch.distributed.FileStore(str(folder / STORE), ranks), rank=rank, world_size=ranks)


def _broadcast(message: Any) -> Any:
    """Sends a message from rank 0 to all ranks; returns it on every rank."""
    import torch

    box = [message]
    torch.distributed.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    return box[0]


def _follow(folder: Path) -> None:
    """Repeats the calls of rank 0 until it sends None."""
    from apprentice.learning.ppo import PpoLearner

    _join(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), folder)
    config, checkpoint, dtype = _broadcast(None)
    learner = PpoLearner(TrainConfig(**config), Path(checkpoint), dtype=dtype)
    while (call := _broadcast(None)) is not None:
        method, arguments = call
        try:
            getattr(learner, method)(*arguments)
        except ApprenticeError:
            continue  # rank 0 raises the same error and reports it


if __name__ == "__main__":
    _follow(Path(sys.argv[1]))
