"""The floating-point type that is chosen for a processor."""

from pathlib import Path

import pytest

from apprentice.precision import cpu_dtype


@pytest.mark.parametrize(
    ("flags", "dtype"),
    [
        ("flags\t\t: avx2 avx512f avx512_bf16", "bfloat16"),
        ("Features\t: fp asimd bf16", "bfloat16"),
        ("flags\t\t: avx2 fma", "float32"),
        ("flags\t\t: avx512f avx512bw", "float32"),
    ],
)
def test_a_processor_without_bf16_instructions_computes_in_fp32(tmp_path: Path, flags: str, dtype: str):
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{flags}\n")
    assert cpu_dtype(tmp_path / "cpuinfo") == dtype


def test_a_machine_without_cpuinfo_computes_in_fp32(tmp_path: Path):
    assert cpu_dtype(tmp_path / "absent") == "float32"
