"""What the fast path may leave out: nothing (exact), or what costs least where errors are smallest (fast)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tier:
    """A choice of approximations; the default has none.

    merge_reference, merge_frame: at the highest resolution, the reference's or the frame's keys and values
    are merged 2×2 (keys averaged, values weighted by their number), a quarter of the keys to attend to.
    Where heads have no spare column (`kernels.attention`), nothing is merged.
    reuse_attention: steps at which the self-attention of the highest resolution is that of the step before.
    shallow: steps at which all levels below the highest `depth` are those of the step before (DeepCache, Ma
    et al. 2023, arXiv 2312.00858).
    """

    name: str = "exact"
    text: str = "exact"
    merge_reference: bool = False
    merge_frame: bool = False
    reuse_attention: frozenset[int] = frozenset()
    shallow: frozenset[int] = frozenset()
    depth: int = 1
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
