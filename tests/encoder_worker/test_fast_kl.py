"""The fast KL decoder against the plain one: by Triton's interpreter, or compiled and in a graph on a GPU."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from torch import nn
from torch.nn import functional as F

from encoder_worker.decode import ClipDecoder
from encoder_worker.fast.tiles import LIGHT, SQUARE, TALL, WIDE, ConvTile, candidates, fastest
from encoder_worker.vae.decoders import KLDecoder, load_decoder
from encoder_worker.vae.doubling import DoublingConv, fold_doubling
from protocol.model.vae_folder import VaeFolder
from tests.encoder_worker.folders import make_tiny

pytestmark = pytest.mark.slow

CUDA = torch.cuda.is_available() and torch.cuda.get_device_capability() >= (9, 0)
DEVICE = torch.device("cuda" if CUDA else "cpu")
CONFIG = {
    "_class_name": "AutoencoderKL", "latent_channels": 4, "block_out_channels": [16, 32],
    "down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2,
    "norm_num_groups": 8, "layers_per_block": 0, "act_fn": "silu", "sample_size": 32,
}  # fmt: skip
FRAMES, H, W = 2, 3, 2  # the interpreter takes seconds for more


@pytest.fixture(scope="module")
def decoder() -> KLDecoder:
    torch.manual_seed(0)
    vae = AutoencoderKL.from_config(CONFIG)
    made = KLDecoder(CONFIG)
    made.decoder, made.post_quant_conv = vae.decoder, vae.post_quant_conv
    for parameter in made.parameters():
        if parameter.ndim == 1:
            parameter.data.add_(torch.randn_like(parameter) * 0.1)
    return made.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def latents() -> torch.Tensor:
    return torch.randn(FRAMES, 4, H, W, generator=torch.Generator().manual_seed(1))


def pixels_of(pictures: torch.Tensor) -> torch.Tensor:
    return (pictures * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


@torch.no_grad()
@pytest.mark.parametrize("size", [(1, 1), (4, 6), (7, 5)])
def test_doubling_and_convolving_in_one(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(5, 3, 3, padding=1)
    x = torch.randn(2, 5, *size)
    wanted = conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
    torch.testing.assert_close(DoublingConv(conv)(x), wanted, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_every_doubling_of_a_decoder_is_folded(decoder: KLDecoder, latents: torch.Tensor) -> None:
    folded = copy.deepcopy(decoder)
    assert fold_doubling(folded) == 1
    assert fold_doubling(folded) == 0
    torch.testing.assert_close(folded(latents), decoder(latents), atol=1e-4, rtol=1e-4)


@pytest.fixture(scope="module")
def fast_kl() -> ModuleType:
    pytest.importorskip("triton", reason="the kernels need Triton, which is not installed here")
    if not CUDA and os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("Triton's interpreter is not on")
    from encoder_worker.fast import kl as fast_kl

    return fast_kl


@torch.no_grad()
@pytest.mark.parametrize("cudnn", [False, True])
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1), (torch.float16, 2)])
def test_the_fast_decoder_makes_the_same_pictures(
    fast_kl: ModuleType,
    decoder: KLDecoder,
    latents: torch.Tensor,
    dtype: torch.dtype,
    limit: int,
    cudnn: bool,
) -> None:
    assert fast_kl.is_usual(decoder)
    if (dtype == torch.float32) == CUDA:
        pytest.skip("on a GPU the tensor cores round float32; elsewhere one type is enough")
    fast = fast_kl.FastKL(decoder, DEVICE, dtype, FRAMES, H, W, cudnn=cudnn, graph=CUDA)
    fast.latents.copy_(latents)
    fast.pixels.fill_(77)
    fast.run()
    wanted = pixels_of(decoder(latents))
    difference = (fast.pixels.cpu().int() - wanted.int()).abs()
    print(f"fast decoder in {dtype}: worst {difference.max()}, mean {difference.float().mean():.3f} levels")
    assert difference.max() <= limit
    assert int(fast.bad) == 0


@torch.no_grad()
@pytest.mark.parametrize("cudnn", [False, True])
def test_frames_of_several_tiles_that_no_tile_fits(
    fast_kl: ModuleType, decoder: KLDecoder, cudnn: bool
) -> None:
    """12 × 10: 143 rows a frame, doubled 525; tiles have 128 or 256."""
    latents = torch.randn(2, 4, 12, 10, generator=torch.Generator().manual_seed(2))
    fast = fast_kl.FastKL(decoder, DEVICE, torch.float16, 2, 12, 10, cudnn=cudnn, graph=CUDA)
    fast.latents.copy_(latents)
    fast.run()
    difference = (fast.pixels.cpu().int() - pixels_of(decoder(latents)).int()).abs()
    assert difference.max() <= 2


@torch.no_grad()
@pytest.mark.skipif(CUDA, reason="its tiles are for cards without the tensor copy engine")
def test_convolutions_that_threads_load(fast_kl: ModuleType, decoder: KLDecoder) -> None:
    latents = torch.randn(2, 4, 12, 10, generator=torch.Generator().manual_seed(2))
    fast = fast_kl.FastKL(decoder, DEVICE, torch.float16, 2, 12, 10, graph=False)
    fast.convolve.copies = False
    fast.latents.copy_(latents)
    fast.run()
    difference = (fast.pixels.int() - pixels_of(decoder(latents)).int()).abs()
    assert difference.max() <= 2


@torch.no_grad()
@pytest.mark.parametrize("cudnn", [False, True])
def test_values_that_are_not_finite_are_told(
    fast_kl: ModuleType, decoder: KLDecoder, latents: torch.Tensor, cudnn: bool
) -> None:
    fast = fast_kl.FastKL(decoder, DEVICE, torch.float16, 1, H, W, cudnn=cudnn, graph=CUDA)
    fast.latents.copy_(latents[:1])
    fast.latents[0, 0, 0, 0] = float("inf")
    fast.run()
    assert int(fast.bad) > 0


@torch.no_grad()
def test_a_small_decoder_by_its_own_modules(tmp_path: Path, latents: torch.Tensor) -> None:
    from encoder_worker.fast.graphed import GraphedDecoder

    make_tiny(tmp_path)
    small = load_decoder(VaeFolder.open(tmp_path))
    fast = GraphedDecoder(small, torch.device("cpu"), torch.float32, FRAMES, H, W)
    fast.latents.copy_(latents)
    fast.run()
    assert (fast.pixels.int() - pixels_of(small(latents)).int()).abs().max() <= 1
    assert int(fast.bad) == 0
    fast.latents[0, 0, 0, 0] = float("nan")
    fast.run()
    assert int(fast.bad) == 1


@pytest.mark.parametrize(
    ("capability", "made"),
    [
        ((7, 5), "graphed"),
        ((8, 0), "cudnn"),
        ((8, 6), "cudnn"),
        ((8, 9), "cudnn or cudnn, 8-bit"),
        ((9, 0), "own, 8-bit"),
        ((12, 0), "cudnn or cudnn, 8-bit"),
    ],
)
def test_a_decoder_for_each_generation_of_gpus(
    fast_kl: ModuleType,
    decoder: KLDecoder,
    monkeypatch: pytest.MonkeyPatch,
    capability: tuple[int, int],
    made: str,
) -> None:
    """Also: 8-bit convolutions only where they are, and networks of another build by their own modules."""
    from encoder_worker.fast import choice, graphed

    def kl(*_: object, eight_bit: bool, cudnn: bool) -> str:
        return f"{'cudnn' if cudnn else 'own'}{', 8-bit' * eight_bit}"

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(fast_kl, "FastKL", kl)
    monkeypatch.setattr(choice, "quicker", lambda exact, rounding: f"{exact} or {rounding}")
    monkeypatch.setattr(graphed, "GraphedDecoder", lambda *_: "graphed")
    device = torch.device("cuda:0")

    def chosen(network: KLDecoder) -> object:
        return choice.fast_decoder(network, device, torch.float16, 2, H, W, eight_bit=True)

    assert chosen(decoder) == made
    odd = copy.deepcopy(decoder)
    odd.decoder.conv_norm_out.num_groups = 4
    assert chosen(odd) == "graphed"


@pytest.mark.parametrize(
    ("exact", "rounding", "rounds"), [(1.0, 0.8, True), (1.0, 0.95, False), (1.0, 1.2, False)]
)
def test_eight_bits_have_to_gain(
    monkeypatch: pytest.MonkeyPatch, exact: float, rounding: float, rounds: bool
) -> None:
    from encoder_worker.fast import choice

    class Timed:
        device, latents = torch.device("cpu"), torch.zeros(2)

        def __init__(self, seconds: float) -> None:
            self.seconds = seconds

        def run(self) -> None: ...

    def seconds_of(run: Any, device: torch.device) -> float:
        return float(run.__self__.seconds)

    monkeypatch.setattr(choice, "seconds_of", seconds_of)
    made: list[Any] = [Timed(exact), Timed(rounding)]
    assert choice.quicker(*made) is made[rounds]


@pytest.mark.gpu
@pytest.mark.skipif(not CUDA, reason="no recent CUDA device here")
@pytest.mark.parametrize("chunk", [2, 4])
def test_clips_of_any_length_on_the_gpu(
    decoder: KLDecoder, chunk: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Whole chunks and a rest, a size nothing was made ready for, values too large for half precision."""
    on_gpu = ClipDecoder(decoder, DEVICE, "auto", chunk)
    on_gpu.warm_up(H, W)
    assert "graph" in on_gpu.describe(), caplog.text
    exact = ClipDecoder(decoder, torch.device("cpu"), "float32", chunk)
    rng = np.random.default_rng(0)
    for frames, h, w in ((5, H, W), (1, H, W), (12, H, W), (3, 4, 4)):
        latents = (rng.standard_normal((frames, 4, h, w)) * 0.18).astype(np.float16)
        made, wanted = (np.concatenate(list(d.decode(latents))) for d in (on_gpu, exact))
        assert made.shape == wanted.shape
        assert np.abs(made.astype(int) - wanted.astype(int)).max() <= 3
    large = copy.deepcopy(decoder)
    for convolution in (large.decoder.conv_in, large.decoder.conv_out):
        convolution.weight.data.mul_(3e4 if convolution is large.decoder.conv_in else 1.0)
    overflowing = ClipDecoder(large, DEVICE, "auto", chunk)
    overflowing.warm_up(H, W)
    latents = (rng.standard_normal((5, 4, H, W)) * 0.18).astype(np.float16)
    made = np.concatenate(list(overflowing.decode(latents)))
    wanted = np.concatenate(list(ClipDecoder(large, torch.device("cpu"), "float32").decode(latents)))
    assert made.shape == wanted.shape
    assert "float32, slower" in caplog.text
    assert np.abs(made.astype(int) - wanted.astype(int)).max() <= 3


