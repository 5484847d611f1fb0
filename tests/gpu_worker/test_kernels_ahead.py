"""The fast path's kernels as the helper lists them: all that a worker launches, compiled without a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpu_worker.fast.ahead import SEARCHED, clips_of
from gpu_worker.fast.tiers import clips_name
from gpu_worker.quality.options import LONGER_CLIP
from protocol.model.kernels.lines import read_part
from protocol.process.settings import load_settings
from tests.helpers.compile_kernels import run_unlaunched
from tests.helpers.official_layout import write_official_layout

pytest.importorskip("triton", reason="the kernels need Triton, which is not installed here")


@pytest.mark.long  # the encoder worker's has the same way, and fewer kernels
@pytest.mark.parametrize(("devices", "capability"), [("cuda:0", "90"), ("cuda:0+cuda:1", "86")])
def test_a_worker_finds_every_kernel(tmp_path: Path, devices: str, capability: str) -> None:
    config = write_official_layout(tmp_path, width=64, height=64)
    words = ["gpu_worker.fast.ahead", capability]
    flags = ["--config", str(config), "--compile-unet", "--tier", "exact", "--clip-frames", "2"]
    flags += ["--gpu-devices", devices]
    lines = run_unlaunched(tmp_path / "cache", *words, "ahead", *flags).splitlines()
    assert lines[-2:] == [f"folder {tmp_path / 'cache'}", "end"]
    part = read_part(lines[-3])
    assert part is not None and part.name == clips_name("exact", 2)
    assert part.kernels > 20
    assert run_unlaunched(tmp_path / "cache", *words, "late", *flags) == f"kept {part.kernels}, compiled 0\n"


def test_clips_that_auto_may_serve_come_in_its_order() -> None:
    def clips(*flags: str, members: int = 1, large: bool = True) -> list[tuple[str, int]]:
        return clips_of(load_settings(list(flags), {}), 1.0, members, large=large)

    assert clips("--quality", "auto") == SEARCHED
    assert {frames for _, frames in SEARCHED} == set(LONGER_CLIP)
    assert clips("--quality", "auto", "--tier", "fast", "--clip-frames", "4") == [("fast", 4)]
    assert clips("--quality", "auto", "--clip-frames", "8") == [("exact", 8)]
    assert clips("--quality", "auto", members=2) == [("exact", 2), ("exact", 4), ("exact", 6), ("exact", 12)]
    side_by_side = ("--gpu-devices", "cuda:0,cuda:1")
    assert clips("--quality", "auto", *side_by_side) == [("fast", 12), ("exact", 12)]


def test_clips_by_flags_alone() -> None:
    def clips(*flags: str) -> list[tuple[str, int]]:
        return clips_of(load_settings(list(flags), {}), 1.0, 1, large=False)

    assert clips("--quality", "auto") == []
    assert clips("--compile-unet") == [("exact", 12)]
    assert clips("--compile-unet", "--tier", "fast", "--clip-frames", "4") == [("fast", 4)]
    assert clips("--compile-unet", "--cfg", "2.5") == []
    assert clips("--compile-unet", "--dtype", "float32") == []
    assert clips("--no-compile-unet", "--quality", "auto") == []


@pytest.mark.parametrize(
    ("size", "positions", "two"), [(80, 2304, True), (80, 576, False), (160, 2304, False)]
)
def test_larger_heads_that_cuda_takes_on_hopper(size: int, positions: int, two: bool) -> None:
    """The helper compiles what makes their blocks anew."""
    from gpu_worker.fast.ahead import BlankSpatial
    from gpu_worker.fast.cuda_kernels import CudaKernels
    from gpu_worker.fast.triton_ops import TritonOps
    from gpu_worker.fast.weights import Heads

    heads = Heads(8, size, (size, 0))
    assert TritonOps(CudaKernels(spatial=BlankSpatial())).two_sources(heads, positions) is two
    assert not TritonOps().two_sources(heads, positions)
