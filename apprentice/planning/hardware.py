"""Machines to plan for: data sheets of GPUs, measurements of this machine, and the efficiency that training reaches."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from apprentice.errors import ApprenticeError
from apprentice.precision import cpu_dtype

GIB = 1 << 30
MEASURED_S = 0.5
"""Duration of one measurement of this machine."""
GEMM = 2048
"""Rows and columns of the matrices whose product gives the peak FLOP/s."""
COPY_BYTES = 1 << 28
"""Bytes that are copied to measure the memory bandwidth; far more than the caches' size."""


@dataclass(frozen=True)
class Efficiency:
    """Shares of a machine's peak that a training step reaches, and times that do not depend on the peak."""

    forward: float
    """Share of the peak FLOP/s in linear layers of a forward pass, for trainer and policy server."""
    backward: float
    """Share of the peak FLOP/s in linear layers of a backward pass."""
    attention: float
    """Share of the peak FLOP/s in attention, forward and backward."""
    decode: float
    """Share of the peak FLOP/s in a decode step of the policy server."""
    memory: float
    """Share of the memory bandwidth in reading weights, keys and values, and in updating the optimizer."""
    link: float
    """Share of the bandwidth between ranks."""
    layer_exchange_s: float
    """Fixed seconds to gather or reduce one layer in ZeRO stage 3."""
    decode_step_s: float
    """Fixed seconds of a decode step: scheduling, kernel launches, and the round trip to the client."""
    decode_sequence_s: float
    """Seconds of a decode step for each sequence: sampling a token, its log-probability, and its response."""
    sync_gbs: float
    """GB/s of the transfer of weights from trainer to policy server through the machine's memory."""


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
"""Measured with SmolLM2-135M on two cores of an AMD EPYC with AVX-512 BF16.

The commands are `python -m benchmarks.scaling`, and `python -m benchmarks.grpo` for `sync_gbs`.
"""
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
"""Assumed, not measured.

Pre-training reaches 0.38 to 0.43 of an H100's peak (Grattafiori et al. 2024, table 4); packed trajectories reach less.
"""


@dataclass(frozen=True)
class Hardware:
    """The machine to plan for.

    Raises:
        ApprenticeError: a value is not above 0.
    """

    gpus: int
    """Ranks, each with its own GPU; on a CPU, processes that share the machine."""
    memory_gib: float
    """Memory of one GPU."""
    tflops: float
    """Peak of one GPU in dense bf16."""
    bandwidth_gbs: float
    """Memory bandwidth of one GPU."""
    link_gbs: float
    """Bandwidth from one GPU to the others, in one direction."""
    host_gbs: float
    """Bandwidth between one GPU and the host's memory, in one direction; it limits an offloaded optimizer."""
    efficiency: Efficiency = GPU

    def __post_init__(self) -> None:
        for name in ("gpus", "memory_gib", "tflops", "bandwidth_gbs", "link_gbs", "host_gbs"):
            if not getattr(self, name) > 0:
                raise ApprenticeError(f"must be above 0, is {getattr(self, name)}", where=f"hardware, {name}")

    def at(self, utilisation: float) -> "Hardware":
        """Return this machine with another share of the peak FLOP/s in the trainer's matrix products.

        Raises:
            ApprenticeError: `utilisation` is not above 0 and at most 1.
        """
        if not 0 < utilisation <= 1:
            raise ApprenticeError(f"must be above 0 and at most 1, is {utilisation}", where="utilisation")
        return replace(self, efficiency=replace(self.efficiency, forward=utilisation, backward=utilisation, attention=utilisation))


GPUS = {
    "h100": Hardware(1, memory_gib=80, tflops=989, bandwidth_gbs=3350, link_gbs=450, host_gbs=64),
    "h200": Hardware(1, memory_gib=141, tflops=989, bandwidth_gbs=4800, link_gbs=450, host_gbs=64),
    "a100": Hardware(1, memory_gib=80, tflops=312, bandwidth_gbs=2039, link_gbs=300, host_gbs=32),
}
"""Data sheets of NVIDIA's SXM modules (A100: 80 GB).

The data sheets add both directions: 900 and 600 GB/s of NVLink, 128 and 64 GB/s of PCIe.
"""
THIS_MACHINE = "cpu"


def hardware(name: str, gpus: int) -> Hardware:
    """Return a machine with `gpus` GPUs of a kind, or this machine's CPU, shared by `gpus` processes.

    Measuring this machine takes a second.

    Raises:
        ApprenticeError: the name is unknown.
    """
    if name == THIS_MACHINE:
        return this_machine(gpus)
    if name not in GPUS:
        raise ApprenticeError(
            f"unknown GPU {name!r}", where="gpu", todo=f"choose one of {', '.join((*GPUS, THIS_MACHINE))}, and set other values with flags such as --gpu-memory"
        )
    return replace(GPUS[name], gpus=gpus)


def this_machine(ranks: int = 1) -> Hardware:
    """Measure this machine's CPU, whose cores, memory and bandwidth `ranks` processes share."""
    memory, bandwidth = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIB, copy_bandwidth() / 1e9 / ranks
    return Hardware(ranks, memory / ranks, gemm_flops() / 1e12 / ranks, bandwidth, bandwidth, bandwidth, CPU)


def gemm_flops() -> float:
    """Measure the FLOP/s of square matrix products on the CPU, in the dtype of training."""
    import torch

    left, right = (torch.randn(GEMM, GEMM, dtype=getattr(torch, cpu_dtype())) for _ in range(2))
    return 2 * GEMM**3 * _rate(lambda: left @ right)


def copy_bandwidth() -> float:
    """Measure the bytes per second that a copy in the CPU's memory reads and writes."""
    import torch

    target, source = torch.zeros(COPY_BYTES, dtype=torch.uint8), torch.ones(COPY_BYTES, dtype=torch.uint8)
    return 2 * COPY_BYTES * _rate(lambda: target.copy_(source))


def _rate(work: Callable[[], object]) -> float:
    """Measure how often per second `work` runs."""
    work()
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < MEASURED_S:
        work()
        count += 1
    return count / (time.perf_counter() - began)
