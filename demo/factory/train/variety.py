"""Cheap variety on the training device: colours of pictures and pace of voices that nobody has."""

from __future__ import annotations

import math

import torch
from torch import Tensor

RECOLORED = 0.4  # share of pictures, or of clips, in other colours
REPACED = 0.6  # share of windows whose voice is faster and higher, or slower and lower
SLOWEST, FASTEST = 0.85, 1.18


def color_matrices(count: int, generator: torch.Generator, share: float = RECOLORED) -> tuple[Tensor, Tensor]:
    """Matrices (count, 3, 3) and offsets (count, 3, 1) that turn hues and change saturation and light.

    `share` of them change anything.
    """
    device = generator.device

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, 1, 1, device=device, generator=generator)

    # A turn around the grey axis (Rodrigues). Grey itself stays.
    angle = uniform(-math.pi, math.pi)
    eye = torch.eye(3, device=device)
    grey = torch.full((3, 3), 1 / 3, device=device)
    cross = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]], device=device) / math.sqrt(3)
    turn = torch.cos(angle) * eye + torch.sin(angle) * cross + (1 - torch.cos(angle)) * grey
    saturation = uniform(0.5, 1.2)
    matrix = uniform(0.8, 1.1) * (grey + saturation * (turn - grey))
    changed = uniform(0.0, 1.0) < share
    offset = torch.where(changed, uniform(-0.06, 0.12), torch.zeros_like(angle)).expand(count, 3, 1)
    return torch.where(changed, matrix, eye), offset


def recolor(pictures: Tensor, matrix: Tensor, offset: Tensor) -> Tensor:
    """Pictures (N, 3, H, W) in 0..1 in the colours of (N, 3, 3) and (N, 3, 1), clamped to 0..1."""
    flat = torch.baddbmm(offset, matrix, pictures.flatten(2))
    return flat.clamp_(0.0, 1.0).view_as(pictures)


def paces(count: int, generator: torch.Generator, share: float = REPACED) -> Tensor:
    """Factors of playing speed (count,). All but a `share` of them are 1."""
    device = generator.device
    pace = SLOWEST + (FASTEST - SLOWEST) * torch.rand(count, device=device, generator=generator)
    changed = torch.rand(count, device=device, generator=generator) < share
    return torch.where(changed, pace, torch.ones_like(pace))


def read_between(stream: Tensor, position: Tensor) -> Tensor:
    """Samples, float32, of a long `stream` (n,) at fractional positions, by Catmull-Rom's cubic."""
    whole = position.floor()
    t = (position - whole).float()
    index = whole.long()
    a, b, c, d = (stream[(index + k).clamp(0, len(stream) - 1)].float() for k in (-1, 0, 1, 2))
    return b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))
