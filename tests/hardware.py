"""What the processor of this machine can do, for tests that measure it."""

from pathlib import Path

BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
"""Flags in /proc/cpuinfo of x86 and ARM processors that multiply bf16 themselves."""
MULTIPLIES_BF16 = bool(BF16_FLAGS & set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split()))
