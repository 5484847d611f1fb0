"""The measure of fit, and the part of a picture that is cut, by themselves."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageChops, ImageFilter

from gateway.avatars.cropping import CropError, cut, kept_size, parse_crop
from gateway.avatars.fit import measure_fit
from gateway.avatars.syllables import syllables
from gateway.avatars.warning import warning_of
from protocol.process.settings import ROOT

FACE = Image.open(ROOT / "demo/bundled/avatars/leo.png").convert("RGB").resize((256, 256))


def test_a_picture_keeps_all_of_itself_also_where_the_head_has_moved() -> None:
    assert measure_fit(FACE, [FACE]).edges == pytest.approx(1.0)
    moved = ImageChops.offset(FACE, 6, -4)
    assert measure_fit(FACE, [moved]).edges > 0.97
    # A frame in which it has turned away does not count.
    assert measure_fit(FACE, [moved, moved, moved, FACE.rotate(90)]).carried


@pytest.mark.parametrize(
    "frame",
    [
        FACE.filter(ImageFilter.GaussianBlur(14)), FACE.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        Image.new("RGB", FACE.size, "grey"), Image.effect_noise(FACE.size, 90).convert("RGB"),
    ],
)  # fmt: skip
def test_a_smear_another_picture_and_noise_do_not(frame: Image.Image) -> None:
    fit = measure_fit(FACE, [frame])
    assert fit.edges < 0.4 and not fit.carried


def test_a_plain_picture_has_no_edges_to_keep() -> None:
    assert not measure_fit(Image.new("RGB", (64, 64), "white"), [FACE]).carried


def test_the_warning_names_the_remedy_of_each_model() -> None:
    smear = {"edges": 0.1, "psnr": 12.0}
    assert "official weights" in warning_of(smear, "bundled")
    assert "another crop" in warning_of(smear, "EchoMimicV2")
    assert warning_of({}, "bundled") == warning_of({"edges": 0.9, "psnr": 30.0}, "bundled") == ""


def test_a_part_is_cut_in_the_shape_of_the_frames() -> None:
    picture = Image.new("RGB", (400, 200), (10, 20, 30))
    picture.paste((250, 0, 0), (300, 0, 400, 200))
    right = np.asarray(cut(picture, (0.75, 0.0, 0.25, 0.5), 1.0))
    assert right.shape == (100, 100, 3) and (right[..., 0] > 240).all()
    beyond = np.asarray(cut(picture, (-0.5, 0.0, 1.0, 1.0), 2.0))
    assert beyond.shape == (200, 400, 3) and tuple(beyond[100, 5]) == (10, 20, 30)
    assert max(cut(Image.new("RGB", (3000, 4000)), (-2.0, -2.0, 5.0, 5.0), 1.0).size) == 1024
    with pytest.raises(CropError, match="64"):
        cut(picture, (0.0, 0.0, 0.1, 0.1), 1.0)


@pytest.mark.parametrize("size", [(1, 1), (10, 5000), (5000, 10), (4000, 3000)])
@pytest.mark.parametrize("ratio", [0.01, 0.75, 1.0, 1.78, 100.0])
def test_the_kept_size_is_bounded(size: tuple[int, int], ratio: float) -> None:
    width, height = kept_size(size, ratio)
    assert 1 <= width <= 1024 and 1 <= height <= 1024


@pytest.mark.parametrize("text", ["", "0,0,1", "0,0,1,x", "0,0,inf,1", "1,0,1,1", "-1,0,1,1", "0,0,0.001,1"])
def test_parts_that_are_none(text: str) -> None:
    with pytest.raises(CropError):
        parse_crop(text)


def test_the_made_up_speech_is_sound() -> None:
    sound = syllables(1.0)
    assert sound.shape == (16000,) and sound.dtype == np.float32
    assert 0.1 < np.abs(sound).max() <= 0.5 and np.sqrt(np.mean(sound**2)) > 0.02
