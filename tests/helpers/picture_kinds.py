"""Pictures of every kind that people have: how each is made, and the colours that a viewer shows."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from tests.helpers.picture_files import Colour, cmyk_jpeg_without_adobe, psd, tiff, write

Make = Callable[[Path], Path]

WHITE, RED, SKIN = (255, 255, 255), (220, 20, 60), (224, 172, 105)
LIGHT, DARK = (192, 192, 192), (64, 64, 64)


def clear_half(form: str, **options: object) -> Make:
    """Red at the left, wholly clear at the right."""
    return lambda path: write(path, halves("RGBA", (*RED, 255), (9, 9, 9, 0)), form, **options)


def halves(mode: str, left: object, right: object, size: int = 32) -> Image.Image:
    """A square picture with one colour at the left and another at the right."""
    picture = Image.new(mode, (size, size), left)  # type: ignore[arg-type]
    picture.paste(right, (size // 2, 0, size, size))  # type: ignore[arg-type]
    return picture


def greys(form: str = "PNG", mode: str = "L", **options: object) -> Make:
    return lambda path: write(path, halves(mode, 64, 192), form, **options)


def colours(form: str, mode: str = "RGB", **options: object) -> Make:
    return lambda path: write(path, halves("RGB", RED, SKIN).convert(mode), form, **options)


def stored(content: bytes) -> Make:
    return lambda path: write(path, content)


def array(values: npt.NDArray[np.generic], form: str) -> Make:
    """A picture of these two greys, left and right."""
    picture = Image.fromarray(np.repeat(np.tile(values, (32, 1)), 16, axis=1))
    return lambda path: write(path, picture, form)


def palette(form: str, **options: object) -> Make:
    """Red at the left. At the right the palette's second colour, which is clear."""
    picture = halves("P", 0, 1)
    picture.putpalette([*RED, 0, 0, 255])
    return lambda path: write(path, picture, form, transparency=1, **options)


def rgba16_png(path: Path) -> Path:
    """16 bits a channel: skin at the left, clear at the right."""
    left = struct.pack(">4H", *(v * 257 for v in SKIN), 65535)
    rows = (b"\0" + left * 16 + bytes(8) * 16) * 32
    return write(path, png_of(b"\x10\x06", rows))


