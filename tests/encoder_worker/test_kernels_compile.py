"""The decoder's kernels compile for Hopper with the full model's widths; no GPU is needed for that."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="the kernels need Triton, which is not installed here")

# In a process of its own, where Triton compiles instead of interpreting.
PROGRAM = """
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from encoder_worker import kernels


def build(kernel, constants, types=None, warps=4, stages=3, early=False):
    types, constants = types or {}, {**constants, "PDL": early}
    names = kernel.arg_names
    plain = lambda name: "*fp32" if name.endswith("_ptr") else "i32"
    signature = {n: "constexpr" if n in constants else types.get(n) or plain(n) for n in names}
    divisible = {(i,): [["tt.divisibility", 16]] for i, n in enumerate(names)
                 if n not in constants and n.endswith("_ptr")}
    source = ASTSource(fn=kernel, signature=signature, attrs=divisible,
                       constexprs={(names.index(n),): value for n, value in constants.items()})
    made = compile(source, target=GPUTarget("cuda", 90, 32),
                   options={"num_warps": warps, "num_stages": stages, "launch_pdl": early})
    before, *after = made.asm["ptx"].split("griddepcontrol.wait")
    assert len(after) == early and made.metadata.launch_pdl == early, kernel.__name__
    if early:  # nothing is read or written before the wait
        assert "griddepcontrol.launch_dependents" in after[0]
        assert not any(x in before for x in ("ld.global", "st.global", "cp.async", "ret;")), before
    assert made.metadata.shared <= 227 * 1024, (kernel.__name__, made.metadata.shared)


tile = {"a_desc": "tensordesc<fp16[128, 64]>", "b_desc": "tensordesc<fp16[128, 64]>", "out_ptr": "*fp16",
        "residual_ptr": "*fp16", "bad_ptr": "*i32"}
conv = dict(K_BLOCKS=4, TAPS=9, TAP_W=3, PHASES=1, GROUP=8, GROUPS=32, RESIDUAL=True, SCALED=False,
            PIXELS=False, BM=128, BN=128, BK=64, N_TILES=2)
for early in (False, True):
    build(kernels.conv_kernel, conv, tile, early=early)
    build(kernels.affine_kernel, dict(GROUP=8, GROUPS=32, BLOCK=1024), {"count": "fp32", "eps": "fp32"},
          early=early)
    build(kernels.norm_kernel, dict(CHANNELS=256, SILU=True, SCALED=False, BM=16),
          {"x_ptr": "*fp16", "out_ptr": "*fp16", "factor": "fp32", "largest": "fp32"}, early=early)
    build(kernels.stats_kernel, dict(CHANNELS=512, GROUP=16, GROUPS=32, BM=16), {"x_ptr": "*fp16"},
          early=early)
"""


@pytest.mark.slow
def test_with_and_without_early_launches(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=environment,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
