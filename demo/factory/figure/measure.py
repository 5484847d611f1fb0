"""Place and opening of the mouth, measured on any picture of a known identity."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from demo.factory.figure.face import MOUTH_X, MOUTH_Y, mouth_shape
from demo.factory.figure.renderer import PIVOT, Renderer
from demo.factory.figure.state import FigureState
from demo.factory.motion.visemes import CHANNELS, blended

#: Half width and the reach above and below the mouth's middle, in units, of the box that holds every shape.
BOX_HALF_WIDTH, BOX_UP, BOX_DOWN = 30.0, 16.0, 32.0
#: The same of the aperture, where an open mouth shows its inside.
APERTURE_HALF_WIDTH, APERTURE_UP, APERTURE_DOWN = 24.0, 10.0, 25.0
#: From a hand's outermost points to the edge of its box, as a share of the picture's side.
HAND_MARGIN = 0.02
#: Grid on which a mouth is seen, and the cells of it that are averaged: a blur or a grain changes little.
ROWS, COLUMNS, CELL = 70, 64, (5, 4)
#: Drawn mouths of an identity from which its reading is learned.
MOUTHS = 160
#: Ridge: variance of a cell that is as good as noise, against the sum over all drawn mouths.
NOISE = 0.1
#: Weight of three further rows that teach it to read nothing from the colour of the light.
LIGHT = 0.25


def mouth_center(renderer: Renderer, head: Tensor) -> Tensor:
    """Position (x, y) of the mouth, (B, 2) in pixels, for head motions (B, 3)."""
    dx, dy = MOUTH_X - PIVOT[0], MOUTH_Y - PIVOT[1]
    cos, sin = torch.cos(head[:, 2]), torch.sin(head[:, 2])
    x = cos * dx - sin * dy + PIVOT[0] + head[:, 0] * renderer.view
    y = sin * dx + cos * dy + PIVOT[1] + head[:, 1] * renderer.view
    return torch.stack((x - renderer.view_x, y - renderer.view_y), dim=1) * renderer.scale


def mouth_box(renderer: Renderer, state: FigureState) -> Tensor:
    """Boxes around the mouth, int64 (B, 4) pixels x0, y0, x1, y1, end exclusive, all of one size."""
    center = mouth_center(renderer, state.head.cpu())
    width = round(2 * BOX_HALF_WIDTH * renderer.scale)
    height = round((BOX_UP + BOX_DOWN) * renderer.scale)
    x0 = (center[:, 0] - width / 2).round().long().clamp(0, renderer.size - width)
    y0 = (center[:, 1] - BOX_UP * renderer.scale).round().long().clamp(0, renderer.size - height)
    return torch.stack((x0, y0, x0 + width, y0 + height), dim=1)


def hand_boxes(renderer: Renderer, state: FigureState) -> Tensor:
    """Boxes around both hands, int64 (B, 2, 4) pixels x0, y0, x1, y1, end exclusive.

    The box of a hand that is not seen is empty.
    """
    points = state.hands.cpu() * renderer.size
    low, high = points.amin(2) - HAND_MARGIN * renderer.size, points.amax(2) + HAND_MARGIN * renderer.size
    seen = (state.hands_visible.cpu() > 0)[..., None]
    low, high = low.floor().long().clamp(0, renderer.size), high.ceil().long().clamp(0, renderer.size)
    return torch.cat((low, torch.where(seen, high, low)), dim=-1)


def crop_mouth(pictures: Tensor, boxes: Tensor) -> Tensor:
    """Cut-outs (B, 3, h, w) of pictures (B, 3, H, W) by the boxes of `mouth_box`."""
    return torch.stack(
        [picture[:, y0:y1, x0:x1] for picture, (x0, y0, x1, y1) in zip(pictures, boxes.tolist(), strict=True)]
    )


def true_opening(renderer: Renderer, identity: Tensor, state: FigureState) -> Tensor:
    """Area between the lips (B,) as a share of the aperture's rectangle: 0 shut, about 0.5 at the widest.

    The outline that `face.mouth_shape` draws is a superellipse |x/a|ⁿ + |y/b|ⁿ = 1. Each of its quarters has
    the area a·b·Γ(1 + 1/n)² / Γ(1 + 2/n).
    """
    shape = mouth_shape(renderer.appearance(identity.to(renderer.device)), state.to(renderer.device))
    turn = 1.0 / shape.exponent
    part = torch.exp(2.0 * torch.lgamma(1.0 + turn) - torch.lgamma(1.0 + 2.0 * turn))
    area = 2.0 * part * shape.half_width * (shape.up + shape.down)
    return area.flatten() / (2.0 * APERTURE_HALF_WIDTH * (APERTURE_UP + APERTURE_DOWN))


class MouthMeter:
    """Reads the opening of mouths in drawn or generated pictures, in the unit of `true_opening`.

    For each identity, ridge regression fits a linear reading of the aperture's cells to drawings of that
    identity with `MOUTHS` different mouths. The cells are sampled upright, in head coordinates. On other
    drawings the reading follows the true opening with a correlation of over 0.99, for all colours of lips,
    beard and skin. Because it is linear, it reads a blurred mouth between open and shut as between them. It
    knows no output of any model.
    """

    def __init__(self, renderer: Renderer) -> None:
        self.renderer = renderer
        self._mouths = torch.from_numpy(blended(MOUTHS)).to(renderer.device)
        self._readings: dict[int, tuple[Tensor, Tensor]] = {}

    def opening(self, pictures: Tensor, identity: Tensor, head: Tensor) -> Tensor:
        """Openings (B,): about 0 shut, 0.02 to 0.05 barely open, 0.4 to 0.6 at the widest.

        Args:
            pictures: (B, 3, size, size) in 0..1.
            identity: (B,) whose pictures these are.
            head: (B, 3) the head's motion, as in `FigureState.head`.
        """
        device = self.renderer.device
        seen = self._cells(pictures.to(device).float(), head.to(device).float())
        readings = [self._reading(number) for number in identity.tolist()]
        weights = torch.stack([weights for weights, _ in readings])
        constants = torch.stack([constant for _, constant in readings])
        return (seen * weights).sum(1) + constants

    def _reading(self, number: int) -> tuple[Tensor, Tensor]:
        """Weights (cells,) and a constant () for an identity, fitted when it is first asked for."""
        if number not in self._readings:
            self._readings[number] = self._fit(number)
        return self._readings[number]

    def _fit(self, number: int) -> tuple[Tensor, Tensor]:
        device = self.renderer.device
        cells, openings = [], []
        for mouths in self._mouths.split(16):
            who = torch.full((len(mouths),), number, device=device)
            neutral = FigureState.neutral(len(mouths), device)
            state = neutral.replace(**{name: mouths[:, i] for i, name in enumerate(CHANNELS)})
            cells.append(self._cells(self.renderer.render(who, state), state.head))
            openings.append(true_opening(self.renderer, who, state))
        seen, opening = torch.cat(cells).double(), torch.cat(openings).double()
        mean, constant = seen.mean(0), opening.mean()
        light = torch.eye(3, dtype=seen.dtype, device=device).repeat_interleave(seen.shape[1] // 3, dim=1)
        rows = torch.cat((seen - mean, LIGHT * light))
        wanted = torch.cat((opening - constant, opening.new_zeros(3)))
        gram = rows @ rows.T + NOISE * torch.eye(len(rows), dtype=seen.dtype, device=device)
        weights = rows.T @ torch.linalg.solve(gram, wanted)
        return weights.float(), (constant - mean @ weights).float()

    def _cells(self, pictures: Tensor, head: Tensor) -> Tensor:
        """Mean colours (B, cells) of the aperture's cells, channel by channel."""
        return F.avg_pool2d(self._patch(pictures, head), CELL).flatten(1)

    def _patch(self, pictures: Tensor, head: Tensor) -> Tensor:
        """The aperture (B, 3, ROWS, COLUMNS), upright."""
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
