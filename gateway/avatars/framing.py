"""Where a model has the head and the shoulders of a figure. The page shows it over the picture.

All numbers are fractions of the frame's sides, measured on the pictures that come with each model.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Framing:
    """An ellipse around the face, and the line of the shoulders."""

    #: Centre of the face, from the left and from the top.
    face_x: float
    face_y: float
    #: Half of the face's width and height, from ear to ear and from hairline to chin.
    face_width: float
    face_height: float
    #: The base of the neck, from the top.
    neck: float
    #: Half of the shoulders' width.
    shoulders: float


#: The six avatars of the bundled model.
BUNDLED = Framing(0.5, 0.375, 0.155, 0.2, 0.62, 0.3)
#: The portraits of EchoMimic-v2 (assets/halfbody_demo/refimag), whose hands its poses fit.
OFFICIAL = Framing(0.5, 0.25, 0.1, 0.13, 0.42, 0.27)


def framing_of(model: str) -> dict[str, float]:
    """The framing of the model of this name."""
    return asdict(BUNDLED if model.startswith("bundled") else OFFICIAL)
