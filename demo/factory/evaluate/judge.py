"""Pictures of the streaming path against the drawn truth, frame by frame."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from demo.factory.evaluate.material import HeldOut, Scene
from demo.factory.evaluate.path import Picture
from demo.factory.evaluate.scores import Curve, edge_strength, edges_kept, inside, ssim
from demo.factory.figure.measure import MouthMeter, crop_mouth, hand_boxes, mouth_box, true_opening
from demo.factory.figure.renderer import Renderer
from demo.factory.figure.state import FigureState

KEPT_BYTES = 400 * 2**20


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of n frames, each (n,).

    Attributes:
        error: squared error of the picture in 0..1.
        mouth_error: squared error of the mouth's box.
        ssim: structural similarity.
        opening: the meter's reading of the mouth in the output.
        true_opening: the meter's reading of the drawn truth.
        drawn_opening: the opening that was drawn.
        mouth_edges: share of the truth's edges that the mouth keeps.
        hand_edges: share of the truth's edges that the hands keep.
        mouth_strength: strength of the mouth's edges over that of the truth's.
        hand_strength: strength of the hands' edges over that of the truth's.
    """

    error: Curve
    mouth_error: Curve
    ssim: Curve
    opening: Curve
    true_opening: Curve
    drawn_opening: Curve
    mouth_edges: Curve
    hand_edges: Curve
    mouth_strength: Curve
    hand_strength: Curve

    @classmethod
    def cat(cls, parts: list[Scores]) -> Scores:
        return cls(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)))

    def __getitem__(self, part: slice) -> Scores:
        return Scores(*(getattr(self, f.name)[part] for f in fields(self)))


class Judge:
    """Draws the truth and compares. All on the device of the material's renderer.

    Args:
        material: the people, their hands and their speech.
        fps: frames a second.
        renderer: of the same people at another size. None for the material's own.
    """

    def __init__(self, material: HeldOut, fps: int, renderer: Renderer | None = None) -> None:
        self.material = material
        self.renderer = renderer or material.renderer
        self.fps = fps
        self.meter = MouthMeter(self.renderer)
        self._drawn: OrderedDict[tuple[Scene, int, int], Tensor] = OrderedDict()

    def tensor(self, pictures: Picture) -> Tensor:
        """Pictures uint8 (n, H, W, 3) as float32 (n, 3, H, W) in 0..1 on the device."""
        moved = torch.from_numpy(np.ascontiguousarray(pictures)).to(self.renderer.device)
        return moved.permute(0, 3, 1, 2).float().div(255.0)

    def truth(self, scene: Scene, first: int, count: int) -> tuple[Tensor, FigureState]:
        """The drawn pictures (count, 3, H, W) and their states. The latest are kept for the next trial."""
        state = self.material.states(scene, first, count, self.fps)
        key = (scene, first, count)
        if key not in self._drawn:
            self._drawn[key] = self.renderer.render(self.material.identity(scene, count), state)
            kept = KEPT_BYTES // max(1, self._drawn[key].nbytes)
            while len(self._drawn) > max(1, kept):
                self._drawn.popitem(last=False)
        return self._drawn[key], state

    def opening(self, scene: Scene, pictures: Tensor, state: FigureState) -> Curve:
        """Mouth openings read from pictures (n, 3, H, W)."""
        who = self.material.identity(scene, len(pictures))
        return _curve(self.meter.opening(pictures, who, state.head))

    def score(self, scene: Scene, first: int, pictures: Picture) -> Scores:
        """Scores of a session's pictures, the first of which is frame `first`."""
        made = self.tensor(pictures)
        truth, state = self.truth(scene, first, len(made))
        boxes = mouth_box(self.renderer, state)
        mouths = (crop_mouth(made, boxes) - crop_mouth(truth, boxes)).square().mean((1, 2, 3))
        places = [self._inside(box) for box in (boxes[:, None], hand_boxes(self.renderer, state))]
        return Scores(
            _curve((made - truth).square().mean((1, 2, 3))),
            _curve(mouths),
            _curve(ssim(made, truth)),
            self.opening(scene, made, state),
            self.opening(scene, truth, state),
            _curve(true_opening(self.renderer, self.material.identity(scene, len(made)), state)),
            *(_curve(edges_kept(made, truth, where)) for where in places),
            *(_curve(edge_strength(made, truth, where)) for where in places),
        )

    def _inside(self, boxes: Tensor) -> Tensor:
        return inside(boxes.to(self.renderer.device), self.renderer.size)

    def reading(
        self, scene: Scene, first: int, pictures: Tensor, name: str, low: float, high: float
    ) -> tuple[Curve, Curve]:
        """Readings of one of the state's values in the made and in the drawn pictures, in the value's units.

        Each picture is projected on the difference of two drawn pictures. Both are true except for that
        value, which is `low` in one and `high` in the other.

        Args:
            scene: the session.
            first: number of the first frame.
            pictures: made pictures (n, 3, H, W).
            name: name of the value in `FigureState`.
            low: the value in the first drawn picture.
            high: the value in the second drawn picture.
        """
        truth, state = self.truth(scene, first, len(pictures))
        value = getattr(state, name)
        who = self.material.identity(scene, len(pictures))
        ends = [
            self.renderer.render(who, state.replace(**{name: torch.full_like(value, end)}))
            for end in (low, high)
        ]
        direction = ends[1] - ends[0]
        length = direction.square().sum((1, 2, 3)).clamp_min(1e-9)
        shares = [((seen - ends[0]) * direction).sum((1, 2, 3)) / length for seen in (pictures, truth)]
        return _curve(low + (high - low) * shares[0]), _curve(low + (high - low) * shares[1])


def mean_change(pictures: Picture, before: Picture | None) -> NDArray[np.float64]:
    """Mean absolute change in 0..1 from each picture to the next. `before` (H, W, 3) stands before them."""
    every = pictures if before is None else np.concatenate((before[None], pictures))
    moved = np.abs(every[1:].astype(np.int16) - every[:-1].astype(np.int16))
    changes: NDArray[np.float64] = moved.mean((1, 2, 3), dtype=np.float64) / 255.0
    return changes


def _curve(values: Tensor) -> Curve:
    curve: Curve = values.double().cpu().numpy()
    return curve
