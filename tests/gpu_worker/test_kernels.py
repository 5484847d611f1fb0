"""The Triton kernels against plain torch: by Triton's interpreter, or on a CUDA device where there is one."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

CUDA = torch.cuda.is_available()
pytest.importorskip("triton", reason="the kernels need Triton, which is not installed here")

from gpu_worker.fast.kernels import attention, group_norm, temporal  # noqa: E402
from gpu_worker.fast.kernels import layer_norm as norms  # noqa: E402
from gpu_worker.fast.kernels.gate import gate as gated  # noqa: E402
from gpu_worker.fast.kernels.merge import merge as merged  # noqa: E402
from gpu_worker.fast.ops import Image, TorchOps, positions_of_part  # noqa: E402
from gpu_worker.fast.weights import Norm  # noqa: E402

pytestmark = pytest.mark.slow

DEVICE = torch.device("cuda" if CUDA else "cpu")
DTYPE = torch.float16 if CUDA else torch.float32
LIMIT = 3e-3 if CUDA else 1e-5


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def close(made: Tensor, wanted: Tensor, limit: float = LIMIT) -> None:
    assert made.shape == wanted.shape
    assert torch.isfinite(made.float()).all()
    error = float((made.double() - wanted.double()).norm() / wanted.double().norm())
    assert error <= limit, f"relative error {error:.2e}"


def rand(*shape: int) -> Tensor:
    return torch.randn(shape).to(DEVICE, DTYPE)


def padded(x: Tensor, heads: int, width: int, last: float = 0.0) -> Tensor:
    """(N, tokens, heads · size) → heads of `width` columns, the first one too many being `last`."""
    x = x.unflatten(-1, (heads, -1))
    size = x.shape[-1]
    x = F.pad(x, (0, width - size))
    if width > size:
        x[..., size] = last
    return x.flatten(2)


@pytest.mark.parametrize(
    ("size", "split", "narrow"),
    [
        (8, (16, 0), False),
        (16, (16, 0), False),
        (40, (64, 0), False),
        (40, (64, 0), True),
        (40, (32, 16), False),
        (80, (64, 16), False),
    ],
)
@pytest.mark.parametrize("with_reference", [False, True])
@pytest.mark.parametrize("tokens", [64, 50])
def test_two_source_attention(
    size: int, split: tuple[int, int], narrow: bool, with_reference: bool, tokens: int
) -> None:
    heads, frames, clips = 2, 2, 1
    q, k, v = (rand(frames * clips, tokens, heads * size) for _ in range(3))
    ref_k, ref_v = rand(clips, 40, heads * size), rand(clips, 40, heads * size)
    keys, values = k, v
    if with_reference:
        keys, values = (
            torch.cat([own, ref.repeat_interleave(frames, 0)], 1) for own, ref in ((k, ref_k), (v, ref_v))
        )
    wide = sum(split)
    scale = 1.4426950408889634 / size**0.5
    made = attention.two_source_attention(
        padded(q * scale, heads, wide), padded(k, heads, wide), padded(v, heads, wide, 1.0),
        padded(ref_k, heads, wide) if with_reference else None,
        padded(ref_v, heads, wide, 1.0) if with_reference else None,
        heads=heads, size=size, split=split, tile=attention.AttentionTile(32, 32, 4, 2, narrow),
    )  # fmt: skip
    q, keys, values = (x.unflatten(-1, (heads, -1)).transpose(1, 2).float() for x in (q, keys, values))
    close(made.float(), F.scaled_dot_product_attention(q, keys, values).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("sharp", [False, True])
@pytest.mark.parametrize("narrow", [False, True])
def test_attention_with_a_sampled_maximum(sharp: bool, narrow: bool) -> None:
    """sharp: one key outside the sample is so near to one query that its block has to be done again."""
    heads, size, wide, tokens, scale = 2, 40, 64, 192, 1.4426950408889634 / 40**0.5
    q, k, v, ref_k, ref_v = (rand(n, tokens, heads * size) for n in (2, 2, 2, 1, 1))
    if sharp:
        k[1, 100] = 30 * q[1, 70]
    tile = attention.AttentionTile(32, 32, 4, 2, narrow, sampled=True)
    assert attention.fits_sample(tokens, tokens, tokens, size, (wide, 0), tile)
    made = attention.two_source_attention(
        padded(q * scale, heads, wide), *(padded(x, heads, wide, 1.0) for x in (k, v, ref_k, ref_v)),
        heads=heads, size=size, split=(wide, 0), tile=tile,
    )  # fmt: skip
    keys, values = (torch.cat([own, ref.expand(2, -1, -1)], 1) for own, ref in ((k, ref_k), (v, ref_v)))
    q, keys, values = (x.unflatten(-1, (heads, -1)).transpose(1, 2).float() for x in (q, keys, values))
    close(made.float(), F.scaled_dot_product_attention(q, keys, values).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("size", [8, 40])
@pytest.mark.parametrize("frames", [4, 12])
def test_temporal_attention(size: int, frames: int) -> None:
    heads, clips, positions = 2, 2, 10
    qkv = rand(clips * frames, positions, 3 * heads * size)
    made = temporal.temporal_attention(qkv, frames, heads)
    q, k, v = (
        x.float().unflatten(-1, (heads, -1)).unflatten(0, (clips, frames)).permute(0, 2, 3, 1, 4)
        for x in qkv.chunk(3, 2)
    )
    wanted = F.scaled_dot_product_attention(q, k, v).permute(0, 3, 1, 2, 4).flatten(0, 1).flatten(2)
    close(made.float(), wanted)


def test_merge() -> None:
    """Of rows that are part of wider ones, as queries, keys and values are made."""
    kv = rand(2, 4 * 6, 3 * 72)[..., 72:]
    close(merged(kv, 4, 6).float(), TorchOps().merge(kv.float(), 4, 6))


def test_gate() -> None:
    x = rand(5, 2 * 96)
    value, gate = x.float().chunk(2, 1)
    close(gated(x).float(), value * F.gelu(gate))
    room = torch.zeros(5, 40 + 96, device=DEVICE)
    gated(x, out=room[:, 40:])
    close(room[:, 40:], value * F.gelu(gate))
    assert not room[:, :40].any()


@pytest.mark.parametrize("channels", [64, 96])
@pytest.mark.parametrize("silu", [False, True])
def test_group_norm(channels: int, silu: bool) -> None:
    x, weight, bias = rand(2, 100, channels) + 1, rand(channels), rand(channels)
    shift, correction = rand(channels), rand(channels)
    sums = group_norm.channel_sums(x, shift=shift)
    made = group_norm.group_norm(
        x, None, sums, weight, bias, groups=32, eps=1e-6, silu=silu, shift=shift, correction=correction
    )
    plain = (x + shift - correction).float().transpose(1, 2)
    wanted = F.group_norm(plain, 32, weight.float(), bias.float(), 1e-6).transpose(1, 2)
    close(made.float(), F.silu(wanted) if silu else wanted)


def test_group_norm_of_two() -> None:
    x, second, weight, bias = rand(2, 70, 64), rand(2, 70, 32), rand(96), rand(96)
    sums = torch.cat([group_norm.channel_sums(x), group_norm.channel_sums(second)], 3)
    made = group_norm.group_norm(x, second, sums, weight, bias, groups=32, eps=1e-5, silu=True)
    wanted = F.group_norm(
        torch.cat([x, second], 2).float().transpose(1, 2), 32, weight.float(), bias.float(), 1e-5
    )
    close(made.float(), F.silu(wanted.transpose(1, 2)))


def test_sums_of_a_sum() -> None:
    """Also without a second summand, in place."""
    x, second, shift = rand(2, 70, 96), rand(2, 70, 96), rand(96)
    out = torch.empty_like(x)
    sums = group_norm.add_with_sums(x, second, shift, out)
    close(out, x + second + shift)
    close(sums.sum(1)[:, 0], out.float().sum(1), 1e-4)
    close(sums.sum(1)[:, 1], out.float().square().sum(1), 1e-4)
    group_norm.add_with_sums(x, None, shift, x)
    close(x + second, out)


@pytest.mark.parametrize(("positions", "parts"), [(36, 2), (35, 3), (36, 4), (4, 3), (5, 6)])
def test_group_norm_and_addition_in_parts(positions: int, parts: int) -> None:
    """As teams exchange them: the last parts may have fewer positions, or none."""
    x, weight, bias, correction = rand(3, positions, 32), rand(32), rand(32), rand(32)
    share = positions_of_part(positions, parts)
    made = [torch.full_like(rand(3, share, 32), float("nan")) for _ in range(parts)]
    sums = group_norm.channel_sums(x)
    group_norm.group_norm(
        x, None, sums, weight, bias, groups=8, eps=1e-5, silu=False, correction=correction, parts=made
    )
    norm = Norm(weight.float(), bias.float(), 1e-5, groups=8, correction=correction.float())
    wanted_parts = [torch.empty(3, share, 32, device=DEVICE) for _ in range(parts)]
    TorchOps().group_norm_parts(Image(x.float(), positions, 1), norm, wanted_parts)
    close(torch.stack(made).float(), torch.stack(wanted_parts))
    added = [rand(3, share, 32) for _ in range(parts)]
    wanted = Image(x.float(), positions, 1)
    TorchOps().add_parts(wanted, [part.float() for part in added])
    sums = group_norm.add_parts_with_sums(x, added)
    close(x.float(), wanted.data)
    close(sums[:, :, 0].sum(1), x.float().sum(1), 1e-4)
    close(sums[:, :, 1].sum(1), x.float().square().sum(1), 1e-4)


def test_layer_norm_with_positions() -> None:
    frames, tokens, width = 3, 5, 40
    x, weight, table, shift = rand(2 * frames * tokens, width), rand(width), rand(frames, width), rand(width)
    made = norms.layer_norm(x, weight, table, shift=shift, rows_per_bias=tokens)
    normal = F.layer_norm((x + shift).float(), (width,), weight.float()).view(2, frames, tokens, width)
    close(made.float(), (normal + table.float()[:, None]).view_as(x))
    room = torch.cat([x, rand(len(x), 24)], 1)
    close(norms.layer_norm(room[:, :width], weight, table, shift=shift, rows_per_bias=tokens), made)


@pytest.mark.parametrize("whole", [False, True])
def test_layer_norm_in_parts(whole: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """whole: rows without shift or positions and of a whole number of blocks."""
    frames, tokens, width = 3, 16 if whole else 7, 80
    assert norms.in_parts(width)
    assert not norms.in_parts(96)
    monkeypatch.setattr(norms, "VALUES", 512)
    x, weight, shift = rand(2 * frames * tokens, width) + 1, rand(width), rand(width)
    table = rand(width) if whole else rand(frames, width)
    room = torch.cat([x, rand(len(x), 24)], 1)  # strided rows
    norm = partial(norms.layer_norm, shift=None if whole else shift, rows_per_bias=1 if whole else tokens)
    made = norm(room[:, :width], weight, table)
    monkeypatch.setattr(norms, "in_parts", lambda width: False)
    close(made, norm(x, weight, table))


@pytest.mark.parametrize(
    ("size", "split"),
    [(8, (16, 0)), (16, (16, 0)), (32, (32, 0)), (40, (64, 0)), (80, (64, 16)), (160, (128, 32))],
)
def test_how_heads_are_stored(size: int, split: tuple[int, int]) -> None:
    assert attention.attention_split(size) == split


def test_interleave() -> None:
    x, shift = rand(2, 4 * 6, 4 * 8), rand(8)
    made, sums = group_norm.interleave_with_sums(x, 3, 5, shift)
    phases = x.view(2, 4, 6, 2, 2, 8)
    wanted = torch.empty(2, 6, 10, 8, device=DEVICE, dtype=DTYPE)
    for a in range(2):
        for b in range(2):
            wanted[:, a::2, b::2] = phases[:, a : a + 3, b : b + 5, a, b] + shift
    close(made, wanted.flatten(1, 2))
    close(sums.sum(1)[:, 0], made.float().sum(1), 1e-4)
