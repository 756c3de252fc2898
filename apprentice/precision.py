"""The type that a processor computes in: bf16 where it multiplies that, else fp32, which takes a fraction of the time of emulated bf16."""

from pathlib import Path

CPU_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
"""In /proc/cpuinfo, of x86 and ARM processors that multiply bf16."""


def cpu_dtype(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """`bfloat16` or `float32`, whichever this machine's processor computes faster."""
    flags = cpuinfo.read_text(encoding="utf-8").split() if cpuinfo.exists() else ()
    return "float32" if CPU_FLAGS.isdisjoint(flags) else "bfloat16"


def device_dtype() -> str:
    """`bfloat16` on a GPU, else `cpu_dtype`."""
    import torch

    return "bfloat16" if torch.cuda.is_available() else cpu_dtype()
