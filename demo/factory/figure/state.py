"""The figure's state at one moment: the renderer's input beside the identity."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import lru_cache

import torch
from torch import Tensor

from demo.factory.figure.rest import rest_hands


@lru_cache(maxsize=8)
def _rest_hands(device: str) -> Tensor:
    """Resting hands (2, 21, 2) on the device, copied there once because the host waits for each copy."""
    with torch.inference_mode(False):
        return torch.from_numpy(rest_hands()).to(device)


@dataclass
class FigureState:
    """A batch of B moments. All tensors are float32, batch first.

    Attributes:
        mouth_open: (B,) 0 shut … 1 widest.
        mouth_width: (B,) -1 narrow … 1 spread.
        mouth_round: (B,) 0 … 1 rounded lips (o, u).
        teeth: (B,) 0 … 1 upper teeth on the lower lip (f, v).
        lips_pressed: (B,) 0 … 1 lips pressed together (m, b, p), which closes the mouth.
        tongue: (B,) 0 … 1 raised tongue (l, th, d, n).
        eyelid: (B,) 0 open … 1 shut.
        brow: (B,) -1 lowered … 1 raised.
        gaze: (B, 2) -1 … 1, x to the right and y down.
        head: (B, 3) shift right and down in fractions of the picture, roll in radians (clockwise).
        breath: (B,) -1 … 1, out … in.
        hands: (B, 2, 21, 2) key points, see `demo.factory.figure.rest`.
        hands_visible: (B, 2) 0 … 1.
    """

    mouth_open: Tensor
    mouth_width: Tensor
    mouth_round: Tensor
    teeth: Tensor
    lips_pressed: Tensor
    tongue: Tensor
    eyelid: Tensor
    brow: Tensor
    gaze: Tensor
    head: Tensor
    breath: Tensor
    hands: Tensor
    hands_visible: Tensor

    @classmethod
    def neutral(cls, batch: int, device: torch.device | str = "cpu") -> FigureState:
        """Mouth shut, eyes open, hands at rest: the state of every reference picture."""

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(batch, *shape, device=device)

        return cls(
            mouth_open=zeros(),
            mouth_width=zeros(),
            mouth_round=zeros(),
            teeth=zeros(),
            lips_pressed=zeros(),
            tongue=zeros(),
            eyelid=zeros(),
            brow=zeros(),
            gaze=zeros(2),
            head=zeros(3),
            breath=zeros(),
            hands=_rest_hands(str(device)).expand(batch, 2, 21, 2).clone(),
            hands_visible=torch.ones(batch, 2, device=device),
        )

    @property
    def batch(self) -> int:
        return self.mouth_open.shape[0]

    def to(self, device: torch.device | str) -> FigureState:
        return FigureState(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    def __getitem__(self, index: object) -> FigureState:
        """Pick moments by slice or index tensor along the batch."""
        return FigureState(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def replace(self, **changes: Tensor) -> FigureState:
        return replace(self, **changes)

    @classmethod
    def cat(cls, states: list[FigureState]) -> FigureState:
        return cls(**{f.name: torch.cat([getattr(s, f.name) for s in states]) for f in fields(cls)})
