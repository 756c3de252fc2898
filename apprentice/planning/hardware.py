"""Machines to plan for: published figures of GPUs, measured ones of this machine, and the share of both that is reached."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from apprentice.errors import ApprenticeError
from apprentice.precision import cpu_dtype

GIB = 1 << 30
MEASURED_S = 0.5
"""How long a figure of this machine is measured."""
GEMM = 2048
"""Rows and columns of the matrices whose product is taken as the peak."""
COPIED = 1 << 28
"""Bytes that are copied to measure the memory, far more than caches hold."""


@dataclass(frozen=True)
class Efficiency:
    """Shares of a machine's figures that a training step reaches, and what it takes whatever the machine."""

    forward: float
    """Of the peak FLOP/s: linear layers of a forward pass, of trainer and policy server."""
    backward: float
    """Of the peak FLOP/s: linear layers of a backward pass."""
    attention: float
    """Of the peak FLOP/s: attention, forward and backward."""
    decode: float
    """Of the peak FLOP/s: a decode step of the policy server."""
    memory: float
    """Of the memory's bandwidth: weights, keys and values read by a decode step; gradients and optimizer state."""
    link: float
    """Of the bandwidth between ranks."""
    layer_exchange_s: float
    """Fixed seconds of gathering or reducing one layer under ZeRO 3."""
    decode_step_s: float
    """Fixed seconds of a decode step: scheduling, kernel launches, the way to the client and back."""
    decode_sequence_s: float
    """Seconds a decode step for each sequence in it: drawing a token, its log-probability, its answer."""
    sync_gbs: float
    """GB/s at which weights go from the trainer to the policy server, through the machine's memory."""


CPU = Efficiency(
    forward=0.7,
    backward=0.55,
    attention=0.5,
    decode=0.8,
    memory=0.5,
    link=0.05,
    layer_exchange_s=0.025,
    decode_step_s=0.018,
    decode_sequence_s=0.0002,
    sync_gbs=0.8,
)
"""Measured with SmolLM2-135M on two cores of an AMD EPYC with AVX-512 BF16: `python -m benchmarks.scaling`, `sync_gbs` with `benchmarks.grpo`."""
GPU = Efficiency(
    forward=0.3,
    backward=0.3,
    attention=0.3,
    decode=0.3,
    memory=0.6,
    link=0.7,
    layer_exchange_s=1e-4,
    decode_step_s=0.005,
    decode_sequence_s=2e-5,
    sync_gbs=3.0,
)
"""Assumed, not measured: 0.38 to 0.43 of an H100's peak is what pre-training reaches (Grattafiori et al. 2024, table 4), packed trajectories less."""


@dataclass(frozen=True)
class Hardware:
    """The machine that is asked about.

    Raises:
        ApprenticeError: a figure is not above 0.
    """

    gpus: int
    """Ranks, each with a GPU of its own; on a CPU, processes that share the machine."""
    memory_gib: float
    """Of one GPU."""
    tflops: float
    """Of one GPU, dense bf16."""
    bandwidth_gbs: float
    """Of one GPU's memory."""
    link_gbs: float
    """From one GPU to the others, one direction."""
    host_gbs: float
    """Between one GPU and the machine's memory, one direction; an optimizer that is offloaded works at this rate."""
    efficiency: Efficiency = GPU

    def __post_init__(self) -> None:
        for name in ("gpus", "memory_gib", "tflops", "bandwidth_gbs", "link_gbs", "host_gbs"):
            if not getattr(self, name) > 0:
                raise ApprenticeError(f"must be above 0, is {getattr(self, name)}", where=f"hardware, {name}")

    def at(self, utilisation: float) -> "Hardware":
        """The same machine, with another share of the peak FLOP/s in all matrix products of the trainer.

        Raises:
            ApprenticeError: it is no share.
        """
        if not 0 < utilisation <= 1:
            raise ApprenticeError(f"must be above 0 and at most 1, is {utilisation}", where="utilisation")
        return replace(self, efficiency=replace(self.efficiency, forward=utilisation, backward=utilisation, attention=utilisation))


GPUS = {
    "h100": Hardware(1, memory_gib=80, tflops=989, bandwidth_gbs=3350, link_gbs=450, host_gbs=64),
    "h200": Hardware(1, memory_gib=141, tflops=989, bandwidth_gbs=4800, link_gbs=450, host_gbs=64),
    "a100": Hardware(1, memory_gib=80, tflops=312, bandwidth_gbs=2039, link_gbs=300, host_gbs=32),
}
"""NVIDIA's data sheets of the SXM modules (A100: 80 GB). NVLink's 900 and 600 GB/s and PCIe's 128 and 64 are of both directions together."""
THIS_MACHINE = "cpu"


def hardware(name: str, gpus: int) -> Hardware:
    """`gpus` GPUs of a kind, or this machine's CPU shared by as many processes, which takes a second to measure.

    Raises:
        ApprenticeError: nothing is known of the name.
    """
    if name == THIS_MACHINE:
        return this_machine(gpus)
    if name not in GPUS:
        raise ApprenticeError(
            f"nothing is known of {name!r}", where="gpu", todo=f"name one of {', '.join((*GPUS, THIS_MACHINE))}, and its own figures beside it"
        )
    return replace(GPUS[name], gpus=gpus)


def this_machine(ranks: int = 1) -> Hardware:
    """This machine's CPU, whose cores, memory and bandwidth `ranks` processes share; they reach each other through the memory."""
    memory, bandwidth = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIB, copied_bytes() / 1e9 / ranks
    return Hardware(ranks, memory / ranks, gemm_flops() / 1e12 / ranks, bandwidth, bandwidth, bandwidth, CPU)


def gemm_flops() -> float:
    """FLOP/s of square matrix products on the CPU, in the type that it trains in."""
    import torch

    left, right = (torch.randn(GEMM, GEMM, dtype=getattr(torch, cpu_dtype())) for _ in range(2))
    return 2 * GEMM**3 * _a_second(lambda: left @ right)


def copied_bytes() -> float:
    """Bytes a second read and written by a copy within the CPU's memory."""
    import torch

    there, here = torch.zeros(COPIED, dtype=torch.uint8), torch.ones(COPIED, dtype=torch.uint8)
    return 2 * COPIED * _a_second(lambda: there.copy_(here))


def _a_second(work: Callable[[], object]) -> float:
    """How often `work` is done in a second."""
    work()
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < MEASURED_S:
        work()
        count += 1
    return count / (time.perf_counter() - began)
