"""Chooses a device's floating-point type: bf16 if it multiplies bf16 natively, else fp32, which beats emulated bf16."""

from pathlib import Path

CPU_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
"""Flags in /proc/cpuinfo of x86 and ARM processors that have bf16 multiplication."""


def cpu_dtype(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return `bfloat16` or `float32`, whichever this machine's processor computes faster."""
    flags = cpuinfo.read_text(encoding="utf-8").split() if cpuinfo.exists() else ()
    return "float32" if CPU_FLAGS.isdisjoint(flags) else "bfloat16"


def device_dtype() -> str:
    """Return `bfloat16` if there is a GPU, else `cpu_dtype()`."""
    import torch

    return "bfloat16" if torch.cuda.is_available() else cpu_dtype()
