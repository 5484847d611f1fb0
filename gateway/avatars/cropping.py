"""The part of a picture that becomes an avatar. A person chooses it, also beyond the picture's edges."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageOps

from protocol.wire.phrases import phrase

#: Left, top, width and height of the part, as fractions of the upright picture's sides.
Crop = tuple[float, float, float, float]

#: All of a picture.
WHOLE: Crop = (0.0, 0.0, 1.0, 1.0)
#: How far beyond the picture a part may reach, as a fraction of its sides, and how small it may be.
BEYOND, SMALLEST = 2.0, 0.01
#: Fewest pixels of a side of the part, and most of the picture that is kept.
LEAST_SIDE, MOST_SIDE = 64, 1024
#: Ratio of the sides (width / height) that frames have at most and at least.
_RATIOS = (0.2, 5.0)


class CropError(ValueError):
    """The part cannot be used. The text says why."""


def parse_crop(text: str) -> Crop:
    """`LEFT,TOP,WIDTH,HEIGHT`. Raises CropError where it is no part of a picture."""
    words = text.split(",")
    try:
        numbers = [float(word) for word in words if len(word) <= 24]
    except ValueError:
        numbers = []
    if len(numbers) != 4 or len(words) != 4 or not np.isfinite(numbers).all():
        raise CropError("crop: give LEFT,TOP,WIDTH,HEIGHT as fractions of the picture's sides")
    left, top, width, height = numbers
    inside = left < 1 and top < 1 and left + width > 0 and top + height > 0
    if min(width, height) < SMALLEST or max(width, height) > 1 + 2 * BEYOND or not inside:
        raise CropError("crop: the part has to lie on the picture, and be at most 5 times as large")
    return left, top, width, height


def cut(picture: Image.Image, crop: Crop, ratio: float) -> Image.Image:
    """The part of a picture, RGB, in the shape of the frames and not larger than is kept.

    Places beyond the picture get the colour that most of its border has. Of a part of another shape than the
    frames', a wide one keeps its middle and a tall one its top, as `read_picture` does.

    Args:
        picture: RGB, upright.
        crop: the part.
        ratio: width over height of the frames.

    Raises:
        CropError: the part has too few pixels.
    """
    left, top = round(crop[0] * picture.width), round(crop[1] * picture.height)
    width, height = round(crop[2] * picture.width), round(crop[3] * picture.height)
    if min(width, height) < LEAST_SIDE:
        raise CropError(phrase("picture_part", width=width, height=height, least=LEAST_SIDE))
    size = kept_size((width, height), ratio)
    # At the size that is kept: a part beyond the edges of a large picture would be larger than that.
    scale = max(1.0, min(width / size[0], height / size[1]))
    small = picture.resize((max(1, round(picture.width / scale)), max(1, round(picture.height / scale))),
                           Image.Resampling.LANCZOS, reducing_gap=3.0)  # fmt: skip
    at = (round(left / scale), round(top / scale))
    part = (max(1, round(width / scale)), max(1, round(height / scale)))
    whole = Image.new("RGB", part, _border_colour(small))
    whole.paste(small, (-at[0], -at[1]))
    return ImageOps.fit(whole, size, Image.Resampling.LANCZOS, centering=(0.5, 0.0))


def kept_size(size: tuple[int, int], ratio: float) -> tuple[int, int]:
    """(width, height) in which a picture is kept: the largest of the shape `ratio` within `size`."""
    ratio = min(max(ratio, _RATIOS[0]), _RATIOS[1])
    width = min(size[0], size[1] * ratio)
    scale = min(1.0, MOST_SIDE / max(width, width / ratio))
    return max(1, round(width * scale)), max(1, round(width / ratio * scale))


def _border_colour(picture: Image.Image) -> tuple[int, ...]:
    """The median of the outermost pixels at the top and the upper sides, where a background is."""
    pixels = np.asarray(picture)
    upper = pixels[: max(1, len(pixels) // 2)]
    border = np.concatenate([upper[0], upper[:, 0], upper[:, -1]])
    return tuple(int(value) for value in np.median(border, axis=0))
