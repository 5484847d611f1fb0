"""The measured samples as a table, and the threshold that parts them best."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from demo.factory.evaluate.fit.trial import Measured

#: Thresholds that are tried.
_TRIED = [number / 100 for number in range(20, 86)]


def is_second_half(row: Measured) -> bool:
    """Whether the picture is in the half on which the threshold is tried. All crops of one are together."""
    return zlib.crc32(row.name.split(" ")[0].encode()) % 2 == 1


def best_threshold(rows: Sequence[Measured]) -> float:
    """The threshold of `Fit.edges` at which fewest samples are told wrongly: the middle of several such.

    Wrong is a photograph that is not warned of, and a picture that is carried well and warned of. The share
    of each counts.
    """
    photos = [row for row in rows if row.kind == "photo"]
    good = [row for row in rows if row.carried_well]
    wrong = {t: _share(photos, t, warned=False) + _share(good, t, warned=True) for t in _TRIED}
    best = [t for t in _TRIED if wrong[t] == min(wrong.values())]
    return best[len(best) // 2]


def _share(rows: Sequence[Measured], threshold: float, *, warned: bool) -> float:
    told = [row for row in rows if (row.fit.edges < threshold) == warned]
    return len(told) / max(1, len(rows))


def as_table(rows: Sequence[Measured], threshold: float) -> str:
    """A table in Markdown: a row for each kind."""
    lines = [
        "| Pictures | n | edges kept: median | largest | carried well | of these warned of | warned of |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind in dict.fromkeys(row.kind for row in rows):
        of_kind = [row for row in rows if row.kind == kind]
        edges = sorted(row.fit.edges for row in of_kind)
        good = [row for row in of_kind if row.carried_well]
        warned_good = sum(row.fit.edges < threshold for row in good)
        warned = 100 * _share(of_kind, threshold, warned=True)
        lines.append(
            f"| {kind} | {len(of_kind)} | {edges[len(edges) // 2]:.2f} | {edges[-1]:.2f} | {len(good)}"
            f" | {warned_good} | {warned:.0f} % |"
        )
    return "\n".join(lines)
