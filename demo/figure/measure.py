"""Where the mouth is, and how far it is open, measured on any picture of a known identity."""

from __future__ import annotations

import torch
from torch import Tensor

from demo.figure.face import CAVITY, MOUTH_X, MOUTH_Y, TEETH, TONGUE
from demo.figure.renderer import PIVOT, Renderer
from demo.figure.state import FigureState

#: Half width and the reach above and below the mouth's middle, in units, of the box that holds every shape.
BOX_HALF_WIDTH, BOX_UP, BOX_DOWN = 30.0, 16.0, 32.0
#: The same of the aperture, where an open mouth shows its inside.
APERTURE_HALF_WIDTH, APERTURE_UP, APERTURE_DOWN = 24.0, 10.0, 25.0
#: Grid on which a mouth is measured.
ROWS, COLUMNS = 70, 64


def mouth_center(renderer: Renderer, head: Tensor) -> Tensor:
    """(B, 2) pixel position (x, y) of the mouth for head motions (B, 3)."""
    dx, dy = MOUTH_X - PIVOT[0], MOUTH_Y - PIVOT[1]
    cos, sin = torch.cos(head[:, 2]), torch.sin(head[:, 2])
    x = cos * dx - sin * dy + PIVOT[0] + head[:, 0] * renderer.view
    y = sin * dx + cos * dy + PIVOT[1] + head[:, 1] * renderer.view
    return torch.stack((x - renderer.view_x, y - renderer.view_y), dim=1) * renderer.scale


def mouth_box(renderer: Renderer, state: FigureState) -> Tensor:
    """(B, 4) int64 pixel boxes x0, y0, x1, y1 (end exclusive) around the mouth; all of one size, inside the picture."""
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

    Each pixel of the aperture, sampled upright in head coordinates, is softly assigned to the mouth's inside
    (cavity, tongue, teeth) or to lips, line, skin and beard by colour; the opening is the inside's area less
    that of the same identity at rest, over the aperture's area. It needs neither the mouth's true state nor a
    trained network; a blurred mouth between open and shut reads between them.
    """

    def __init__(self, renderer: Renderer) -> None:
        self.renderer = renderer
        rest = FigureState.neutral(len(renderer), renderer.device)
        identity = torch.arange(len(renderer), device=renderer.device)
        self._rest: list[Tensor] = []
        for start in range(0, len(renderer), 64):
            part = slice(start, start + 64)
            self._rest.append(self._patch(renderer.render(identity[part], rest[part]), rest.head[part]))
        self.rest = torch.cat(self._rest)
        self.baseline = self._area(self.rest, identity)

    def opening(self, pictures: Tensor, identity: Tensor, head: Tensor) -> Tensor:
        """(B,) opening, 0 shut; about 0.5 at the widest.

        Args:
            pictures: (B, 3, size, size) in 0..1.
            identity: (B,) whose pictures these are.
            head: (B, 3) the head's motion, as in `FigureState.head`.
        """
        identity = identity.to(pictures.device)
        patch = self._patch(pictures, head.to(pictures.device))
        return self._area(patch, identity) - self.baseline.to(pictures.device)[identity]

    def _patch(self, pictures: Tensor, head: Tensor) -> Tensor:
        """(B, 3, ROWS, COLUMNS) the aperture, upright."""
        renderer = self.renderer
        device = pictures.device
        y = torch.linspace(-APERTURE_UP, APERTURE_DOWN, ROWS, device=device) + MOUTH_Y - PIVOT[1]
        x = torch.linspace(-APERTURE_HALF_WIDTH, APERTURE_HALF_WIDTH, COLUMNS, device=device) + MOUTH_X - PIVOT[0]
        y, x = torch.meshgrid(y, x, indexing="ij")
        cos, sin = torch.cos(head[:, 2])[:, None, None], torch.sin(head[:, 2])[:, None, None]
        px = cos * x - sin * y + PIVOT[0] - renderer.view_x + head[:, 0, None, None] * renderer.view
        py = sin * x + cos * y + PIVOT[1] - renderer.view_y + head[:, 1, None, None] * renderer.view
        grid = torch.stack((px, py), dim=-1) * (2.0 / renderer.view) - 1.0
        return torch.nn.functional.grid_sample(pictures, grid, mode="bilinear", align_corners=False)

    def _area(self, patch: Tensor, identity: Tensor) -> Tensor:
        look = self.renderer.look(identity.to(self.renderer.device))
        device = patch.device
        inside = torch.tensor([CAVITY, TONGUE, TEETH], device=device).expand(len(patch), 3, 3)
        outside = torch.stack((look.lip, look.line, look.skin), dim=1).to(device)
        # Dark or pale beards look like a cavity or teeth: what the identity shows at rest counts as outside.
        rest = self.rest.to(device)[identity] if hasattr(self, "rest") else patch
        still = (patch - rest).square().sum(1)
        colors = torch.cat((inside, outside), dim=1)
        distance = (patch[:, None] - colors[..., None, None]).square().sum(2)
        member = torch.softmax(-distance / 0.012, dim=1)[:, :3].sum(1)
        member = member * (1.0 - torch.exp(-still / 0.02)) if hasattr(self, "rest") else member * 0.0
        y = torch.linspace(-1.0, 1.0, ROWS, device=device)[:, None]
        x = torch.linspace(-1.0, 1.0, COLUMNS, device=device)[None, :]
        window = ((1.15 - (x**4 + y**4)) * 6.0).clamp(0.0, 1.0)
        return (member * window).sum((1, 2)) / window.sum()
