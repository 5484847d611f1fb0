"""Attention: one entry point per use, behind a registry of backends.

Queries, keys and values are (batch, tokens, width), as the linear layers make them. Heads lie side by side in
`width`. A backend may replace any of the three entry points:

- `attend(q, k, v, heads)`: plain attention.
- `attend_reference(q, k, v, ref_k, ref_v, heads)`: keys and values are the frame's tokens followed by the
  reference's. The reference's (batch / frames, tokens, width) are shared by all frames of a clip.
- `attend_temporal(q, k, v, frames, heads)`: attention over the frames at each position.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from protocol.process.logs import first_line

logger = logging.getLogger(__name__)

#: Most sequences in one call: CUDA's fused kernels have a grid dimension of at most 65,535 blocks for them.
_MAX_SDPA_BATCH = 32768


def _split(x: Tensor, heads: int) -> Tensor:
    """(batch, tokens, width) → (batch, heads, tokens, width / heads), a view."""
    split: Tensor = x.unflatten(-1, (heads, -1))
    return split.transpose(1, 2)


def sdpa(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """torch's scaled dot product attention, (batch, tokens, width) in and out."""
    out = F.scaled_dot_product_attention(_split(q, heads), _split(k, heads), _split(v, heads))
    return out.transpose(1, 2).flatten(2)


def share_over_frames(ref: Tensor, batch: int) -> Tensor:
    """Reference keys or values (B, tokens, width) → (batch = B·frames, tokens, width), repeated per frame."""
    count, tokens, width = ref.shape
    return ref.unsqueeze(1).expand(count, batch // count, tokens, width).reshape(batch, tokens, width)


def concatenated_reference(
    q: Tensor, k: Tensor, v: Tensor, ref_k: Tensor, ref_v: Tensor, heads: int
) -> Tensor:
    """Attention over frame and reference: their tokens are concatenated for the active plain attention."""
    keys = torch.cat([k, share_over_frames(ref_k, k.shape[0])], dim=1)
    values = torch.cat([v, share_over_frames(ref_v, v.shape[0])], dim=1)
    return attend(q, keys, values, heads)


def temporal_sdpa(q: Tensor, k: Tensor, v: Tensor, frames: int, heads: int) -> Tensor:
    """Attention over frames at each position, (B·frames, positions, width) in and out."""

    def to_sequences(x: Tensor) -> Tensor:  # → (B·positions, heads, frames, head size)
        split: Tensor = x.unflatten(-1, (heads, -1)).unflatten(0, (-1, frames))
        return split.permute(0, 2, 3, 1, 4).flatten(0, 1)

    chunks = [to_sequences(x).split(_MAX_SDPA_BATCH) for x in (q, k, v)]
    made = [F.scaled_dot_product_attention(*chunk) for chunk in zip(*chunks, strict=True)]
    out = made[0] if len(made) == 1 else torch.cat(made)
    frames_first: Tensor = out.unflatten(0, (-1, q.shape[1])).permute(0, 3, 1, 2, 4)
    return frames_first.flatten(0, 1).flatten(2)


def temporal_heads_together(q: Tensor, k: Tensor, v: Tensor, frames: int, heads: int) -> Tensor:
    """`temporal_sdpa` with a position's heads in one product, in which they do not see each other.

    A product of a few frames is too small to be worth its beginning: of 4 frames and 4 heads, a product of 16
    rows is as quick as four of 4, twice over by OpenVINO (docs/lab/cpu-engines.md).
    """

    def to_rows(x: Tensor) -> Tensor:  # → (B·positions, 1, frames·heads, head size)
        split: Tensor = x.unflatten(0, (-1, frames)).transpose(1, 2).unflatten(-1, (heads, -1))
        return split.flatten(0, 1).flatten(1, 2)[:, None]

    same = torch.eye(heads, dtype=q.dtype, device=q.device)[None, :, None, :]
    unseen = (same.expand(frames, -1, frames, -1).flatten(0, 1).flatten(1, 2) - 1) * 1e4
    made = F.scaled_dot_product_attention(to_rows(q), to_rows(k), to_rows(v), attn_mask=unseen)
    by_frame = made.squeeze(1).unflatten(1, (frames, -1)).flatten(2)
    made_by_frame: Tensor = by_frame.unflatten(0, (-1, q.shape[1])).transpose(1, 2)
    return made_by_frame.flatten(0, 1)


@dataclass(frozen=True)
class Backend:
    """A set of attention functions, with a description for log and status."""

    name: str
    description: str
    attend: Callable[[Tensor, Tensor, Tensor, int], Tensor] = sdpa
    attend_reference: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, int], Tensor] = concatenated_reference
    attend_temporal: Callable[[Tensor, Tensor, Tensor, int, int], Tensor] = temporal_sdpa


