"""Compiling Triton kernels for GPUs of several generations, which needs no GPU.

Triton either interprets or compiles in a process, and the tests' own interprets: `run` starts another.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

#: Compute capability → bytes of shared memory that one block may have (CUDA C++ Programming Guide, table
#: "Technical Specifications per Compute Capability"): A100, RTX 3090, RTX 4090, H100, RTX 5090.
SHARED_MEMORY = {80: 163 << 10, 86: 99 << 10, 89: 99 << 10, 90: 227 << 10, 120: 99 << 10}


def build(
    kernel: Any,
    constants: Mapping[str, Any],
    types: Mapping[str, str] | None = None,
    warps: int = 4,
    stages: int = 3,
    *,
    capability: int = 90,
    pointer: str = "*fp16",
    whole: bool = True,
) -> None:
    """Compiles a kernel and checks that its shared memory fits on a GPU of that compute capability.

    types: of arguments that are neither `pointer` (names ending in _ptr) nor i32. whole: integers are
    multiples of 16, as pointers are.
    """
    from triton import compile
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = kernel.arg_names
    plain = {n: pointer if n.endswith("_ptr") else "i32" for n in names}
    signature = {n: "constexpr" if n in constants else (types or {}).get(n, plain[n]) for n in names}
    divisible = {
        (i,): [["tt.divisibility", 16]]
        for i, n in enumerate(names)
        if n not in constants and (signature[n].startswith("*") or (whole and signature[n] != "fp32"))
    }
    source = ASTSource(
        fn=kernel,
        signature=signature,
        attrs=divisible,
        constexprs={(names.index(n),): value for n, value in constants.items()},
    )
    made = compile(
        source, target=GPUTarget("cuda", capability, 32), options={"num_warps": warps, "num_stages": stages}
    )
    shared = made.metadata.shared
    assert shared <= SHARED_MEMORY[capability], (kernel.__name__, capability, shared)


def run(program: str, cache: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A Python program that calls `build`, in a process where Triton compiles; what it compiles is kept in
    `cache`. words: its arguments.
    """
    return _run(cache, 110, "-c", program, *words)


def run_unlaunched(cache: Path, *words: str) -> str:
    """The output of `tests.helpers.unlaunched`, in a process where Triton compiles. words: its arguments."""
    made = _run(cache, 240, "-m", "tests.helpers.unlaunched", *words)
    assert made.returncode == 0, made.stderr[-3000:]
    return made.stdout


def _run(cache: Path, timeout: float, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        env={"PATH": os.environ["PATH"], "TRITON_CACHE_DIR": str(cache), "HOME": str(cache)},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
