"""Kernels in CUDA C++ run on a CPU: their PTX instructions are replaced by functions of gpu.h."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from functools import partial
from pathlib import Path

HERE = Path(__file__).parent
#: The beginning of a function that is PTX → its body here. {0} is the number of registers of its result.
BODIES = {
    r"u32 pack\(": "return pair_of(low, high);",
    r"float (?:exp2_unit|power_of_two)\(": "return exp2f(x);",
    r"void wait\(u32": "wait_at(barrier, parity);",
    r"void arrive\(u32": "arrive_at(barrier);",
    r"void (?:begin|commit)_products\(\)": "",
    r"void wait_products\(\)": "",
    r"void hold\(": "",
    r"bool any_of_two_groups\(": "return any_of_pair(pair, x);",
    r"void product_logits\(": "group_product<64, false>(d, a, b, add);",
    r"void product_output\(float \(&d\)\[(\d+)\]": "group_product<2 * {0}, true>(d, a, b, 1);",
    r"u32 transposed\(": "return transposed_8x8(x);",
    r"void product\(": "u32 a[4] = {{a0, a1, a2, a3}}, b[2] = {{b0, b1}}; warp_product(d, a, b, 16);",
    r"void half_product\(": "u32 a[4] = {{a0, a1, 0, 0}}, b[2] = {{b0, 0}}; warp_product(d, a, b, 8);",
}
#: Statements of PTX → the same here. All others order memory, which is in order anyhow.
STATEMENTS = {
    r"asm\([^;]*;\\ncvta\.to\.shared.*?\);\n": "base = SHARED_BASE;\n",
    r'asm volatile\("mbarrier\.init[^;]*;" :: "r"\((.*?)\), "r"\((.*?)\)\);': r"expect_arrivals(\1, \2);",
    r'asm volatile\("cp\.async\.cg[^"]*"\s*:: "r"\((.*?)\), "l"\((.*?)\)\s*: "memory"\);': (
        r"copy_16_bytes(\1, \2);"
    ),
    r"asm volatile\([^;]*;[^;]*\);": ";",
    r"extern __shared__[^;]*;": "",
}


def on_cpu(source: str) -> str:
    """A kernel's text without PTX."""
    for beginning, text in BODIES.items():
        head = r"(__device__ __forceinline__ " + beginning + r"[^{]*)"
        made = partial(_with_body, text)
        source = re.sub(head + r"\{.*?\n?\}(?=\n)", made, source, flags=re.DOTALL)
    for pattern, text in STATEMENTS.items():
        source = re.sub(pattern, text, source, flags=re.DOTALL)
    assert "asm" not in source
    return source


def _with_body(text: str, found: re.Match[str]) -> str:
    return f"{found[1]}{{ {text.format(*found.groups()[1:])} }}"


def run(kernel: Path, folder: Path, constants: Mapping[str, int], *words: str) -> str:
    """What the program beside this file prints that runs a kernel, built in `folder`."""
    (folder / "kernel.inc").write_text(on_cpu(kernel.read_text()))
    program = folder / kernel.stem
    subprocess.run(
        ["g++", "-std=c++20", "-O1", "-march=native", "-w", "-pthread", f"-I{HERE}", f"-I{folder}",
         *(f"-D{name}={value}" for name, value in constants.items()),
         str(HERE / f"{kernel.stem}.cpp"), "-o", str(program)],
        check=True, timeout=100,
    )  # fmt: skip
    return subprocess.run(
        [str(program), *words], check=True, timeout=100, capture_output=True, text=True
    ).stdout
