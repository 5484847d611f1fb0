"""Looks for faces in a decoded picture, by OpenCV's cascade of Haar features (the extra `align`).

The cascade is `haarcascade_frontalface_alt2` (R. Lienhart, A. Kuranov, V. Pisarevsky: Empirical Analysis of
Detection Cascades of Boosted Classifiers for Rapid Object Detection, 2003). It comes with the package. OpenCV
gets pixels alone, and never a file that a stranger made.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

#: Longest side in pixels at which faces are looked for. The later ones serve where none was found.
SIDES = (640, 480, 800)
#: A small picture is enlarged so far at most.
LARGER = 2.0
#: A face's least part of the picture's shorter side, and its fewest pixels at that size.
LEAST_PART, LEAST_PIXELS = 1 / 12, 20
#: Step of the search in size, and how many overlapping finds make a face, at first and once more.
STEP, NEIGHBOURS, NEIGHBOURS_AGAIN = 1.1, 6, 4
#: Sides in pixels at which the largest face is measured once more, and half of the part that is looked at
#: then, in sides of the face. Of single finds each tenth is 9 % too large or too small, and of the medians of
#: these 3.4 %.
AGAIN, AROUND = (80, 100, 125), 1.25

#: Left, top and side, in pixels.
Square = list[float]


class FacesError(Exception):
    """Nothing can look for faces here: OpenCV is missing, does not load, or has no cascades (version 5)."""


def find_faces(picture: Image.Image, cascade: str = "haarcascade_frontalface_alt2.xml") -> list[Square]:
    """The square around each face, in pixels of the picture. The largest comes first.

    Args:
        picture: upright.
        cascade: the file's name.

    Raises:
        FacesError: nothing can look for them.
    """
    search = _Search(cascade)
    grey = picture.convert("L")
    for side in SIDES:
        if found := search.whole(grey, side):
            found.sort(key=lambda box: -box[2])
            return [search.again(grey, found[0]), *found[1:]]
    return []


class _Search:
    """The detector."""

    def __init__(self, cascade: str) -> None:
        try:
            import cv2

            # Threads would be many on a large machine, and each reserves memory, which is limited here.
            cv2.setNumThreads(1)
            self._cascade = cv2.CascadeClassifier(str(Path(cv2.__file__).parent / "data" / cascade))
        except (ImportError, AttributeError) as error:
            raise FacesError(str(error)) from error
        if self._cascade.empty():
            raise FacesError(f"OpenCV {cv2.__version__} has no {cascade}")

    def whole(self, grey: Image.Image, side: int) -> list[Square]:
        """The faces of a picture that is looked at with sides of at most so many pixels."""
        scale = max(1 / LARGER, max(grey.size) / side)
        size = (max(1, round(grey.width / scale)), max(1, round(grey.height / scale)))
        least = max(LEAST_PIXELS, round(min(size) * LEAST_PART))
        return self._boxes(grey, size, NEIGHBOURS, least, max(size))

    def again(self, grey: Image.Image, box: Square) -> Square:
        """The square around a face that was found, measured at several sizes."""
        reach = AROUND * box[2]
        left, top = round(box[0] + box[2] / 2 - reach), round(box[1] + box[2] / 2 - reach)
        part = grey.crop((left, top, left + round(2 * reach), top + round(2 * reach)))
        finds = []
        for wanted in AGAIN:
            size = round(2 * AROUND * wanted)
            found = self._boxes(part, (size, size), NEIGHBOURS_AGAIN, int(0.7 * wanted), int(1.4 * wanted))
            finds += [(x + side / 2, y + side / 2, side) for x, y, side in found]
        if not finds:
            return box
        x, y, side = (float(value) for value in np.median(finds, axis=0))
        return [left + x - side / 2, top + y - side / 2, side]

    def _boxes(
        self, grey: Image.Image, size: tuple[int, int], neighbours: int, least: int, most: int
    ) -> list[Square]:
        """The finds in a picture that is looked at in this size, in its own pixels."""
        pixels = np.asarray(grey.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0))
        found = self._cascade.detectMultiScale(
            pixels, STEP, neighbours, minSize=(least, least), maxSize=(most, most)
        )
        scale = grey.width / size[0]
        return [
            [float(left) * scale, float(top) * scale, float(side) * scale] for left, top, side, _ in found
        ]
