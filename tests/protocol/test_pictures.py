"""Pictures of every kind look as in a viewer, and the card shows the pixels that are animated."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from gateway.thumbnails import avatar_png
from gpu_worker.avatars.store import fitted_picture
from protocol.model import pictures
from protocol.model.assets import PICTURE_SUFFIXES, picture_files
from protocol.model.pictures import PICTURE_FORMATS, read_picture
from tests.helpers.picture_files import (
    ADOBE_RGB,
    DISPLAY_P3,
    grey_profile,
    in_srgb,
    ink_profile,
    matrix_profile,
    write,
)
from tests.helpers.picture_kinds import KINDS, RED, WHITE, halves, png_of

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_looks_as_in_a_viewer_on_the_card_and_to_the_model(tmp_path: Path, kind: str) -> None:
    """Its ending is wrong on purpose: the content tells the format."""
    make, left, right = KINDS[kind]
    path = make(tmp_path / "face.jpg")
    whole = np.asarray(read_picture(path), np.int64)
    close = 14 if kind == "GIF" else 5  # GIF's colours are those of a palette
    for colour, column in ((left, whole.shape[1] // 4), (right, whole.shape[1] * 3 // 4)):
        assert np.abs(whole[whole.shape[0] // 2, column] - colour).max() <= close, (kind, column)
    model = fitted_picture(path, 64, 64)
    card = np.asarray(Image.open(io.BytesIO(avatar_png(path, (64, 64)))))
    assert card.shape == (64, 64, 3)
    assert np.array_equal(model, card)


def test_every_format_of_pillow_is_read_or_left_out_on_purpose() -> None:
    left_out = {
        *("EPS", "WMF"),  # drawn by other programs
        *("BUFR", "GRIB", "HDF5", "MPEG"),  # Pillow has no decoder
        *("CUR", "DCX", "DIB", "FTEX", "GBR", "IM", "IMT", "MSP", "PCD", "PIXAR", "SUN", "XBM", "XPM"),  # old
        *("BLP", "FITS", "FLI", "IPTC", "MCIDAS", "SPIDER", "XVTHUMB"),  # games, stars, weather, cells
        *("MIC", "FPX"),  # want another package
        "MPO",  # by JPEG
    }  # fmt: skip
    Image.init()
    assert set(Image.OPEN) - left_out == set(pictures._formats()) <= set(PICTURE_FORMATS)


def test_folders_give_the_files_of_every_format(tmp_path: Path) -> None:
    common = {
        "." + end
        for end in [
            "png",
            "jpg",
            "jpeg",
            "jfif",
            "jpe",
            "webp",
            "avif",
            "gif",
            "bmp",
            "tif",
            "tiff",
            "jp2",
            "heic",
        ]
    }
    assert common <= set(PICTURE_SUFFIXES)
    for number, suffix in enumerate(PICTURE_SUFFIXES):
        (tmp_path / f"{number}{suffix}").touch()
        (tmp_path / f"{number}-upper{suffix.upper()}").touch()
    for name in (".hidden.png", "._0.png", "notes.txt", "png"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert len(picture_files([tmp_path])) == 2 * len(PICTURE_SUFFIXES)


# ------------------------------------------------------------------ colour profiles


PROFILES = {
    "Display P3": (matrix_profile(DISPLAY_P3, 2.2), DISPLAY_P3, 2.2),
    "Adobe RGB": (matrix_profile(ADOBE_RGB, 563 / 256), ADOBE_RGB, 563 / 256),
}


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
def test_colours_of_a_profile_become_srgb(tmp_path: Path, profile: str, form: str) -> None:
    data, columns, gamma = PROFILES[profile]
    colour = (160, 130, 100)  # within sRGB in all spaces
    wanted = in_srgb(colour, columns, gamma)
    assert max(abs(a - b) for a, b in zip(wanted, colour, strict=True)) > 4  # it matters
    path = write(tmp_path / "p", Image.new("RGB", (16, 16), colour), form, icc_profile=data, quality=100)
    seen = np.asarray(read_picture(path), np.int64)[8, 8]
    assert np.abs(seen - wanted).max() <= 3
    assert np.array_equal(fitted_picture(path, 16, 16)[8, 8], seen)


def test_a_profile_holds_with_alpha_and_palettes_and_16_bits(tmp_path: Path) -> None:
    data, columns, gamma = PROFILES["Adobe RGB"]
    colour = (160, 130, 100)
    wanted = np.array(in_srgb(colour, columns, gamma))
    for picture in (
        halves("RGBA", (*colour, 255), (0, 0, 0, 0)),
        Image.new("RGB", (32, 32), colour).quantize(4),
    ):
        path = write(tmp_path / "p.png", picture, icc_profile=data)
        seen = np.asarray(read_picture(path), np.int64)
        assert np.abs(seen[8, 8] - wanted).max() <= 3
        assert picture.mode == "P" or tuple(seen[8, 24]) == WHITE


@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
def test_a_grey_profile_is_followed(tmp_path: Path, mode: str) -> None:
    value: object = {"L": 100, "LA": (100, 255), "I;16": 100 * 257}[mode]
    path = write(tmp_path / "p.png", Image.new(mode, (8, 8), value), icc_profile=grey_profile(1.8))  # type: ignore[arg-type]
    light = (100 / 255) ** 1.8
    wanted = round((1.055 * light ** (1 / 2.4) - 0.055) * 255)
    assert wanted > 110
    assert np.abs(np.asarray(read_picture(path), np.int64) - wanted).max() <= 2


@pytest.mark.parametrize("form", ["JPEG", "TIFF"])
def test_the_profile_of_inks_is_followed(tmp_path: Path, form: str) -> None:
    """Cyan alone is printed as a red here, which no formula would give."""
    paper, red_ink, black = (255, 128, 128), (136, 208, 195), (0, 128, 128)
    corners = [black if i & 1 else red_ink if i & 8 else paper for i in range(16)]
    picture = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    path = write(tmp_path / "p", picture, form, icc_profile=ink_profile(corners), quality=100)
    red, green, blue = np.asarray(read_picture(path), np.int64)[8, 8]
    assert red > 240 and green < 40 and blue < 40


@pytest.mark.parametrize("profile", ["sRGB", "cut", "noise", "of inks", "of greys"])
def test_profiles_that_change_nothing(tmp_path: Path, profile: str) -> None:
    """That of sRGB itself, damaged ones, and those for other kinds of colours: pixels stay as they are."""
    good = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = {
        "sRGB": good,
        "cut": good[:200],
        "noise": bytes(range(256)) * 3,
        "of inks": ink_profile([(255, 128, 128)] * 16),
        "of greys": grey_profile(1.8),
    }[profile]
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    path = write(tmp_path / "p.png", picture, icc_profile=data)
    assert np.array_equal(np.asarray(read_picture(path)), np.asarray(picture))


def test_the_gamma_of_a_png_is_followed_where_nothing_else_is_said(tmp_path: Path) -> None:
    rows = (b"\0" + bytes([55] * 32)) * 32
    gamma = (b"gAMA", struct.pack(">I", 100000))  # samples are light itself
    usual = (b"gAMA", struct.pack(">I", 45455))
    srgb = (b"sRGB", b"\0")
    for more, wanted in (([gamma], 128), ([usual], 55), ([gamma, srgb], 55), ([], 55)):
        path = write(tmp_path / "p.png", png_of(b"\x08\0", rows, *more))
        assert abs(int(np.asarray(read_picture(path))[0, 0, 0]) - wanted) <= 2


# ------------------------------------------------------------------ orientation and first frames


EXIF_SIDES = dict(
    enumerate(
        [
            *("top left", "top right", "bottom right", "bottom left"),
            *("left top", "right top", "right bottom", "left bottom"),
        ],
        start=1,
    )
)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "MPO"])
@pytest.mark.parametrize("orientation", EXIF_SIDES)
def test_a_photo_stands_upright(tmp_path: Path, form: str, orientation: int) -> None:
    """The four corners, from the upper left on, come to the same places from every way to hold a camera."""
    corners = [(250, 10, 10), (10, 250, 10), (10, 10, 250), (250, 250, 10)]
    upright = np.zeros((32, 64, 3), np.uint8)
    for number, colour in enumerate(corners):
        upright[16 * (number // 2) :, 32 * (number % 2) :] = colour
    # Exif 2.32, 4.6.4: which side of the scene the first row and the first column of the file are.
    row, column = EXIF_SIDES[orientation].split()
    seen = upright.transpose(1, 0, 2) if row in ("left", "right") else upright
    seen = seen[::-1] if row in ("bottom", "right") else seen
    seen = seen[:, ::-1] if column in ("bottom", "right") else seen
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = write(tmp_path / "p", Image.fromarray(seen), form, exif=exif.tobytes(), quality=95)
    picture = read_picture(path)
    assert picture.size == (64, 32)
    pixels = np.asarray(picture, np.int64)
    for number, colour in enumerate(corners):
        assert np.abs(pixels[8 + 16 * (number // 2), 16 + 32 * (number % 2)] - colour).max() < 40


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"\xff" * 40, None])
def test_a_damaged_exif_block_is_no_reason_to_refuse(tmp_path: Path, exif: bytes | None) -> None:
    if exif is None:  # an orientation that does not exist
        block = Image.Exif()
        block[0x0112] = 9
        exif = block.tobytes()
    for form in ("JPEG", "PNG", "WEBP"):
        path = write(tmp_path / "p", Image.new("RGB", (8, 4), RED), form, exif=exif)
        assert read_picture(path).size == (8, 4)


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF", "AVIF", "MPO"])
def test_of_several_frames_it_is_the_first(tmp_path: Path, form: str) -> None:
    first, second = Image.new("RGB", (16, 16), (0, 200, 0)), Image.new("RGB", (16, 16), (200, 0, 0))
    write(tmp_path / "p", first, form, save_all=True, append_images=[second])
    with Image.open(tmp_path / "p") as picture:
        assert getattr(picture, "n_frames", 1) == 2
    seen = np.asarray(read_picture(tmp_path / "p"), np.int64)[8, 8]
    assert seen[1] > 180 and seen[0] < 20


# ------------------------------------------------------------------ as before


@pytest.mark.parametrize("size", [None, (256, 256), (512, 512), (320, 448)])
def test_pictures_that_were_right_have_not_changed(size: tuple[int, int] | None) -> None:
    """The bundled portraits, by the formula that the golden numbers and the figures were made with."""
    for path in sorted((ROOT / "demo/bundled/avatars").glob("*.png")):
        with Image.open(path) as picture:
            plain = ImageOps.exif_transpose(picture).convert("RGBA")
        if size is not None:
            plain = ImageOps.fit(plain, size, Image.Resampling.LANCZOS, centering=(0.5, 0.0))
        plain = Image.alpha_composite(Image.new("RGBA", plain.size, "white"), plain).convert("RGB")
        assert np.array_equal(np.asarray(read_picture(path, size)), np.asarray(plain)), path.name
