"""Whose picture a frame of `scripts.fake_stages` is."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from scripts.fake_stages.face import PEOPLE


def avatar_of(jpeg: bytes) -> str:
    """The drawn person in this frame, by the colour of its corner."""
    with Image.open(io.BytesIO(jpeg)) as picture:
        corner = np.array(picture.getpixel((2, 2)))
    return min(PEOPLE, key=lambda name: int(np.abs(corner - PEOPLE[name]).sum()))
