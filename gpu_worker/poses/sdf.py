"""Antialiased pose maps from signed distances to capsules, batched, in plain torch.

Poses whose npz says `style = "sdf"` are drawn here. Training and serving both draw them here, so they see the
same pixels. Each hand is a skeleton of 20 bones in the hue order of the official drawing. The person's left
hand has paler colours, so that crossed hands stay apart. The marks (breathing, head, eyelids, gaze, brows)
follow as thick lines and discs.
"""

import colorsys
import functools

import torch
from torch import Tensor

from protocol.model.assets import HAND_BONES, MIN_POINT_SCORE

#: The points at the fingers' tips.
HAND_TIPS = (4, 8, 12, 16, 20)
#: Radius of a bone, as a fraction of the height.
BONE_RADIUS = 0.0070
#: Radius of the disc at a finger's tip, as a fraction of the height.
TIP_RADIUS = 0.0100
#: Saturation of the person's left and right hand.
_SATURATION = (0.55, 1.0)


@functools.lru_cache(maxsize=1)
def _hand_capsules() -> tuple[list[tuple[int, int]], list[tuple[float, float, float]], list[float]]:
    """Edges over the 42 points of both hands, their colours, and their radii, in drawing order."""
    edges: list[tuple[int, int]] = []
    colours: list[tuple[float, float, float]] = []
    radii: list[float] = []
    for hand, saturation in enumerate(_SATURATION):
        for number, (a, b) in enumerate(HAND_BONES):
            edges.append((21 * hand + a, 21 * hand + b))
            colours.append(colorsys.hsv_to_rgb(number / len(HAND_BONES), saturation, 1.0))
            radii.append(BONE_RADIUS)
        for tip in HAND_TIPS:
            edges.append((21 * hand + tip, 21 * hand + tip))
            colours.append((1.0, 1.0, 1.0))
            radii.append(TIP_RADIUS)
    return edges, colours, radii


def draw_pose_maps(
    hands: Tensor,
    hands_score: Tensor,
    marks: Tensor,
    marks_edges: Tensor,
    marks_color: Tensor,
    marks_radius: Tensor,
    size: int | tuple[int, int],
) -> Tensor:
    """Draws hands, then marks, on black.

    Args:
        hands: points (B, 2, 21, 2), as fractions of width and height.
        hands_score: (B, 2, 21). A point below 0.3, or not finite, is left out with its bones.
        marks: points (B, M, 2), as fractions of width and height.
        marks_edges: whole numbers (E, 2): the marks that each capsule joins.
        marks_color: (E, 3) in 0..1.
        marks_radius: (E,), as fractions of the height.
        size: side, or (height, width), in pixels.

    Returns:
        Maps (B, 3, height, width), float32 in 0..1, on the device of `hands`.

    Raises:
        ValueError: the shapes do not fit together.
    """
    height, width = (size, size) if isinstance(size, int) else size
    device, batch = hands.device, len(hands)
    if hands.shape[1:] != (2, 21, 2) or hands_score.shape != hands.shape[:-1] or marks.shape[0] != batch:
        raise ValueError(
            f"pose shapes do not fit: hands {tuple(hands.shape)}, hands_score {tuple(hands_score.shape)}, "
            f"marks {tuple(marks.shape)}; expected (B, 2, 21, 2), (B, 2, 21), (B, M, 2)"
        )
    points, seen = _pixels(hands, hands_score, marks, height, width)
    edges, colours, radii = _hand_capsules()
    edges = edges + [(42 + a, 42 + b) for a, b in marks_edges.tolist()]
    colours = colours + [tuple(colour) for colour in marks_color.tolist()]
    radii = [radius * height for radius in radii + marks_radius.tolist()]

    image = torch.zeros(batch, 3, height, width, device=device)
    ys, xs = (torch.arange(n, device=device, dtype=torch.float32) + 0.5 for n in (height, width))
    for (a, b), colour, radius in zip(edges, colours, radii, strict=True):
        start, stop = points[:, a], points[:, b]
        # Only the capsule's own rectangle is computed: most of a map is empty.
        rows, columns = _extent(start, stop, radius, height, width)
        cover = _capsule(xs[columns], ys[rows], start, stop, radius)
        cover *= (seen[:, a] & seen[:, b]).to(cover.dtype)[:, None, None]
        touched = image[:, :, rows, columns]
        touched += cover[:, None] * (touched.new_tensor(colour)[None, :, None, None] - touched)
    return image


def _pixels(
    hands: Tensor, hands_score: Tensor, marks: Tensor, height: int, width: int
) -> tuple[Tensor, Tensor]:
    """The points of hands and marks in pixels, (B, 42 + M, 2), and which of them are seen, (B, 42 + M)."""
    batch = len(hands)
    points = torch.cat([hands.reshape(batch, 42, 2), marks], dim=1).float()
    seen = torch.cat(
        [hands_score.reshape(batch, 42) >= MIN_POINT_SCORE, marks.new_ones(marks.shape[:2]) > 0], dim=1
    )
    seen &= torch.isfinite(points).all(dim=-1)
    return torch.nan_to_num(points) * points.new_tensor([width, height]), seen


def _extent(start: Tensor, stop: Tensor, radius: float, height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns that a capsule can touch. On a GPU that is all of them: reading back costs more."""
    if start.device.type != "cpu":
        return slice(0, height), slice(0, width)
    both = torch.stack([start, stop])
    low = (both.amin(dim=(0, 1)) - radius - 1).floor().long().tolist()
    high = (both.amax(dim=(0, 1)) + radius + 2).ceil().long().tolist()
    rows = slice(min(max(low[1], 0), height), min(max(high[1], 0), height))
    return rows, slice(min(max(low[0], 0), width), min(max(high[0], 0), width))


def _capsule(xs: Tensor, ys: Tensor, start: Tensor, stop: Tensor, radius: float) -> Tensor:
    """Coverage (B, rows, columns) of the capsule from pixel start to stop (B, 2), soft over one pixel."""
    px = xs[None, None, :] - start[:, 0, None, None]
    py = ys[None, :, None] - start[:, 1, None, None]
    direction = stop - start
    dx, dy = direction[:, 0, None, None], direction[:, 1, None, None]
    along = ((px * dx + py * dy) / (dx * dx + dy * dy).clamp_min(1e-6)).clamp_(0.0, 1.0)
    distance = torch.sqrt((px - along * dx).square() + (py - along * dy).square())
    return (radius + 0.5 - distance).clamp_(0.0, 1.0)
