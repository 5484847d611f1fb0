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
from gpu_worker.fast.kernels.cuda_source import CudaError
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
