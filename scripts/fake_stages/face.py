"""A drawn face: its mouth opens with the sound, its head sways, and a dot runs along the lower edge.

The dot takes a second from left to right, so that an eye sees when frames are left out.
"""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Mapping
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter

from protocol.model.assets import picture_files
from protocol.model.own_avatars import own_picture
from protocol.model.pictures import read_picture

#: The drawn people: name → background. The colour fills the picture's upper corners.
PEOPLE = {"ada": (196, 92, 74), "bruno": (70, 120, 190), "chen": (90, 160, 110)}
#: Root mean square of a sound that opens the mouth wholly: loud speech.
LOUD = 0.2

Box = tuple[float, float, float, float]


class FacePainter:
    """Draws frames. The people are the drawn ones, or the portraits in a folder, and own avatars."""

    def __init__(self, size: int, portraits: Path | None = None, own_folder: Path | None = None) -> None:
        """Load nothing yet.

        Args:
            size: width and height of a frame in pixels.
            portraits: a folder of pictures, one for each person, instead of the drawn ones.
            own_folder: the folder of the avatars that people bring.

        Raises:
            AssetError: the folder has no picture.
        """
        self.size = size
        self._portraits: Mapping[str, Path] = picture_files([portraits]) if portraits else {}
        self.names = list(self._portraits or PEOPLE)
        self._own_folder = own_folder
        #: Own avatars that were drawn, numbered behind the people.
        self._own: list[str] = []
        self._background = functools.cache(self._load_background)

    def number_of(self, avatar: str) -> int | None:
        """The number of a person or an own avatar, or None where there is none of this id."""
        if avatar in self.names:
            return self.names.index(avatar)
        file = own_picture(self._own_folder, avatar) if self._own_folder is not None else None
        if file is None or not file.is_file():
            return None
        if avatar not in self._own:
            self._own.append(avatar)
        return len(self.names) + self._own.index(avatar)

    def draw(
        self, person: int, loudness: float, seconds: float, smears: bool = False, times: int = 1
    ) -> bytes:
        """Draw one frame as JPEG. Its arguments are those of `paint`."""
        out = io.BytesIO()
        self.paint(person, loudness, seconds, smears, times).save(out, "JPEG", quality=85)
        return out.getvalue()

    def paint(
        self, person: int, loudness: float, seconds: float, smears: bool = False, times: int = 1
    ) -> Image.Image:
        """Draw one frame.

        Args:
            person: from `number_of`.
            loudness: root mean square of the frame's sound.
            seconds: the frame's place in the session.
            smears: whether an own avatar comes out as a smear.
            times: the picture is so many times as wide and as high.

        Returns:
            The frame in RGB.
        """
        name = [*self.names, *self._own][person]
        opening = min(1.0, max(0.0, loudness) / LOUD)
        image = self._background(name).copy()
        if smears and name in self._own:
            image = image.filter(ImageFilter.GaussianBlur(self.size / 16))
        pen = ImageDraw.Draw(image)
        if name in self._portraits or name in self._own:
            if opening > 0.1:
                pen.ellipse(self._around(0.5, 0.5, 0.055, 0.008 + 0.04 * opening), (120, 30, 42))
        else:
            self._draw_head(pen, opening, seconds)
        pen.ellipse(self._around(seconds % 1.0, 0.97, 0.012, 0.012), "white")
        return image if times == 1 else image.resize((times * self.size, times * self.size))

    def _draw_head(self, pen: ImageDraw.ImageDraw, opening: float, seconds: float) -> None:
        middle = 0.5 + 0.02 * math.sin(math.tau * seconds / 3)
        pen.ellipse(self._around(0.5, 1.05, 0.42, 0.34), (60, 66, 88))
        pen.ellipse(self._around(middle, 0.45, 0.2, 0.27), (241, 205, 178))
        pen.ellipse(self._around(middle, 0.28, 0.21, 0.14), (70, 48, 40))
        for side in (-0.08, 0.08):
            pen.ellipse(self._around(middle + side, 0.43, 0.02, 0.026), (40, 40, 48))
        pen.ellipse(self._around(middle, 0.6, 0.07, 0.008 + 0.06 * opening), (150, 52, 60))

    def _load_background(self, name: str) -> Image.Image:
        own = own_picture(self._own_folder, name) if self._own_folder is not None else None
        if own is not None:
            return read_picture(own, (self.size, self.size))
        if name not in self._portraits:
            return Image.new("RGB", (self.size, self.size), PEOPLE[name])
        return read_picture(self._portraits[name], (self.size, self.size))

    def _around(self, x: float, y: float, half_width: float, half_height: float) -> Box:
        box = (x - half_width, y - half_height, x + half_width, y + half_height)
        return box[0] * self.size, box[1] * self.size, box[2] * self.size, box[3] * self.size
