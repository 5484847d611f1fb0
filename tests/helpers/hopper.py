"""Compiling Triton kernels for Hopper, which needs no GPU.

Triton either interprets or compiles in a process, and the tests' own interprets: `run` starts another.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def build(
    kernel: Any,
    constants: Mapping[str, Any],
    types: Mapping[str, str] | None = None,
    warps: int = 4,
    stages: int = 3,
    early: bool = False,
    *,
    pointer: str = "*fp16",
    whole: bool = True,
) -> None:
    """Compiles; early: with programmatic dependent launch, before whose wait nothing may be read or written.

    types: of arguments that are neither `pointer` (names ending in _ptr) nor i32. whole: integers are
    multiples of 16, as pointers are.
    """
    from triton import compile
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    constants = {**constants, "PDL": early}
    names = kernel.arg_names
    plain = {n: pointer if n.endswith("_ptr") else "i32" for n in names}
    signature = {n: "constexpr" if n in constants else (types or {}).get(n, plain[n]) for n in names}
    divisible = {
        (i,): [["tt.divisibility", 16]]
        for i, n in enumerate(names)
        if n not in constants and (n.endswith("_ptr") or (whole and signature[n] != "fp32"))
    }
    source = ASTSource(
        fn=kernel,
        signature=signature,
        attrs=divisible,
        constexprs={(names.index(n),): value for n, value in constants.items()},
    )
    options = {"num_warps": warps, "num_stages": stages, "launch_pdl": early}
    made = compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    before, *after = made.asm["ptx"].split("griddepcontrol.wait")
    assert len(after) == early, kernel.__name__
    assert made.metadata.launch_pdl == early
    if early:
        assert "griddepcontrol.launch_dependents" in after[0]
        assert not any(x in before for x in ("ld.global", "st.global", "cp.async", "ret;")), before
    assert made.metadata.shared <= 227 * 1024, (kernel.__name__, made.metadata.shared)


def run(program: str, cache: Path) -> subprocess.CompletedProcess[str]:
    """A Python program that calls `build`, in a process where Triton compiles; what it compiles is kept in
    `cache`.
    """
    return subprocess.run(
        [sys.executable, "-c", program],
        env={"PATH": "/usr/bin:/bin", "TRITON_CACHE_DIR": str(cache), "HOME": str(cache)},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
