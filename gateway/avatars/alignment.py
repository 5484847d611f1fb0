"""The part of a picture that lays its face where the model's pictures have theirs.

Pure arithmetic. `faces` looks for faces, in the process that decodes the picture. Shoulders are not looked
for: the detector for them agrees with the face in too few pictures (docs/lab/align.md).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gateway.avatars.cropping import Crop

#: Asks for the part that is chosen by the face, in place of four numbers.
AUTO = "auto"
#: Two faces are of like size where the smaller one's side has this share of the larger one's.
ALIKE = 0.6
#: Most of the frame's side, as a multiple of the largest frame within the picture. The page zooms out as far.
FARTHEST = 2.0

#: Why a picture is not aligned.
Reason = Literal["no_face", "several_faces", "too_close", "not_installed"]


@dataclass(frozen=True, slots=True)
class Face:
    """A square around a face, as the detector draws it: centre and side, in pixels of the upright picture."""

    x: float
    y: float
    side: float


@dataclass(frozen=True, slots=True)
class Sight:
    """The faces in an upright picture of these sides in pixels. The largest comes first."""

    width: int
    height: int
    faces: tuple[Face, ...]


@dataclass(frozen=True, slots=True)
class Alignment:
    """The part of a picture, and whether its face chose it.

    Attributes:
        reason: None where the face lies in the model's framing.
        crop: the part. None where no face says it.
    """

    reason: Reason | None
    crop: Crop | None = None

    def fields(self) -> dict[str, object]:
        """The fields that a client learns."""
        return {
            "aligned": False if self.reason else "face",
            "aligned_reason": self.reason,
            "crop": None if self.crop is None else [round(part, 6) for part in self.crop],
        }


#: Where the detector finds the face in a model's own pictures, as fractions of their side. They are square.
#: Measured by `python -m demo.factory.evaluate.align`: the six avatars of the bundled model.
BUNDLED = Face(0.500, 0.399, 0.399)
#: The same of the reference pictures that come with EchoMimic-v2 (assets/halfbody_demo/refimag), two of them.
OFFICIAL = Face(0.504, 0.225, 0.234)


def is_installed() -> bool:
    """Whether OpenCV is (the extra `align`). It is not imported here."""
    return importlib.util.find_spec("cv2") is not None


def target_of(model: str) -> Face:
    """The place of the face in frames of the model of this name."""
    return BUNDLED if model.startswith("bundled") else OFFICIAL


def align(sight: Sight | None, target: Face, ratio: float) -> Alignment:
    """The part of a picture that brings its face to the target.

    The part may reach beyond the picture, as one that a person chooses. A face may be so large that the frame
    would be more than `FARTHEST` times the picture. Then the part is as large as may be, with `too_close`.

    Args:
        sight: the faces in the picture. None: nothing can look for them here.
        target: of the model, in a square picture.
        ratio: width over height of the frames. They are cut of the square as `read_picture` does: of a tall
            one the sides go, of a wide one the foot.
    """
    if sight is None:
        return Alignment("not_installed")
    if not sight.faces:
        return Alignment("no_face")
    face = sight.faces[0]
    if len(sight.faces) > 1 and sight.faces[1].side >= ALIKE * face.side:
        return Alignment("several_faces")
    width, height = min(1.0, ratio), min(1.0, 1.0 / ratio)  # of the frame, in sides of the square
    square = face.side / target.side
    most = FARTHEST * min(sight.width, sight.height * ratio) / width
    is_too_close = square > most
    square = min(square, most)
    left = face.x - square * (target.x - (1.0 - width) / 2)
    top = face.y - square * target.y
    crop = (
        left / sight.width,
        top / sight.height,
        square * width / sight.width,
        square * height / sight.height,
    )
    return Alignment("too_close" if is_too_close else None, crop)


def sight_of(size: Sequence[int], boxes: Sequence[Sequence[float]]) -> Sight:
    """A sight from the detector's boxes: left, top and side in pixels."""
    faces = [Face(left + side / 2, top + side / 2, side) for left, top, side in boxes]
    return Sight(size[0], size[1], tuple(sorted(faces, key=lambda face: -face.side)))
