"""The kernels in CUDA C++: on a CPU, where PTX is replaced by functions, and what serves without them."""

from __future__ import annotations

import ctypes
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="the kernels need Triton, which is not installed here")

from gpu_worker.fast import cuda_kernels
from gpu_worker.fast.cuda_kernels import CudaKernels
from gpu_worker.fast.kernels import cuda_source, temporal_cuda
from gpu_worker.fast.kernels.attention import attention_split, two_source_attention
from gpu_worker.fast.kernels.cuda_source import CudaError
from gpu_worker.fast.kernels.spatial_cuda import CudaSpatial
from gpu_worker.fast.kernels.temporal_cuda import CudaTemporal
from gpu_worker.fast.triton_ops import TritonOps
from tests.helpers.cuda_on_cpu import run

CUDA = torch.cuda.is_available()
HOPPER = CUDA and torch.cuda.get_device_capability() == (9, 0)
on_cpu = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")

#: float16's rounding of probabilities and results.
LIMIT = 5e-4


@on_cpu
@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "frames"),
    [
        (40, 12),
        *(pytest.param(*more, marks=pytest.mark.long) for more in ((80, 6), (160, 12), (8, 4), (40, 16))),
    ],
)
def test_temporal_attention_on_a_cpu(tmp_path: Path, size: int, frames: int) -> None:
    constants = {"SIZE": size, "HEADS": 2, "FRAMES": frames, "BF16": 0}
    assert float(run(temporal_cuda.SOURCE, tmp_path, constants)) <= LIMIT


class NoTemporal(CudaTemporal):
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, qkv: Tensor, frames: int, heads: int) -> Tensor:
        self.calls += 1
        raise CudaError("no such card")


@pytest.mark.slow
@pytest.mark.skipif(CUDA, reason="the kernel itself serves there")
def test_temporal_attention_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    """Triton's kernel serves, and the log says why, once."""
    broken = NoTemporal()
    ops, qkv = TritonOps(CudaKernels(temporal=broken)), torch.randn(4, 3, 3 * 2 * 8)
    wanted = TritonOps().temporal(qkv, 4, 2)
    for _ in range(2):
        torch.testing.assert_close(ops.temporal(qkv, 4, 2), wanted)
    assert broken.calls == 1
    assert [record.getMessage().count("no such card") for record in caplog.records] == [1]


class NoSpatial(CudaSpatial):
    def __init__(self) -> None:
        self.calls = 0

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, ref_k: Tensor, ref_v: Tensor, out: Tensor, heads: int
    ) -> Tensor:
        self.calls += 1
        raise CudaError("no such card")


def test_spatial_attention_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    """It is left to Triton's kernel, and the log says why, once."""
    broken = NoSpatial()
    kernels, x = CudaKernels(spatial=broken), torch.zeros(1, 256, 64)
    for _ in range(2):
        assert kernels.sampled_attention(x, x, x, x, x, x, 1, 40, attention_split(40)) is None
    assert broken.calls == 1
    assert [record.getMessage().count("no such card") for record in caplog.records] == [1]


@pytest.mark.parametrize(
    ("queries", "keys", "ref_keys", "size", "fits"),
    [
        (9216, 9216, 9216, 40, True),
        (4096, 1024, 4096, 40, True),
        (256, 64, 64, 40, True),
        (128, 64, 64, 40, False),
        (256, 32, 64, 40, False),
        (256, 64, 0, 40, False),
        (256, 64, 64, 32, False),
    ],
)
def test_what_spatial_attention_takes(queries: int, keys: int, ref_keys: int, size: int, fits: bool) -> None:
    assert NoSpatial().fits(queries, keys, ref_keys, size, attention_split(size)) is fits


def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton's kernels serve on a Hopper card whose torch has no NVRTC, and on every other card."""

    def absent(place: str) -> None:
        raise OSError(place)

    monkeypatch.setattr(ctypes, "CDLL", absent)
    monkeypatch.setattr(torch.cuda, "device", lambda device: torch.inference_mode())
    cuda_source.nvrtc.cache_clear()
    for capability in ((9, 0), (8, 9)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, x=capability: x)
        made = cuda_kernels.cuda_kernels(torch.device("cuda"))
        assert made == CudaKernels()
    cuda_source.nvrtc.cache_clear()


@pytest.mark.skipif(not HOPPER, reason="needs a Hopper GPU")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_on_hopper(dtype: torch.dtype) -> None:
    """Beside Triton's."""
    torch.manual_seed(0)
    ours, triton = TritonOps(cuda_kernels.cuda_kernels(torch.device("cuda"))), TritonOps()
    assert ours.cuda.temporal is not None
    limit = 1e-2 if dtype == torch.bfloat16 else 1e-3
    for width in (320, 640, 1280):
        qkv = torch.randn(24, 10, 3 * width, device="cuda").to(dtype)
        made, wanted = ours.temporal(qkv, 12, 8), triton.temporal(qkv, 12, 8)
        assert float((made.float() - wanted.float()).norm() / wanted.float().norm()) <= limit


def spatial_inputs(
    queries: int, keys: int, ref_keys: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """q, k, v, ref_k, ref_v of four items that share two references, heads of 40 in 64 columns."""

    def heads(items: int, length: int, parts: int, spare: float) -> Tensor:
        x = torch.randn(items, length, parts, 8, 64, device="cuda")
        x[..., 40:] = 0
        x[..., 40] = spare
        return x.flatten(3).to(dtype)

    q = heads(4, queries, 1, 0)[:, :, 0] * 0.4
    own, ref = heads(4, keys, 2, 1), heads(2, ref_keys, 2, 1)
    return q, own[:, :, 0], own[:, :, 1], ref[:, :, 0], ref[:, :, 1]


@pytest.mark.skipif(not HOPPER, reason="needs a Hopper GPU")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("sharp", [False, True])
def test_spatial_on_hopper(dtype: torch.dtype, sharp: bool) -> None:
    """Beside Triton's. sharp: logits beyond what the sample leaves room for, so blocks are made anew."""
    torch.manual_seed(0)
    kernels = cuda_kernels.cuda_kernels(torch.device("cuda"))
    assert kernels.spatial is not None
    limit = 1e-2 if dtype == torch.bfloat16 else 1e-3
    for lengths in ((512, 512, 256), (256, 64, 1024), (1024, 192, 64)):
        x = spatial_inputs(*lengths, dtype)
        if sharp:
            x[1].unflatten(2, (8, 64))[:, 5, :, :40] *= 40
        made, wanted = (
            two_source_attention(*x, heads=8, size=40, split=(64, 0), tile=TritonOps.spatial_tile, sampled=by)
            for by in (kernels.sampled_attention, None)
        )
        assert float((made.float() - wanted.float()).norm() / wanted.float().norm()) <= limit
        out = torch.empty_like(wanted)
        again = kernels.sampled_attention(*x, out, heads=8, size=40, split=(64, 0))
        assert again is not None
        # A sample of 64 keys has the sharp one.
        assert bool(again.any()) is (sharp and x[1].shape[1] > 64)