def png_of(
    depth_and_kind: bytes, rows: bytes, *more: tuple[bytes, bytes], size: tuple[int, int] = (32, 32)
) -> bytes:
    """A PNG of this bit depth and colour type, which says this size, with these chunks before its pixels."""
    header = struct.pack(">II", *size) + depth_and_kind + bytes(3)
    chunks = [(b"IHDR", header), *more, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    made = (struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(made)


#: name → how it is made, and its colours at the left and at the right.
KINDS: dict[str, tuple[Make, Colour, Colour]] = {
    # grey: one bit to 32 bits, integers and floating-point numbers, each end of the scale
    "1 bit": (lambda path: write(path, halves("1", 0, 255)), (0, 0, 0), WHITE),
    "grey": (greys(), DARK, LIGHT),
    "grey JPEG": (greys("JPEG"), DARK, LIGHT),
    "grey 16 bits PNG": (array(np.array([64, 192], np.uint16) * 257, "PNG"), DARK, LIGHT),
    "grey 16 bits TIFF": (array(np.array([64, 192], np.uint16) * 257, "TIFF"), DARK, LIGHT),
    "grey 16 bits PGM": (stored(b"P5 2 1 65535\n" + struct.pack(">2H", 64 * 257, 192 * 257)), DARK, LIGHT),
    "grey 16 bits JPEG 2000": (array(np.array([64, 192], np.uint16) * 257, "JPEG2000"), DARK, LIGHT),
    "grey 12 bits": (stored(tiff(bytes([0x40, 0x4C, 0x0C]), bits=12)), DARK, LIGHT),
    "grey 16 bits big endian": (
        stored(tiff(struct.pack(">2H", 64 * 257, 192 * 257), bits=16, end=">")),
        *(DARK, LIGHT),
    ),
    "grey white is zero": (stored(tiff(bytes([191, 63]), photometric=0)), DARK, LIGHT),
    "grey 16 bits white is zero": (
        stored(tiff(struct.pack("<2H", 191 * 257, 63 * 257), photometric=0, bits=16)),
        *(DARK, LIGHT),
    ),
    "grey 16 bits signed": (
        stored(tiff(struct.pack("<2h", -9, 192 * 128), bits=16, kind=2)),
        (0, 0, 0),
        LIGHT,
    ),
    "grey 32 bits": (stored(tiff(struct.pack("<2I", 64 << 24, 192 << 24), bits=32)), DARK, LIGHT),
    "grey 32 bits signed": (
        stored(tiff(struct.pack("<2i", 64 << 23, 192 << 23), bits=32, kind=2)),
        *(DARK, LIGHT),
    ),
    "grey float": (array(np.array([64, 192], np.float32) / 255, "TIFF"), DARK, LIGHT),
    "grey float to 1000": (
        stored(tiff(struct.pack("<2f", 64 / 255 * 1000, 1000), bits=32, kind=3)),
        *(DARK, WHITE),
    ),
    "grey float not a number": (
        stored(tiff(struct.pack("<2f", float("nan"), float("inf")), bits=32, kind=3)),
        *((0, 0, 0), (0, 0, 0)),
    ),
    # colours, in every format
    "PNG": (colours("PNG"), RED, SKIN),
    "JPEG": (colours("JPEG", quality=95), RED, SKIN),
    "JPEG progressive": (colours("JPEG", quality=95, progressive=True), RED, SKIN),
    "MPO": (colours("MPO", quality=95), RED, SKIN),
    "WebP": (colours("WEBP", quality=95), RED, SKIN),
    "WebP lossless": (colours("WEBP", lossless=True), RED, SKIN),
    "AVIF": (colours("AVIF", quality=95), RED, SKIN),
    "BMP": (colours("BMP"), RED, SKIN),
    "GIF": (colours("GIF"), RED, SKIN),
    "TIFF": (colours("TIFF"), RED, SKIN),
    "TIFF LZW": (colours("TIFF", compression="tiff_lzw"), RED, SKIN),
    "TIFF deflate": (colours("TIFF", compression="tiff_adobe_deflate"), RED, SKIN),
    "TIFF JPEG": (colours("TIFF", compression="jpeg", quality=95), RED, SKIN),
    "TIFF 16 bits": (
        stored(
            tiff(struct.pack("<6H", *(v * 257 for v in (*RED, *SKIN))), photometric=2, bits=16, samples=3)
        ),
        *(RED, SKIN),
    ),
    "JPEG 2000": (colours("JPEG2000"), RED, SKIN),
    "PPM": (colours("PPM"), RED, SKIN),
    "ICO": (colours("ICO", sizes=[(32, 32)]), RED, SKIN),
    "ICNS": (colours("ICNS"), RED, SKIN),
    "PSD": (stored(psd(halves("RGB", RED, SKIN))), RED, SKIN),
    "QOI": (
        stored(b"qoif\0\0\0\2\0\0\0\1\3\0\xfe%b\xfe%b" % (bytes(RED), bytes(SKIN)) + bytes(7) + b"\1"),
        *(RED, SKIN),
    ),
    "DDS": (colours("DDS"), RED, SKIN),
    "PCX": (colours("PCX"), RED, SKIN),
    "SGI": (colours("SGI"), RED, SKIN),
    "TGA": (colours("TGA"), RED, SKIN),
    # other kinds of colours
    "palette": (lambda path: write(path, halves("RGB", RED, SKIN).quantize(2)), RED, SKIN),
    "RGBX": (colours("TIFF", "RGBX"), RED, SKIN),
    "YCbCr": (colours("TIFF", "YCbCr"), RED, SKIN),
    "CMYK TIFF": (colours("TIFF", "CMYK"), RED, SKIN),
    "CMYK JPEG of Adobe": (colours("JPEG", "CMYK", quality=95), RED, SKIN),
    "CMYK JPEG of others": (stored(cmyk_jpeg_without_adobe((0, 255, 255, 55))), (200, 0, 0), (200, 0, 0)),
    # sRGB's (220, 20, 60) and (224, 172, 105) in CIE Lab under D50
    "LAB": (
        stored(tiff(bytes([122, 71, 35, 189, 14, 42]), photometric=8, samples=3)),
        *(RED, SKIN),
    ),
    # transparency, on white
    "RGBA": (clear_half("PNG"), RED, WHITE),
    "RGBA half clear": (
        lambda path: write(path, halves("RGBA", (*RED, 255), (0, 0, 0, 128))),
        *(RED, (127, 127, 127)),
    ),
    "RGBA 16 bits": (rgba16_png, SKIN, WHITE),
    "RGBA WebP": (clear_half("WEBP", lossless=True), RED, WHITE),
    "RGBA AVIF": (clear_half("AVIF", quality=95), RED, WHITE),
    "RGBA TIFF": (clear_half("TIFF"), RED, WHITE),
    # viewers take the fourth byte of a plain BMP for padding
    "RGBA BMP": (clear_half("BMP"), RED, (9, 9, 9)),
    "grey and alpha": (lambda path: write(path, halves("LA", (64, 255), (9, 0))), DARK, WHITE),
    "palette with a clear colour": (palette("PNG"), RED, WHITE),
    "GIF with a clear colour": (palette("GIF"), RED, WHITE),
    "RGB with a clear colour": (
        lambda path: write(path, halves("RGB", RED, SKIN), transparency=SKIN),
        *(RED, WHITE),
    ),
    "grey with a clear grey": (lambda path: write(path, halves("L", 64, 192), transparency=192), DARK, WHITE),
    "grey 16 bits with a clear grey": (
        stored(png_of(b"\x10\0", (b"\0" + b"\x40\x40" * 16 + b"\xc0\xc1" * 16) * 32, (b"tRNS", b"\xc0\xc1"))),
        *(DARK, WHITE),
    ),
}
