"""The part of a picture that its face chooses: by itself, in the decoding process, and over HTTP."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from gateway.avatars.alignment import (
    BUNDLED,
    OFFICIAL,
    Alignment,
    Face,
    Sight,
    align,
    is_installed,
    sight_of,
    target_of,
)
from gateway.avatars.cropping import cut, parse_crop
from gateway.avatars.faces import FacesError, find_faces
from gateway.avatars.framing import framing_of
from gateway.avatars.reader import PictureReader, PictureRefused
from protocol.process.settings import ROOT
from tests.gateway.conftest import Running, running
from tests.gateway.test_own_avatars import ask, bring, picture, pixels_of
from tests.helpers.parity import shared_dir
from tests.helpers.tokens import TokenBox

needs_opencv = pytest.mark.skipif(not is_installed(), reason="needs OpenCV (the extra align)")
FACE = ROOT / "demo/bundled/avatars/leo.png"
PHOTO = shared_dir() / "data/reference/0014.png"
needs_photo = pytest.mark.skipif(not PHOTO.is_file(), reason="needs shared/data/reference")


def placed(file: Path, side: int, size: tuple[int, int], at: tuple[int, int]) -> Image.Image:
    """A larger picture that holds this one, `side` pixels wide, at a place."""
    whole = Image.new("RGB", size, (196, 190, 184))
    whole.paste(Image.open(file).convert("RGB").resize((side, side), Image.Resampling.LANCZOS), at)
    return whole


def as_file(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    made = io.BytesIO()
    image.save(made, kind, **options)
    return made.getvalue()


# ---- arithmetic


def test_the_face_comes_to_its_place() -> None:
    sight = Sight(1000, 500, (Face(700.0, 200.0, 100.0), Face(100.0, 100.0, 50.0)))
    for target in (OFFICIAL, BUNDLED):
        aligned = align(sight, target, 1.0)
        assert aligned.reason is None and aligned.crop is not None
        left, top, width, height = aligned.crop
        assert width * 1000 == pytest.approx(height * 500)
        assert (0.7 - left) / width == pytest.approx(target.x)
        assert (0.4 - top) / height == pytest.approx(target.y)
        assert 100 / (width * 1000) == pytest.approx(target.side)


@pytest.mark.parametrize("ratio", [0.5, 2.0])
def test_frames_of_another_shape_are_cut_of_the_square(ratio: float) -> None:
    sight = Sight(800, 800, (Face(OFFICIAL.x * 800, OFFICIAL.y * 800, OFFICIAL.side * 800),))
    crop = align(sight, OFFICIAL, ratio).crop
    assert crop == pytest.approx((0.25, 0.0, 0.5, 1.0) if ratio < 1 else (0.0, 0.0, 1.0, 0.5))


def test_reasons() -> None:
    none, twins = Sight(100, 100, ()), Sight(100, 100, (Face(20, 20, 20), Face(70, 20, 13)))
    assert align(None, OFFICIAL, 1.0) == Alignment("not_installed")
    assert align(none, OFFICIAL, 1.0) == Alignment("no_face")
    assert align(twins, OFFICIAL, 1.0).fields() == {
        "aligned": False,
        "aligned_reason": "several_faces",
        "crop": None,
    }
    # Of a face that fills the picture, the part is as large as one that a person can choose.
    close = align(Sight(100, 200, (Face(50, 80, 70),)), OFFICIAL, 1.0)
    assert close.reason == "too_close" and close.crop is not None
    assert close.crop[2:] == pytest.approx((2.0, 1.0))
    assert parse_crop(",".join(str(part) for part in close.crop))


def test_targets_lie_in_the_outline_of_the_page() -> None:
    for model in ("bundled", "official"):
        target, outline = target_of(model), framing_of(model)
        assert abs(target.x - outline["face_x"]) < 0.02 and abs(target.y - outline["face_y"]) < 0.04
        assert target.side / 2 == pytest.approx(outline["face_height"], abs=0.02)


# ---- the detector


@needs_opencv
@pytest.mark.parametrize(
    ("file", "target", "size", "at"),
    [
        (FACE, BUNDLED, (900, 700), (330, 120)),
        pytest.param(PHOTO, OFFICIAL, (1400, 1100), (80, 250), marks=needs_photo),
    ],
)
def test_a_picture_of_the_model_s_framing_is_found_again(
    file: Path, target: Face, size: tuple[int, int], at: tuple[int, int]
) -> None:
    """Laid anywhere into a larger picture, the part is where it was laid."""
    whole = placed(file, 540, size, at)
    aligned = align(sight_of(whole.size, find_faces(whole)), target, 1.0)
    assert aligned.reason is None and aligned.crop is not None
    left, top, width, height = aligned.crop
    middle = ((left + width / 2) * size[0] - at[0], (top + height / 2) * size[1] - at[1])
    assert middle == pytest.approx((270, 270), abs=0.03 * 540)
    assert (width * size[0], height * size[1]) == pytest.approx((540, 540), rel=0.1)
    assert cut(whole, aligned.crop, 1.0).size[0] == round(width * size[0])


@needs_opencv
def test_no_face_two_faces_and_a_missing_cascade() -> None:
    assert find_faces(Image.new("RGB", (12, 900), "white")) == []
    assert find_faces(Image.effect_noise((300, 300), 60).convert("RGB")) == []
    both = Image.new("RGB", (600, 300), "white")
    for left in (0, 300):
        both.paste(Image.open(FACE).convert("RGB").resize((300, 300)), (left, 0))
    assert align(sight_of(both.size, find_faces(both)), BUNDLED, 1.0).reason == "several_faces"
    with pytest.raises(FacesError, match=r"no\.xml"):
        find_faces(both, "no.xml")


# ---- the process that decodes


@needs_opencv
@pytest.mark.process
async def test_the_decoding_process_finds_the_face_upright() -> None:
    """EXIF says that the camera was held on its side, and the limits leave room for the detector."""
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = placed(FACE, 500, (500, 900), (0, 60)).transpose(Image.Transpose.ROTATE_90)
    sight = await PictureReader().find_faces(as_file(lying, "JPEG", exif=exif, quality=92))
    assert sight is not None and (sight.width, sight.height) == (500, 900)
    assert sight.faces[0].x == pytest.approx(BUNDLED.x * 500, abs=20)
    assert sight.faces[0].y == pytest.approx(60 + BUNDLED.y * 500, abs=20)
    with pytest.raises(PictureRefused, match="PNG or JPEG"):
        await PictureReader().find_faces(b"no picture")


@pytest.mark.process
@pytest.mark.parametrize(
    "output",
    [
        "", "[]", '{"size": [1, 2]}', '{"size": [9, 9], "faces": [[0, 0, NaN]]}', "[" * 4000,
        '{"size": [Infinity, 9], "faces": []}', '{"size": [9, 9], "faces": [[0, 0, 99]]}',
        '{"size": [9999, 9999], "faces": []}', '{"size": [9, 9], "faces": ' + str([[1, 1, 2]] * 17) + "}",
    ],
)  # fmt: skip
async def test_nothing_that_the_process_writes_is_trusted(output: str) -> None:
    reader = PictureReader((sys.executable, "-S", "-c", f"print({output!r})"))
    with pytest.raises(PictureRefused):
        await reader.find_faces(b"x")


@pytest.mark.process
async def test_without_opencv_nothing_is_found_and_nothing_fails() -> None:
    reader = PictureReader((sys.executable, "-S", "-c", "raise SystemExit(4)"))
    assert await reader.find_faces(b"x") is None


# ---- HTTP


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, TokenBox]]:
    folder = tmp_path_factory.mktemp("align")
    maker = TokenBox(folder)
    with running(token_file=maker.path, own_avatar_dir=folder / "own") as server:
        yield server, maker


@needs_opencv
@pytest.mark.process
def test_an_upload_asks_for_the_face(guarded: tuple[Running, TokenBox]) -> None:
    server, maker = guarded
    mine = maker.add("mine", "session", "avatars")
    data = as_file(placed(FACE, 400, (1000, 700), (420, 200)))
    status, told = ask(server, "POST", "/avatars/align", data, mine)
    assert status == 200 and told["aligned"] == "face" and told["aligned_reason"] is None
    assert ask(server, "GET", "/avatars", token=mine)[1]["own_avatars"] == []  # nothing is kept
    made = bring(server, data, "crop=auto", mine)
    assert {name: made[name] for name in told} == told
    # The stand-ins are no bundled model, so the face lies as the official weights have it.
    kept = pixels_of(server, made)
    again = sight_of(kept.size, find_faces(kept)).faces[0]
    assert again.x / kept.width == pytest.approx(OFFICIAL.x, abs=0.02)
    assert again.y / kept.height == pytest.approx(OFFICIAL.y, abs=0.02)
    # Without a face it is the whole picture, as without `crop`, and the answer says why.
    made = bring(server, picture(1), "crop=auto", mine)
    assert (made["aligned"], made["aligned_reason"], made["crop"]) == (False, "no_face", None)
    assert pixels_of(server, made).size == (320, 320)
    assert "aligned" not in bring(server, picture(2), "", mine)
    assert ask(server, "GET", "/avatars.json", token=mine)[1]["own_avatars_align"] is True


@pytest.mark.process
def test_the_same_door_and_limits_as_for_uploads(guarded: tuple[Running, TokenBox]) -> None:
    server, maker = guarded
    mine, viewer = maker.add("own", "session", "avatars"), maker.add("viewer", "session")
    assert ask(server, "POST", "/avatars/align", b"x")[0] == 401
    assert ask(server, "POST", "/avatars/align", b"x", viewer)[0] == 403
    evil = {"Origin": "http://evil.example"}
    assert ask(server, "POST", "/avatars/align", b"x", mine, **evil)[0] == 403
    assert ask(server, "POST", "/avatars/align", b"", mine)[0] == 400
    assert ask(server, "PUT", "/avatars/align", b"x", mine)[0] == 405
    status, told = ask(server, "POST", "/avatars/align", b"no picture", mine)
    if is_installed():
        assert status == 415 and "was not taken" in told
    else:
        assert status == 200 and told["aligned_reason"] == "not_installed"
