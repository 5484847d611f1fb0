"""Pictures for those who take one size."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from echomimic_live_client.sized import sized_picture


@pytest.mark.parametrize("side", [32, 64, 128])
def test_every_picture_gets_the_size(side: int) -> None:
    out = io.BytesIO()
    Image.new("RGB", (side, side), (200, 100, 50)).save(out, "JPEG", quality=95)
    picture = sized_picture(out.getvalue(), (64, 64))
    assert (picture.size, picture.mode) == ((64, 64), "RGB")
    assert picture.getpixel((10, 10)) == pytest.approx((200, 100, 50), abs=4)
