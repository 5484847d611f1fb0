"""The decoder's kernels compile for Hopper with the full model's widths; no GPU is needed for that."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.hopper import run

pytest.importorskip("triton", reason="the kernels need Triton, which is not installed here")

# In a process of its own, where Triton compiles instead of interpreting.
PROGRAM = """
from functools import partial
from encoder_worker.fast import kernels
from tests.helpers.hopper import build

build = partial(build, pointer="*fp32", whole=False)
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
    done = run(PROGRAM, tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
