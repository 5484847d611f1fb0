"""Signed distances and antialiased painting, batched in torch.

Distances are negative inside. Pixel tensors are (B, h, w). `col` reshapes parameters (B,) to meet them.
"""

from __future__ import annotations

import torch
from torch import Tensor


def col(value: Tensor) -> Tensor:
    """Reshape (B,) to (B, 1, 1), to meet pixel tensors."""
    return value[:, None, None]


def smoothstep(low: float, high: float, x: Tensor) -> Tensor:
    """Smooth step of x, from 0 at `low` to 1 at `high`."""
    t = ((x - low) / (high - low)).clamp(0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def coverage(distance: Tensor) -> Tensor:
    """Share of a pixel that lies inside, from its centre's distance in pixels."""
    return (0.5 - distance).clamp(0.0, 1.0)


def paint(canvas: Tensor, color: Tensor, alpha: Tensor) -> Tensor:
    """Lay a colour (B, 3) or (3,) with opacities `alpha` (B, h, w) over a canvas (B, 3, h, w)."""
    return torch.lerp(canvas, color.reshape(-1, 3, 1, 1).expand_as(canvas), alpha[:, None])


def tapered(
    px: Tensor, py: Tensor, ax: Tensor, ay: Tensor, bx: Tensor, by: Tensor, ra: Tensor, rb: Tensor
) -> Tensor:
    """Distance to a capsule from a to b whose radius runs from ra to rb. All arguments broadcast."""
    dx, dy = bx - ax, by - ay
    qx, qy = px - ax, py - ay
    t = ((qx * dx + qy * dy) / (dx * dx + dy * dy + 1e-9)).clamp(0.0, 1.0)
    return torch.hypot(qx - t * dx, qy - t * dy) - torch.lerp(ra, rb, t)


def superellipse(x: Tensor, y: Tensor, a: Tensor, up: Tensor, down: Tensor, n: float | Tensor) -> Tensor:
    """First-order distance to |x/a|^n + |y/b|^n = 1 with half height `up` above and `down` below the axis."""
    b = torch.where(y < 0, up, down).clamp_min(0.15)
    u, v = (x.abs() / a).clamp_min(1e-4), (y.abs() / b).clamp_min(1e-4)
    k = (u**n + v**n) ** (1.0 / n)
    gradient = torch.hypot((u / k) ** (n - 1.0) / a, (v / k) ** (n - 1.0) / b)
    return (k - 1.0) / gradient
