"""Where the mouth is, and how far it is open, measured on any picture of a known identity."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from demo.figure.face import MOUTH_X, MOUTH_Y
from demo.figure.renderer import PIVOT, Renderer
from demo.figure.state import FigureState

#: Half width and the reach above and below the mouth's middle, in units, of the box that holds every shape.
BOX_HALF_WIDTH, BOX_UP, BOX_DOWN = 30.0, 16.0, 32.0
#: The same of the aperture, where an open mouth shows its inside.
APERTURE_HALF_WIDTH, APERTURE_UP, APERTURE_DOWN = 24.0, 10.0, 25.0
#: Grid on which a mouth is measured.
ROWS, COLUMNS = 70, 64
#: Squared RGB distance at which a colour is no longer the same.
COLOR_VARIANCE = 0.012


def mouth_center(renderer: Renderer, head: Tensor) -> Tensor:
    """(B, 2) pixel position (x, y) of the mouth for head motions (B, 3)."""
    dx, dy = MOUTH_X - PIVOT[0], MOUTH_Y - PIVOT[1]
    cos, sin = torch.cos(head[:, 2]), torch.sin(head[:, 2])
    x = cos * dx - sin * dy + PIVOT[0] + head[:, 0] * renderer.view
    y = sin * dx + cos * dy + PIVOT[1] + head[:, 1] * renderer.view
    return torch.stack((x - renderer.view_x, y - renderer.view_y), dim=1) * renderer.scale


def mouth_box(renderer: Renderer, state: FigureState) -> Tensor:
    """(B, 4) int64 pixel boxes x0, y0, x1, y1 (end exclusive) around the mouth, all of one size."""
    center = mouth_center(renderer, state.head.cpu())
    width = round(2 * BOX_HALF_WIDTH * renderer.scale)
    height = round((BOX_UP + BOX_DOWN) * renderer.scale)
    x0 = (center[:, 0] - width / 2).round().long().clamp(0, renderer.size - width)
    y0 = (center[:, 1] - BOX_UP * renderer.scale).round().long().clamp(0, renderer.size - height)
    return torch.stack((x0, y0, x0 + width, y0 + height), dim=1)


def crop_mouth(pictures: Tensor, boxes: Tensor) -> Tensor:
    """(B, 3, h, w) cut-outs of pictures (B, 3, H, W) by the boxes of `mouth_box`."""
    return torch.stack(
        [picture[:, y0:y1, x0:x1] for picture, (x0, y0, x1, y1) in zip(pictures, boxes.tolist(), strict=True)]
    )


class MouthMeter:
    """Estimates the opening of mouths in drawn or generated pictures.

    Each pixel of the aperture, sampled upright in head coordinates, is softly assigned by colour to the
    mouth's inside (cavity, tongue, teeth) or to lips, line and skin. What the identity shows at rest in the
    same place counts as outside, so that dark or pale beards are not taken for a cavity or teeth. The opening
    is the inside's share of the aperture. It needs neither the mouth's true state nor a trained network, and
    a blurred mouth between open and shut reads between them.
    """

    def __init__(self, renderer: Renderer) -> None:
        self.renderer = renderer
        parts = []
        for start in range(0, len(renderer), 32):
            identity = torch.arange(start, min(start + 32, len(renderer)), device=renderer.device)
            head = torch.zeros(len(identity), 3, device=renderer.device)
            parts.append(self._patch(renderer.reference(identity), head))
        self._rest = torch.cat(parts)

    def opening(self, pictures: Tensor, identity: Tensor, head: Tensor) -> Tensor:
        """(B,) opening: about 0 shut, 0.02 to 0.04 barely open, 0.3 to 0.4 at the widest.

        Args:
            pictures: (B, 3, size, size) in 0..1.
            identity: (B,) whose pictures these are.
            head: (B, 3) the head's motion, as in `FigureState.head`.
        """
        device = self.renderer.device
        pictures, identity, head = pictures.to(device).float(), identity.to(device), head.to(device)
        patch = self._patch(pictures, head)
        look = self.renderer.look(identity)
        palette = look.palette
        inside = torch.stack((palette.cavity, palette.tongue, palette.teeth)).expand(len(patch), 3, 3)
        colors = torch.cat((inside, torch.stack((look.lip, look.line, look.skin), dim=1)), dim=1)
        distance = (patch[:, None] - colors[..., None, None]).square().sum(2)
        member = torch.softmax(-distance / COLOR_VARIANCE, dim=1)[:, :3].sum(1)
        changed = 1.0 - torch.exp(-(patch - self._rest[identity]).square().sum(1) / (2.0 * COLOR_VARIANCE))
        window = self._window(device)
        return (member * changed * window).sum((1, 2)) / window.sum()

    def _patch(self, pictures: Tensor, head: Tensor) -> Tensor:
        """(B, 3, ROWS, COLUMNS) the aperture, upright."""
        renderer = self.renderer
        device = pictures.device
        y = torch.linspace(-APERTURE_UP, APERTURE_DOWN, ROWS, device=device) + MOUTH_Y - PIVOT[1]
        x = (
            torch.linspace(-APERTURE_HALF_WIDTH, APERTURE_HALF_WIDTH, COLUMNS, device=device)
            + MOUTH_X
            - PIVOT[0]
        )
        y, x = torch.meshgrid(y, x, indexing="ij")
        cos, sin = torch.cos(head[:, 2])[:, None, None], torch.sin(head[:, 2])[:, None, None]
        px = cos * x - sin * y + PIVOT[0] - renderer.view_x + head[:, 0, None, None] * renderer.view
        py = sin * x + cos * y + PIVOT[1] - renderer.view_y + head[:, 1, None, None] * renderer.view
        grid = torch.stack((px, py), dim=-1) * (2.0 / renderer.view) - 1.0
        return F.grid_sample(pictures, grid, mode="bilinear", align_corners=False)

    @staticmethod
    def _window(device: torch.device) -> Tensor:
        """(ROWS, COLUMNS) weight 1, falling to 0 in the corners, which no mouth reaches."""
        y = torch.linspace(-1.0, 1.0, ROWS, device=device)[:, None]
        x = torch.linspace(-1.0, 1.0, COLUMNS, device=device)[None, :]
        return ((1.15 - (x**4 + y**4)) * 6.0).clamp(0.0, 1.0)
