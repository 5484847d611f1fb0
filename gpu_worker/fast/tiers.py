"""The approximations that the fast path may make: none (exact), or those that cost least (fast)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tier:
    """A choice of approximations. The default has none.

    merge_frame: at the highest resolution the frame's keys and values are merged 2×2 (keys averaged, values
        weighted by their number): a quarter of the keys to attend to. Nothing is merged where heads have no
        spare column (`kernels.attention`).
    reuse_attention: steps at which the self-attention of the highest resolution is that of the step before.
    shallow: steps at which all levels below the highest are those of the step before (DeepCache, Ma et al.
        2023, arXiv 2312.00858).
    fp8: linear layers in float8, see `float8`.
    """

    name: str = "exact"
    text: str = "exact"
    merge_frame: bool = False
    reuse_attention: frozenset[int] = frozenset()
    shallow: frozenset[int] = frozenset()
    fp8: bool = False


EVERY_OTHER = frozenset(range(1, 100, 2))

TIERS = {
    "exact": Tier(),
    "fast": Tier(
        "fast",
        "fast tier: float8, the frame's keys merged, every other step the highest level alone, at the second "
        "with the first's self-attention",
        merge_frame=True,
        reuse_attention=frozenset({1}),
        shallow=EVERY_OTHER,
        fp8=True,
    ),
}


def clips_name(tier: str, frames: int) -> str:
    """The name of the kernels that clips of this tier and length need, for `protocol.model.kernels`."""
    return f"{tier}, {frames} frames"
