"""Every kernel compiles for Hopper with the sizes that the full model has; no GPU is needed for that."""

from __future__ import annotations

import pytest

from tests.helpers.hopper import run

pytest.importorskip("triton", reason="the kernels need Triton, which is not installed here")

# In a process of its own, where Triton compiles instead of interpreting.
PROGRAM = """
import sys
from gpu_worker.fast.kernels import attention, geglu, norms, temporal, whole_norms
from tests.helpers.hopper import build

sums, scale = {"sums_ptr": "*fp32"}, {"out_scale": "fp32"}
low = {**scale, "out_ptr": "*fp8e4nv"}
heads = dict(SIZE=40, QA=64, QB=0, A=64, B=0, QUERIES=128, KEYS=64, HEADS=8, ONES=True, EVEN_Q=True,
             AGAIN=False)
again = {"again_ptr": "*i32"}
build(attention._attention, dict(heads, TWO=True, EVEN_K=True, EVEN_R=True), warps=8)
build(attention._attention, dict(heads, TWO=True, EVEN_K=True, EVEN_R=True, AGAIN=True), again, warps=8)
sampled = dict(SIZE=40, WIDE=64, QUERIES=128, KEYS=64, HEADS=8, SAMPLE=64, HEADROOM=4.0)
build(attention._sampled_attention, dict(sampled, QA=64, QB=0), again, warps=8)
build(attention._sampled_attention, dict(sampled, QA=32, QB=16), again, warps=8)
build(attention._attention, dict(heads, QA=32, QB=16, TWO=True, EVEN_K=True, EVEN_R=True), warps=8)
build(attention._attention, dict(heads, TWO=False, EVEN_K=False, EVEN_R=False), stages=1)
for size, wide in ((40, 64), (160, 256)):
    build(temporal._temporal_dot, dict(FRAMES=12, FRAMES_POW2=16, WIDTH=8 * size, SIZE=size, SIZE_POW2=wide,
                                       BLOCK=2), {"scale": "fp32"})
build(geglu._gate, dict(ROWS=8, COLUMNS=256, OUT_FP8=False), scale)
build(geglu._gate, dict(ROWS=8, COLUMNS=256, OUT_FP8=True), low)
build(norms._layer_norm, dict(BLOCK=8, WIDTH=512, SHIFT=True, OUT_FP8=False), {**scale, "eps": "fp32"})
build(norms._layer_norm, dict(BLOCK=2, WIDTH=2048, SHIFT=True, OUT_FP8=True), {**low, "eps": "fp32"})
for other, write, phases in ((True, True, False), (False, True, True), (False, False, False)):
    build(norms._channel_sums, dict(BLOCK=32, CHANNELS=64, OTHER=other, SHIFT=True, WRITE=write,
                                    PHASES=phases), sums)
build(norms._group_affine, dict(SHARES=18, SHARES_POW2=32, SIZE=30, SIZE_POW2=32, CORRECT=True),
      {**sums, "affine_ptr": "*fp32", "count": "fp32", "eps": "fp32"})
build(norms._apply_affine, dict(BLOCK=64, CHANNELS=64, SECOND=True, SHIFT=True, SILU=True),
      {"affine_ptr": "*fp32"})
early = dict(early=True)
build(attention._sampled_attention, dict(sampled, QA=32, QB=16), again, warps=8, **early)
build(attention._attention, dict(heads, TWO=True, EVEN_K=True, EVEN_R=True, AGAIN=True), again, warps=8,
      **early)
build(attention._attention, dict(heads, TWO=False, EVEN_K=False, EVEN_R=False), stages=1, **early)
build(temporal._temporal_dot, dict(FRAMES=12, FRAMES_POW2=16, WIDTH=320, SIZE=40, SIZE_POW2=64, BLOCK=2),
      {"scale": "fp32"}, **early)
build(geglu._gate, dict(ROWS=8, COLUMNS=256, OUT_FP8=False), scale, **early)
build(norms._layer_norm, dict(BLOCK=8, WIDTH=512, SHIFT=True, OUT_FP8=False), {**scale, "eps": "fp32"},
      **early)
build(norms._channel_sums, dict(BLOCK=32, CHANNELS=64, OTHER=True, SHIFT=True, WRITE=True, PHASES=False),
      sums, **early)
build(norms._group_affine, dict(SHARES=18, SHARES_POW2=32, SIZE=30, SIZE_POW2=32, CORRECT=True),
      {**sums, "affine_ptr": "*fp32", "count": "fp32", "eps": "fp32"}, **early)
build(norms._apply_affine, dict(BLOCK=64, CHANNELS=64, SECOND=True, SHIFT=True, SILU=True),
      {"affine_ptr": "*fp32"}, **early)
build(whole_norms._layer_norm_parts, dict(BLOCK=16, PART=64, PARTS=5, SHIFT=True, OUT_FP8=False),
      {**scale, "eps": "fp32"}, **early)
build(whole_norms._group_norm_whole, dict(POSITIONS_POW2=256, SIZE=40, SIZE_POW2=64, SECOND=False, SHIFT=True,
                                          CORRECT=True, SILU=True), {"eps": "fp32"}, warps=8, **early)
for part, shift in ((64, True), (128, False), (256, True)):
    build(whole_norms._layer_norm_parts, dict(BLOCK=1024 // part, PART=part, PARTS=5, SHIFT=shift,
                                              OUT_FP8=False), {**scale, "eps": "fp32"})
for positions, size, second, warps in ((1024, 20, False, 16), (256, 60, True, 8), (64, 80, True, 4)):
    build(whole_norms._group_norm_whole, dict(POSITIONS_POW2=positions, SIZE=size, SECOND=second, SHIFT=True,
                                              SIZE_POW2=32 if size < 32 else 64 if size < 64 else 128,
                                              CORRECT=True, SILU=True), {"eps": "fp32"}, warps=warps)
sys.stdout.write("all compiled")
"""


@pytest.mark.slow
def test_kernels_compile_for_hopper(tmp_path) -> None:  # type: ignore[no-untyped-def]
    made = run(PROGRAM, tmp_path)
    assert made.stdout == "all compiled", made.stderr[-3000:]
