"""The kernels in CUDA C++: on a CPU, where PTX is replaced by functions, and what serves without them."""

from __future__ import annotations

import ctypes
import shutil
from collections.abc import Sequence
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
from gpu_worker.fast.kernels.gated_cuda import FLOAT8, CudaGated, Shape, in_lanes
from gpu_worker.fast.kernels.spatial_cuda import CudaSpatial
from gpu_worker.fast.kernels.temporal_cuda import CudaTemporal
from gpu_worker.fast.ops import TorchOps
from gpu_worker.fast.triton_ops import TritonOps
from gpu_worker.fast.weights import Linear
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
        (2304, 2304, 2304, 80, True),
        (576, 576, 576, 80, False),
    ],
)
def test_what_spatial_attention_takes(queries: int, keys: int, ref_keys: int, size: int, fits: bool) -> None:
    assert NoSpatial().fits(queries, keys, ref_keys, size, attention_split(size)) is fits


class NoGated(CudaGated):
    def __init__(self) -> None:
        self.calls = 0

    def __call__(
        self, out: Tensor, x: Tensor, weight: Tensor, bias: Tensor, scale: float = 1.0, out_scale: float = 1.0
    ) -> None:
        self.calls += 1
        raise CudaError("no such card")


@pytest.mark.slow
@pytest.mark.skipif(CUDA, reason="the kernel itself serves there")
def test_gated_product_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    """The gate takes a pass of its own, and the log says why, once."""
    broken = NoGated()
    ops = TritonOps(CudaKernels(gated=broken))
    x, layer = torch.randn(5, 32).half(), Linear(torch.randn(256, 32).half(), torch.randn(256).half())
    wanted = TorchOps().geglu(x, layer)
    for _ in range(2):
        torch.testing.assert_close(ops.geglu(x, layer), wanted, rtol=1e-2, atol=1e-2)
    assert broken.calls == 1
    assert [record.getMessage().count("no such card") for record in caplog.records] == [1]


def test_what_a_gated_product_takes() -> None:
    x, weight, bias = (torch.zeros(*shape).half() for shape in ((9, 320), (2560, 320), (2560,)))
    room, kernel = torch.zeros(9, 1600).half(), NoGated()
    assert kernel.fits(room[:, 320:], x, weight, bias)
    assert kernel.fits(room[:, 320:], x.to(FLOAT8), weight.to(FLOAT8), bias)
    assert not kernel.fits(room[:, 321:], x, weight, bias), "outputs of a lane are not together in memory"
    assert not kernel.fits(room[:, 320:], x, weight, None)
    assert not kernel.fits(room[:, 320:], x, weight, bias.float())
    assert not kernel.fits(room[:, :96], x, weight[:192], bias[:192])
    assert not kernel.fits(room[:, 320:], x[:, :312], weight[:, :312].contiguous(), bias)


