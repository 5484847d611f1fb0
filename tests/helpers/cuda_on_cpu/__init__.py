"""Kernels in CUDA C++ run on a CPU: their PTX instructions are replaced by functions of gpu.h."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from gpu_worker.fast.kernels.cuda_source import source_text

HERE = Path(__file__).parent
#: The beginning of a function that is PTX → its body here.
BODIES = {
    r"u32 pack\(": "return pair_of(low, high);",
    r"float power_of_two\(": "return exp2f(x);",
    r"u32 transposed\(": "return transposed_8x8(x);",
    r"void product\(": "u32 a[4] = {a0, a1, a2, a3}, b[2] = {b0, b1}; warp_product(d, a, b, 16);",
    r"void half_product\(": "u32 a[4] = {a0, a1, 0, 0}, b[2] = {b0, 0}; warp_product(d, a, b, 8);",
}


def on_cpu(source: str) -> str:
    """A kernel's text without PTX."""
    for beginning, text in BODIES.items():
        head = r"(__device__ __forceinline__ " + beginning + r"[^{]*)"
        made = partial(_with_body, text)
        source = re.sub(head + r"\{.*?\n?\}(?=\n)", made, source, flags=re.DOTALL)
    assert "asm" not in source
    return source


def _with_body(text: str, found: re.Match[str]) -> str:
    return f"{found[1]}{{ {text} }}"


def run(kernel: Path, folder: Path, constants: Mapping[str, int]) -> str:
    """What the program beside this file prints that runs a kernel, built in `folder`."""
    (folder / "kernel.inc").write_text(on_cpu(source_text(kernel)))
    program = folder / kernel.stem
    subprocess.run(
        ["g++", "-std=c++20", "-O1", "-march=native", "-w", "-pthread", f"-I{HERE}", f"-I{folder}",
         *(f"-D{name}={value}" for name, value in constants.items()),
         str(HERE / f"{kernel.stem}.cpp"), "-o", str(program)],
        check=True, timeout=100,
    )  # fmt: skip
    return subprocess.run([str(program)], check=True, timeout=100, capture_output=True, text=True).stdout