def test_the_fastest_tile_that_runs_is_taken() -> None:
    tiles = candidates(512, 512, 2**30, eight_bit=False)
    assert tiles[0] == TALL
    assert LIGHT in tiles
    slow = {TALL: 0.004, WIDE: 0.002, LIGHT: 0.001}

    def run(tile: ConvTile) -> None:
        if tile not in slow:
            raise RuntimeError("out of shared memory")
        time.sleep(slow[tile])

    assert fastest(tiles, run, torch.device("cpu")) == LIGHT
    with pytest.raises(RuntimeError, match="out of shared memory"):
        fastest([SQUARE], run, torch.device("cpu"))


@pytest.mark.parametrize("eight_bit", [False, True])
def test_tiles_divide_the_widths_of_small_models(eight_bit: bool) -> None:
    for inputs, outputs in ((32, 64), (64, 32), (512, 256), (128, 16), (96, 48)):
        for tile in candidates(inputs, outputs, 10**6, eight_bit=eight_bit):
            assert outputs % tile.columns == 0
            assert inputs % tile.depth == 0
            assert 256 % tile.rows == 0


@torch.no_grad()
def test_tiles_are_chosen_once_for_a_shape(
    fast_kl: ModuleType, decoder: KLDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every candidate makes the same result; the one chosen serves from then on."""
    from encoder_worker.fast import convolutions
    from encoder_worker.fast.layout import Features, Plane, pack

    chosen: list[ConvTile] = []

    def last(
        candidates: Iterable[ConvTile], run: Callable[[ConvTile], object], device: torch.device
    ) -> ConvTile:
        tiles = list(candidates)
        for tile in tiles:
            run(tile)
            made.append(out.clone())
        chosen.append(tiles[-1])
        return tiles[-1]

    monkeypatch.setattr(convolutions, "fastest", last)
    made: list[torch.Tensor] = []
    plane, conv = Plane(1, 4, 3), nn.Conv2d(32, 32, 3, padding=1).to(DEVICE)
    x = torch.randn(plane.rows, 32, device=DEVICE).half()
    plane.clear_border(x)
    out = torch.empty_like(x)
    bad = torch.zeros(1, dtype=torch.int32, device=DEVICE)
    convolve = convolutions.Convolutions(DEVICE, 8, bad, timing=True)
    for _ in range(2):
        convolve(Features(plane, x), pack(conv, torch.float16), out, sums=True)
    assert len(chosen) == 1 and list(convolve.tiles.values()) == chosen and len(made) > 1
    wanted = conv(plane.inner(x).permute(0, 3, 1, 2).float()).permute(0, 2, 3, 1)
    for result in made:
        torch.testing.assert_close(plane.inner(result).float(), wanted, atol=5e-3, rtol=5e-3)
