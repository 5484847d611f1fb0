"""Pictures of one size, for those who take no other: a server may change the size within a session."""

from __future__ import annotations

import io

from PIL import Image


def sized_picture(jpeg: bytes, size: tuple[int, int]) -> Image.Image:
    """The picture as RGB.

    Args:
        jpeg: of any size.
        size: width and height of the result, in pixels. A picture of another size is scaled.
    """
    image = Image.open(io.BytesIO(jpeg)).convert("RGB")
    return image if image.size == size else image.resize(size)
