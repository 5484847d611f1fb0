"""Colours of decoded pictures: every mode and depth that Pillow has, and ICC profiles, to sRGB of 8 bits."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

logger = logging.getLogger(__name__)

#: Modes that `to_plain_mode` gives: 8 bits a channel, and resizing works on them as they are.
PLAIN_MODES = ("L", "LA", "RGB", "RGBA", "CMYK", "LAB")

#: The colour space that a profile must describe, as ICC.1 spells it, for each plain mode.
_PROFILE_SPACES = {"L": "GRAY", "LA": "GRAY", "RGB": "RGB ", "RGBA": "RGB ", "CMYK": "CMYK", "LAB": "Lab "}

#: Any other mode of 8 bits → the mode of `PLAIN_MODES` that shows the same picture.
_PLAIN_OF = {"1": "L", "La": "LA", "RGBX": "RGB", "RGBa": "RGBA", "PA": "RGBA", "YCbCr": "RGB", "HSV": "RGB"}

#: A profile that changes no colour by more than this many of 255 levels is sRGB itself, and is not applied.
SAME_COLOURS = 3

#: TIFF's tags for the bits of a sample, for whether 0 is white, and for how samples are to be taken.
_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339
_WHITE_IS_ZERO, _SIGNED = 0, 2


def to_plain_mode(picture: Image.Image) -> Image.Image:
    """The picture in one of `PLAIN_MODES`. Its colours are still in the colour space of its profile.

    Args:
        picture: decoded, in any of Pillow's modes. `info`, and for TIFF the tags, say more about it.
    """
    if picture.mode in ("I", "F") or picture.mode.startswith("I;"):
        return _grey_of_8_bits(picture)
    transparent = picture.has_transparency_data
    if picture.mode == "P":
        return picture.convert("RGBA" if transparent else "RGB")
    if picture.mode in ("1", "L", "RGB") and transparent:  # one colour stands for the clear parts
        return picture.convert("RGBA")
    if picture.mode == "CMYK" and picture.format == "JPEG" and "adobe" not in picture.info:
        # Pillow takes the inks of every JPEG for inverted. Only Adobe's programs invert them, and say so.
        return Image.eval(picture, lambda ink: 255 - ink)
    return picture if picture.mode in PLAIN_MODES else picture.convert(_PLAIN_OF.get(picture.mode, "RGB"))


def to_srgb(picture: Image.Image, info: Mapping[str, Any]) -> Image.Image:
    """A picture of a plain mode as RGB or RGBA, in the colours of sRGB.

    An ICC profile is followed (ICC.1:2022, perceptual intent), and where there is none, a PNG's gamma. A
    damaged profile is ignored, as viewers do, and so is one for another kind of colours.

    Args:
        picture: in one of `PLAIN_MODES`.
        info: Pillow's `info` of the opened picture.
    """
    alpha = picture.getchannel("A") if picture.mode in ("LA", "RGBA") else None
    colours = picture.convert(picture.mode[:-1]) if alpha is not None else picture
    profile = _profile(info.get("icc_profile"), _PROFILE_SPACES[picture.mode])
    if profile is not None:
        colours = _transformed(colours, profile)
    elif "srgb" not in info and "icc_profile" not in info:
        colours = _without_gamma(colours, info.get("gamma"))
    if colours.mode == "LAB":
        colours = _transformed(colours, ImageCms.createProfile("LAB"))
    colours = colours.convert("RGB")
    if alpha is not None:
        colours.putalpha(alpha)
    return colours


def _grey_of_8_bits(picture: Image.Image) -> Image.Image:
    """A grey picture of 16 or 32 bits, or of floating-point numbers, as L, or LA where one grey is clear.

    Integers go from 0 to the largest of their bits. Floating-point numbers go from 0 to 1, or to the
    picture's largest where that is more. Negative values and NaN are black.
    """
    stored = np.asarray(picture)
    values = stored.astype(np.float64 if picture.mode == "I" else np.float32)
    tags = getattr(picture, "tag_v2", {})
    if picture.mode == "F":
        values = np.where(np.isfinite(values), values, 0)
        values = np.rint(values * (255 / max(1.0, float(values.max(initial=0)))))
    else:
        bits = _bits(picture, tags)
        signed = _first(tags.get(_SAMPLE_FORMAT)) == _SIGNED
        if bits == 32 and not signed:
            values = np.where(values < 0, values + 2**32, values)  # Pillow takes them for signed
        # The upper 8 bits, as Pillow takes them of colours of 16 bits.
        values = values / 2.0 ** (bits - signed - 8)
    eight = np.clip(values, 0, 255).astype(np.uint8)
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        eight = 255 - eight
    grey = Image.fromarray(eight)
    clear = picture.info.get("transparency")
    if isinstance(clear, int):
        grey.putalpha(Image.fromarray(np.where(stored == clear, 0, 255).astype(np.uint8)))
    return grey


def _bits(picture: Image.Image, tags: Mapping[int, Any]) -> int:
    """Bits of a grey sample. Only TIFF has other than 16: the other decoders of Pillow widen theirs."""
    bits = _first(tags.get(_BITS_PER_SAMPLE))
    return bits if isinstance(bits, int) and 8 < bits <= 32 else 16


def _first(value: object) -> object:
    return value[0] if isinstance(value, tuple) and value else value


def _profile(data: object, space: str) -> ImageCms.ImageCmsProfile | None:
    """The profile in `data` where it can be used for colours of this space."""
    if not isinstance(data, bytes) or not data:
        return None
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
        return profile if profile.profile.xcolor_space == space else None
    except (OSError, ImportError) as error:  # ImportError: this Pillow was built without LittleCMS
        logger.info("a colour profile is ignored: %s", error)
        return None


def _transformed(colours: Image.Image, profile: Any) -> Image.Image:
    """Colours in the mode of the profile's space as RGB of sRGB. Unchanged where they are that already."""
    try:
        transform = ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), colours.mode, "RGB")
    except ImageCms.PyCMSError as error:
        logger.info("a colour profile is ignored: %s", error)
        return colours
    if colours.mode in ("L", "RGB"):
        sample = _sample_colours().convert(colours.mode)
        seen = np.asarray(ImageCms.applyTransform(sample, transform), np.int16)
        if np.abs(seen - np.asarray(sample.convert("RGB"), np.int16)).max() <= SAME_COLOURS:
            return colours
    made: Image.Image | None = ImageCms.applyTransform(colours, transform)
    return colours if made is None else made


def _sample_colours() -> Image.Image:
    """729 colours, RGB: nine levels of each channel."""
    levels = np.linspace(0, 255, 9).astype(np.uint8)
    grid = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1)
    return Image.fromarray(grid.reshape(27, 27, 3))


def _without_gamma(colours: Image.Image, gamma: object) -> Image.Image:
    """L or RGB of which a PNG says sample = light ** gamma, as sRGB. Most say 1/2.2, which is sRGB's own."""
    if not isinstance(gamma, float) or not 0.05 < gamma < 5 or abs(gamma * 2.2 - 1) < 0.05:
        return colours
    light: npt.NDArray[np.float64] = (np.arange(256) / 255) ** (1 / gamma)
    # IEC 61966-2-1: the curve of sRGB.
    encoded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    table = [round(value) for value in (encoded * 255).tolist()]
    return colours.point(table * len(colours.getbands()))
