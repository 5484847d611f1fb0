"""How a picture is read. The page's card and the model see the same pixels, since both read it here.

Transparent parts lie on white.
"""

from __future__ import annotations

import stat
import warnings
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from protocol.model.assets import AssetError, access_fault, picture_files
from protocol.model.colours import to_plain_mode, to_srgb
from protocol.model.file_damage import stand_in_error
from protocol.wire.phrases import phrase

#: Formats of pictures, by Pillow's names. Left out are those that run other programs (EPS, WMF), those that
#: Pillow does not decode, and those of old systems, which people do not have portraits in.
PICTURE_FORMATS = (
    *("PNG", "JPEG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "JPEG2000"),
    *("PPM", "ICO", "ICNS", "PSD", "QOI", "DDS", "PCX", "SGI", "TGA"),
)

#: Bytes of a picture's file, and pixels of a picture, that are read at most.
MAX_PICTURE_BYTES = 64 * 2**20
MAX_PICTURE_PIXELS = 64_000_000

#: EXIF's tag for how the camera was held, and what brings the picture upright (Exif 2.32, 4.6.4 A).
ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

#: Files that people take for pictures and that are not read: where a mark stands, the mark, the code of the
#: sentence (`wire.phrases`), and the name of the format where the sentence has one.
_FOREIGN = (
    (4, b"ftyphei", "picture_format", "HEIC"),
    (4, b"ftyphev", "picture_format", "HEIC"),
    (4, b"ftypmif1", "picture_format", "HEIF"),
    (4, b"ftypmsf1", "picture_format", "HEIF"),
    (4, b"ftypcrx", "picture_raw", ""),
    (0, b"\xff\x0a", "picture_format", "JPEG XL"),
    (0, b"\0\0\0\x0cJXL ", "picture_format", "JPEG XL"),
    (4, b"ftypisom", "picture_video", ""),
    (4, b"ftypmp4", "picture_video", ""),
    (4, b"ftypqt", "picture_video", ""),
    (0, b"\x1aE\xdf\xa3", "picture_video", ""),
    (0, b"<svg", "picture_format", "SVG"),
    (0, b"<?xml", "picture_format", "XML"),
    (0, b"%PDF", "picture_format", "PDF"),
    (0, b"%!PS", "picture_format", "PostScript"),
    (0, b"PK\x03\x04", "picture_format", "ZIP"),
)

#: How files of the formats begin that are read.
_OWN = (
    *((0, b"\x89PNG"), (0, b"\xff\xd8"), (8, b"WEBP"), (4, b"ftypavi"), (0, b"GIF8"), (0, b"BM")),
    *((0, b"II*\0"), (0, b"MM\0*"), (0, b"\0\0\0\x0cjP  "), (0, b"8BPS")),
)


def read_picture(
    path: Path, size: tuple[int, int] | None = None, *, most_pixels: int = MAX_PICTURE_PIXELS
) -> Image.Image:
    """A picture as a viewer shows it: RGB in the colours of sRGB, upright, transparent parts on white.

    Of several pictures in a file it is the first. Format and pixels are checked before anything is decoded.

    Args:
        path: the file. Its ending does not matter.
        size: (width, height) of the frames to be made of it. The picture is cropped to their shape and
            resized. A wide picture keeps its middle. A tall one keeps its top, where the head is.
        most_pixels: of the file's picture.

    Raises:
        AssetError: the file is missing, too large, damaged or of another format. Names the file.
    """
    try:
        _check_file(path)
        with warnings.catch_warnings():
            # Limits are checked here, and what is odd in a file but can be shown concerns nobody.
            warnings.simplefilter("ignore")
            with Image.open(path, formats=_formats()) as picture:
                _check_pixels(path, picture, most_pixels)
                picture.load()
                upright = _upright(to_plain_mode(picture), _orientation(picture))
                info = dict(picture.info)
            if size is not None:
                upright = ImageOps.fit(upright, size, Image.Resampling.LANCZOS, centering=(0.5, 0.0))
            colours = to_srgb(upright, info).convert("RGBA")
    except AssetError:
        raise
    except Exception as error:  # decoders raise all kinds of things for damaged files
        raise AssetError(_reason(path, error, most_pixels)) from error
    return Image.alpha_composite(Image.new("RGBA", colours.size, "white"), colours).convert("RGB")


def require_picture(paths: Sequence[Path]) -> None:
    """Make sure that at least one picture can be read. No file is opened after the first readable one.

    Args:
        paths: pictures and folders of them.

    Raises:
        AssetError: none can be read. The message gives the reasons for the first three.
    """
    faults: list[str] = []
    for file in picture_files(paths, faults).values():
        try:
            read_picture(file)
        except AssetError as error:
            faults.append(str(error))
        else:
            return
    raise AssetError("; ".join(faults[:3]))


def _formats() -> list[str]:
    """The formats of `PICTURE_FORMATS` that this Pillow reads. `Image.open` raises for any other name."""
    Image.init()
    return [name for name in PICTURE_FORMATS if name in Image.OPEN]


def _check_file(path: Path) -> None:
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise AssetError(f"{path}: is a folder, not a picture")
    if not stat.S_ISREG(status.st_mode):  # to open a pipe would wait for its writer
        raise AssetError(f"{path}: is not a file")
    if status.st_size == 0:
        raise AssetError(f"{path}: {phrase('picture_empty')}")
    if status.st_size > MAX_PICTURE_BYTES:
        raise AssetError(f"{path}: larger than {MAX_PICTURE_BYTES >> 20} MiB; give a smaller picture")


def _check_pixels(path: Path, picture: Image.Image, most: int) -> None:
    if picture.width * picture.height > most:
        raise _too_many_pixels(path, most, f"{picture.width}×{picture.height} pixels are ")


def _too_many_pixels(path: Path, most: int = MAX_PICTURE_PIXELS, begin: str = "") -> AssetError:
    return AssetError(f"{path}: {phrase('picture_pixels', size=begin, most=most // 10**6)}")


def _orientation(picture: Image.Image) -> int:
    """How a decoded picture is to be turned. Pillow has turned a TIFF already, and then says 1."""
    try:
        return int(picture.getexif().get(ORIENTATION, 1))
    except Exception:  # a damaged EXIF block is no reason to refuse a picture that can be seen
        return 1


def _upright(picture: Image.Image, orientation: int) -> Image.Image:
    method = _UPRIGHT.get(orientation)
    return picture if method is None else picture.transpose(method)


def _reason(path: Path, error: Exception, most_pixels: int) -> str:
    """Why the file cannot be read, and what to do."""
    if isinstance(error, Image.DecompressionBombError):
        return str(_too_many_pixels(path, most_pixels))
    if isinstance(error, UnidentifiedImageError):
        return stand_in_error(path) or f"{path}: {_unknown(path)}"
    if isinstance(error, MemoryError):
        return f"{path}: {phrase('picture_memory')}"
    if isinstance(error, OSError) and error.errno is not None:
        return f"{path}: {access_fault(error, 'picture')}"
    return f"{path}: {phrase('picture_damaged', why=error)}"


def _unknown(path: Path) -> str:
    """What a file is that no decoder takes, as far as its first bytes tell, and what to do."""
    with path.open("rb") as stream:
        begin = stream.read(64)
    for place, mark, code, name in _FOREIGN:
        if begin[place:].startswith(mark):
            return phrase(code, format=name)
    if any(begin[place:].startswith(mark) for place, mark in _OWN):
        return phrase("picture_not_read")
    return phrase("picture_unknown")