@pytest.mark.parametrize("depth", [320, 640, 1280])
@pytest.mark.parametrize(("float8", "out8"), [(False, False), (True, False), (True, True)])
def test_shapes_of_gated_products(depth: int, float8: bool, out8: bool) -> None:
    """Shared memory, and a grid that has no more blocks than a card or than work."""
    shape = Shape(depth, 4 * depth, torch.float16, float8, out8)
    assert shape.shared + 1024 <= 227 * 1024
    assert shape.stages >= 5
    assert shape.resident is (depth * (1 if float8 else 2) <= 640)
    tall, wide = shape.tile
    across = -(-2 * shape.inner // wide)
    for rows in (64, 300, 110_592):
        grid = shape.grid(rows, 132)
        assert 0 < grid <= 132 and grid % (across if shape.resident else shape.cluster) == 0
        assert grid <= -(-rows // (tall * shape.cluster)) * across * shape.cluster


@pytest.mark.parametrize("each", [8, 16])
def test_weights_as_lanes_hold_their_sums(each: int) -> None:
    """Columns 8j + 2t and 8j + 2t + 1 of a product are in lane t: value and gate of one output."""
    inner = 256
    weight = torch.arange(2 * inner).float()[:, None]
    rows = in_lanes(weight, each).flatten(0, 3)[:, 0].view(-1, 4, 2)
    assert torch.equal(rows[..., 1] - rows[..., 0], torch.full(rows.shape[:2], float(inner)))
    for lane in range(4):
        of_lane = rows[:, lane, 0].view(-1, each)
        assert torch.equal(of_lane.diff(), torch.ones(len(of_lane), each - 1))
        assert of_lane[:, 0].tolist() == [float(4 * each * i + each * lane) for i in range(len(of_lane))]


def test_machine_code_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By its text and options, and made anew where the file is damaged or cannot be written."""
    compiled: list[str] = []

    def compile_one(name: str, text: bytes, options: Sequence[str]) -> bytes:
        compiled.append(name)
        return b"code " + options[-1].encode()

    def made(size: int) -> bytes:
        return cuda_source.compile_cuda(temporal_cuda.SOURCE, "sm_90", {"SIZE": size})

    monkeypatch.setattr(cuda_source, "_compile", compile_one)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "triton"))
    assert [made(size) for size in (40, 80, 40)] == [b"code -DSIZE=40", b"code -DSIZE=80", b"code -DSIZE=40"]
    assert len(compiled) == 2
    for file in (tmp_path / "triton").iterdir():
        file.write_bytes(file.read_bytes()[:-1])
    assert made(40) == made(40) == b"code -DSIZE=40"
    assert len(compiled) == 3
    monkeypatch.delenv("TRITON_CACHE_DIR")
    made(40)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(temporal_cuda.SOURCE))
    assert made(40) == b"code -DSIZE=40"
    assert len(compiled) == 5


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
    queries: int, keys: int, ref_keys: int, size: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """q, k, v, ref_k, ref_v of four items that share two references, eight heads with their spare columns."""

    def heads(items: int, length: int, parts: int, spare: float) -> Tensor:
        x = torch.randn(items, length, parts, 8, sum(attention_split(size)), device="cuda")
        x[..., size:] = 0
        x[..., size : size + 1] = spare
        return x.flatten(3).to(dtype)

    q = heads(4, queries, 1, 0)[:, :, 0] * 0.4 * (40 / size) ** 0.5
    own, ref = heads(4, keys, 2, 1), heads(2, ref_keys, 2, 1)
    return q, own[:, :, 0], own[:, :, 1], ref[:, :, 0], ref[:, :, 1]


@pytest.mark.skipif(not HOPPER, reason="needs a Hopper GPU")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("sharp", [False, True])
@pytest.mark.parametrize("size", [40, 80])
def test_spatial_on_hopper(dtype: torch.dtype, sharp: bool, size: int) -> None:
    """Beside Triton's. sharp: logits beyond what the sample leaves room for, so blocks are made anew."""
    torch.manual_seed(0)
    kernels, split = cuda_kernels.cuda_kernels(torch.device("cuda")), attention_split(size)
    assert kernels.spatial is not None
    limit = 1e-2 if dtype == torch.bfloat16 else 1e-3
    for lengths in ((512, 512, 256), (256, 64, 1024), (1024, 192, 64)):
        x = spatial_inputs(*lengths, size, dtype)
        if sharp:
            x[1].unflatten(2, (8, -1))[:, 5, :, :size] *= 40
        made, wanted = (
            two_source_attention(*x, heads=8, size=size, split=split, tile=TritonOps.spatial_tile, sampled=by)
            for by in (kernels.sampled_attention, None)
        )
        assert float((made.float() - wanted.float()).norm() / wanted.float().norm()) <= limit
        out = torch.empty_like(wanted)
        again = kernels.sampled_attention(*x, out, heads=8, size=size, split=split)
        assert again is not None
        # A sample of 64 keys has the sharp one.
        assert bool(again.any()) is (sharp and x[1].shape[1] > 64)


@pytest.mark.skipif(not HOPPER, reason="needs a Hopper GPU")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("depth", [320, 640, 1280])
def test_gated_product_on_hopper(dtype: torch.dtype, depth: int) -> None:
    """Beside float32, in rows that are strided and do not fill a tile."""
    torch.manual_seed(0)
    kernels = cuda_kernels.cuda_kernels(torch.device("cuda"))
    layer = Linear(torch.randn(8 * depth, depth) / depth**0.5, 0.1 * torch.randn(8 * depth))
    for rows in (64, 300, 5000):
        x = torch.randn(rows, depth)
        for of_input, of_output in ((dtype, dtype), (FLOAT8, dtype), (FLOAT8, FLOAT8)):
            float8, out8 = of_input == FLOAT8, of_output == FLOAT8
            scales = (50.0, 400.0) if float8 else (1.0, 1.0)
            out_scale = 20.0 if out8 else 1.0
            given = [(t * s).to(of_input) for t, s in zip((x, layer.weight), scales, strict=True)]
            bias = layer.bias.to(dtype) if layer.bias is not None else None
            assert bias is not None
            exact = Linear(given[1].float() / scales[1], bias.float())
            wanted = (TorchOps().geglu(given[0].float() / scales[0], exact) * out_scale).to(of_output)
            room = torch.zeros(rows, 5 * depth, dtype=of_output, device="cuda")
            x_there, weight, bias = (t.cuda() for t in (*given, bias))
            scale = 1 / (scales[0] * scales[1])
            assert kernels.geglu_into(room[:, depth:], x_there, weight, bias, scale, out_scale)
            made = room.float().cpu()
            assert not made[:, :depth].any()
            error = (made[:, depth:] - wanted.float()).norm() / wanted.float().norm()
            assert float(error) <= (2e-2 if out8 else 5e-3 if dtype == torch.bfloat16 else 2e-3)