SDPA = Backend("sdpa", f"torch {torch.__version__} scaled_dot_product_attention")
#: For networks that OpenVINO is to compute.
FOR_OPENVINO = Backend("openvino", "by OpenVINO", attend_temporal=temporal_heads_together)
Factory = Callable[[torch.device, torch.dtype], Backend]
_factories: dict[str, Factory] = {}
_active: Backend = SDPA


def register(name: str, factory: Factory) -> None:
    """Adds a backend. `factory(device, dtype)` returns it, or raises any exception where it does not work."""
    _factories[name] = factory


def activate(backend: Backend) -> None:
    """Makes the networks of this process use `backend` from now on."""
    global _active  # noqa: PLW0603 - one process serves one device, so one choice
    _active = backend


@contextmanager
def during(backend: Backend) -> Iterator[None]:
    """The networks of this process use `backend` meanwhile."""
    before = _active
    activate(backend)
    try:
        yield
    finally:
        activate(before)


def select(device: torch.device, dtype: torch.dtype, preferred: tuple[str, ...] = ("xformers",)) -> Backend:
    """Activates the first of `preferred` that works on `device`, else torch's attention, and logs which."""
    for name in preferred:
        try:
            backend = _factories[name](device, dtype)
            _check_numbers(backend, device, dtype)
        except Exception as error:  # foreign kernels fail in any way; torch's always work
            logger.info("attention: %s not used: %s", name, first_line(error))
            continue
        activate(backend)
        break
    else:
        activate(SDPA)
    logger.info("attention: %s", describe())
    return _active


def describe() -> str:
    """The active attention's description, for logs and status."""
    return _active.description


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Attention with the active backend, (batch, tokens, width) in and out."""
    return _active.attend(q, k, v, heads)


def attend_reference(q: Tensor, k: Tensor, v: Tensor, ref_k: Tensor, ref_v: Tensor, heads: int) -> Tensor:
    """Attention over the frame's tokens and the reference's with the active backend."""
    return _active.attend_reference(q, k, v, ref_k, ref_v, heads)


def attend_temporal(q: Tensor, k: Tensor, v: Tensor, frames: int, heads: int) -> Tensor:
    """Attention over frames with the active backend, (B·frames, positions, width) in and out."""
    return _active.attend_temporal(q, k, v, frames, heads)


def _check_numbers(backend: Backend, device: torch.device, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, n, 320, generator=generator).to(device, dtype) for n in (64, 128, 128))
    with torch.no_grad():
        error = (backend.attend(q, k, v, 8).float() - sdpa(q, k, v, 8).float()).abs().max().item()
    if not error < 0.05:
        raise RuntimeError(f"its numbers differ from torch's by {error:.2g}")


def _xformers(device: torch.device, dtype: torch.dtype) -> Backend:
    if device.type != "cuda":
        raise RuntimeError("needs a CUDA device")
    module = importlib.import_module("xformers")
    ops = importlib.import_module("xformers.ops")

    def attend_xformers(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
        q, k, v = (x.unflatten(-1, (heads, -1)) for x in (q, k, v))
        out: Tensor = ops.memory_efficient_attention(q, k, v)
        return out.flatten(2)

    description = f"xformers {module.__version__} memory_efficient_attention"
    return Backend("xformers", description, attend=attend_xformers)


register("xformers", _xformers)


class Attention(nn.Module):
    """Projections of a multi-head attention, named as in diffusers (`to_q`, `to_k`, `to_v`, `to_out.0`).

    Args:
        width: of the queries' input and of the output.
        heads: of the attention.
        context_width: of the keys' and values' input, or None for `width`.
        inner: width of queries, keys and values, or None for `width`.
    """

    def __init__(
        self, width: int, heads: int, context_width: int | None = None, inner: int | None = None
    ) -> None:
        super().__init__()
        inner = inner or width
        context_width = context_width or width
        self.heads = heads
        self.to_q = nn.Linear(width, inner, bias=False)
        self.to_k = nn.Linear(context_width, inner, bias=False)
        self.to_v = nn.Linear(context_width, inner, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(inner, width)])

    def keys_values(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Context (batch, tokens, context width) → keys and values, each (batch, tokens, inner)."""
        return self.to_k(context), self.to_v(context)

    def project_out(self, x: Tensor) -> Tensor:
        """Attended values (batch, tokens, inner) → (batch, tokens, width)."""
        out: Tensor = self.to_out[0](x)
        return out


class FeedForward(nn.Module):
    """GEGLU feed-forward of expansion 4, named as in diffusers (`net.0.proj`, `net.2`)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.ModuleList([_GEGLU(width, 4 * width), nn.Identity(), nn.Linear(4 * width, width)])

    def forward(self, x: Tensor) -> Tensor:
        """x (batch, tokens, width) → same shape."""
        out: Tensor = self.net[2](self.net[0](x))
        return out


class _GEGLU(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 2 * inner)

    def forward(self, x: Tensor) -> Tensor:
        value: Tensor
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)
