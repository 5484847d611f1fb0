"""Figures for tests where the identities have not been built."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from demo.factory.figure.layers import VIEW, VIEW_X, VIEW_Y
from demo.factory.figure.make_identities import PROPORTIONS
from demo.factory.figure.people import all_people
from demo.factory.figure.state import FigureState

SIDE = 96


def with_mouth_shut(state: FigureState) -> FigureState:
    """The same moment with the mouth in its neutral, shut shape."""
    zero = torch.zeros_like(state.mouth_open)
    return state.replace(
        mouth_open=zero, mouth_width=zero, mouth_round=zero, teeth=zero, lips_pressed=zero, tongue=zero
    )


def write_stand_in(path: Path) -> None:
    """Three identities with a plain body and a cap of hair, in the layout of the built file."""
    people = all_people()[:3]
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE * VIEW + np.array([VIEW_Y, VIEW_X])[:, None, None]
    body = np.zeros((3, SIDE, SIDE, 4), np.uint8)
    front = np.zeros_like(body)
    for row, person in enumerate(people):
        body[row, (abs(x - 132) < 100) & (y > 215)] = [*bytes.fromhex(person.clothes), 255]
        front[row, ((x - 132) ** 2 + (y - 80) ** 2 < 60**2) & (y < 60)] = [*bytes.fromhex(person.hair), 255]
    np.savez_compressed(
        path,
        names=np.array([person.name for person in people]),
        view=np.array([VIEW_X, VIEW_Y, VIEW], dtype=np.float32),
        body=body,
        front=front,
        behind=front[:1],
        behind_of=np.array([0]),
        proportions=np.array([[float(getattr(p, k)) for k in PROPORTIONS] for p in people], dtype=np.float32),
        proportion_names=np.array(PROPORTIONS),
        allow_pickle=False,
        **{
            key: np.array([list(bytes.fromhex(getattr(p, key))) for p in people], dtype=np.uint8)
            for key in ("skin", "hair", "clothes", "background", "iris")
        },
    )
