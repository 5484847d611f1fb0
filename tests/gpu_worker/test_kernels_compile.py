"""Every kernel compiles with the full model's sizes for the GPUs people have; no GPU is needed for that."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.compile_kernels import SHARED_MEMORY, run

pytestmark = pytest.mark.slow

pytest.importorskip("triton", reason="the kernels need Triton, which is not installed here")

# In a process of its own, where Triton compiles instead of interpreting.
PROGRAM = """
import sys
from functools import partial
from gpu_worker.fast.kernels import attention, gate, group_norm, layer_norm, merge, temporal
from gpu_worker.fast.triton_ops import TritonOps
from tests.helpers.compile_kernels import build

capability = int(sys.argv[1])
build = partial(build, capability=capability)
sums, scale = {"sums_ptr": "*fp32"}, {"out_scale": "fp32"}
low = {**scale, "out_ptr": "*fp8e4nv"}
spatial, audio = TritonOps.spatial_tile, TritonOps.audio_tile
heads = dict(SIZE=40, A=64, B=0, HEADS=8, ONES=True, EVEN_Q=True, AGAIN=False)
again, whole = {"again_ptr": "*i32"}, dict(TWO=True, EVEN_K=True, EVEN_R=True)
tile = dict(QUERIES=spatial.queries, KEYS=spatial.keys)
options = dict(warps=spatial.warps, stages=spatial.stages)
build(attention._attention, dict(heads, QA=32, QB=16, **tile, **whole), **options)
build(attention._attention, dict(heads, QA=32, QB=16, **tile, **{**whole, "AGAIN": True}), again, **options)
build(attention._sampled_attention, dict(SIZE=40, WIDE=64, HEADS=8, SAMPLE=64, HEADROOM=4.0, QA=32, QB=16,
                                         **tile), again, **options)
build(attention._attention, dict(heads, QA=64, QB=0, QUERIES=audio.queries, KEYS=audio.keys, TWO=False,
                                 EVEN_K=False, EVEN_R=False), warps=audio.warps, stages=audio.stages)
if capability == 90:
    larger = {**heads, **whole, "SIZE": 80, "B": 16, "ONES": False, "AGAIN": True}
    build(attention._attention, dict(larger, QA=64, QB=16, **tile), again, **options)
for size, wide in ((40, 64), (160, 256)):
    build(temporal._temporal, dict(FRAMES=12, FRAMES_POW2=16, WIDTH=8 * size, SIZE=size, SIZE_POW2=wide,
                                   BLOCK=2), {"scale": "fp32"})
build(merge._merge, dict(ROWS=4, COLUMNS=512))
for out_fp8 in (False, True) if capability >= 89 else (False,):
    types = low if out_fp8 else scale
    build(gate._gate, dict(ROWS=8, COLUMNS=256, OUT_FP8=out_fp8), types)
    build(layer_norm._layer_norm, dict(BLOCK=8, WIDTH=512, SHIFT=True, OUT_FP8=out_fp8),
          {**types, "eps": "fp32"})
    for part, shift in ((64, True), (128, False), (256, True)):
        build(layer_norm._layer_norm_parts, dict(BLOCK=1024 // part, PART=part, PARTS=5, SHIFT=shift,
                                                 OUT_FP8=out_fp8), {**types, "eps": "fp32"})
for other, write, phases, parts in ((True, True, False, 0), (True, True, False, 2), (True, True, False, 6),
                                    (False, True, True, 0), (False, False, False, 0)):
    build(group_norm._channel_sums, dict(BLOCK=32, CHANNELS=64, OTHER=other, SHIFT=not parts, WRITE=write,
                                         PHASES=phases, PARTS=parts), sums)
build(group_norm._group_affine, dict(SHARES=18, SHARES_POW2=32, SIZE=30, SIZE_POW2=32, CORRECT=True),
      {**sums, "affine_ptr": "*fp32", "count": "fp32", "eps": "fp32"})
for parts in (0, 2, 6):
    build(group_norm._apply_affine, dict(BLOCK=64, CHANNELS=64, SECOND=not parts, SHIFT=not parts,
                                         SILU=not parts, PARTS=parts), {"affine_ptr": "*fp32"})
sys.stdout.write("all compiled")
"""


@pytest.mark.slow
@pytest.mark.parametrize("capability", SHARED_MEMORY)
def test_kernels_compile(tmp_path: Path, capability: int) -> None:
    made = run(PROGRAM, tmp_path, str(capability))
    assert made.stdout == "all compiled", made.stderr[-3000:]
