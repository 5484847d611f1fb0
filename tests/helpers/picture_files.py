"""Picture files of kinds that Pillow does not write, and colour profiles, byte by byte."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

Colour = tuple[int, int, int]

#: D50-adapted primaries of three colour spaces, as the columns of RGB → XYZ (their published profiles).
SRGB = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])
DISPLAY_P3 = np.array(
    [[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]]
)
ADOBE_RGB = np.array([[0.60974, 0.20528, 0.14919], [0.31111, 0.62567, 0.06322], [0.01947, 0.06087, 0.74457]])


def tiff(
    values: bytes, *, photometric: int = 1, bits: int = 8, samples: int = 1, kind: int = 1, end: str = "<"
) -> bytes:
    """An uncompressed TIFF of 2×1 pixels.

    Args:
        values: the pixels' samples.
        photometric: 0 white is zero, 1 black is zero, 2 RGB, 5 CMYK, 6 YCbCr, 8 LAB.
        bits: of a sample.
        samples: of a pixel.
        kind: 1 unsigned, 2 signed, 3 floating point.
        end: "<" for little and ">" for big endian.
    """
    fields = [(256, 2), (257, 1), (259, 1), (262, photometric), (277, samples), (278, 1), (279, len(values))]
    lists = [(258, bits), (339, kind)]
    start = 8 + 2 + 12 * (len(fields) + len(lists) + 1) + 4
    arrays = b""
    entries = {tag: struct.pack(f"{end}HHII", tag, 4, 1, value) for tag, value in fields}
    for tag, value in lists:
        packed = struct.pack(f"{end}{samples}H", *[value] * samples)
        place = packed.ljust(4, b"\0")
        if samples > 2:
            place = struct.pack(f"{end}I", start + len(arrays))
            arrays += packed
        entries[tag] = struct.pack(f"{end}HHI", tag, 3, samples) + place
    entries[273] = struct.pack(f"{end}HHII", 273, 4, 1, start + len(arrays))
    table = b"".join(entries[tag] for tag in sorted(entries))
    head = (b"II*\0" if end == "<" else b"MM\0*") + struct.pack(f"{end}IH", 8, len(entries))
    return head + table + bytes(4) + arrays + values


def psd(picture: Image.Image) -> bytes:
    """The merged picture of a Photoshop file, RGB."""
    planes = np.asarray(picture.convert("RGB")).transpose(2, 0, 1).tobytes()
    header = struct.pack(">4sH6xHIIHH", b"8BPS", 1, 3, picture.height, picture.width, 8, 3)
    return b"".join([header, bytes(12), struct.pack(">H", 0), planes])


def cmyk_jpeg_without_adobe(inks: tuple[int, int, int, int], size: tuple[int, int] = (16, 16)) -> bytes:
    """A CMYK JPEG without Adobe's marker: its inks are stored as they are."""
    out = io.BytesIO()
    # Pillow inverts the inks, since it writes the marker, which is then cut out.
    Image.new("CMYK", size, tuple(255 - ink for ink in inks)).save(out, "JPEG", quality=100)
    data = out.getvalue()
    place = data.index(b"\xff\xee")
    return data[:place] + data[place + 2 + int.from_bytes(data[place + 2 : place + 4], "big") :]


def matrix_profile(columns: npt.NDArray[np.float64], gamma: float) -> bytes:
    """An ICC profile (version 2) for RGB with these colorants, and one exponent for all channels."""
    tags = {name.encode(): _xyz(columns[:, i]) for i, name in enumerate(("rXYZ", "gXYZ", "bXYZ"))}
    tags.update({name: _curve(gamma) for name in (b"rTRC", b"gTRC", b"bTRC")})
    return _profile(b"mntr", b"RGB ", b"XYZ ", tags)


def grey_profile(gamma: float) -> bytes:
    """An ICC profile for grey with this exponent."""
    return _profile(b"mntr", b"GRAY", b"XYZ ", {b"kTRC": _curve(gamma)})


def ink_profile(corners: Sequence[tuple[int, int, int]]) -> bytes:
    """An ICC profile for CMYK with a colour for each of the 16 mixtures of full and no ink.

    Args:
        corners: L·2.55, a + 128 and b + 128 of each. The number of a mixture in binary is CMYK.
    """
    identity = struct.pack(">9i", *(65536 if i % 4 == 0 else 0 for i in range(9)))
    ramp = bytes(range(256))
    table = b"".join(bytes(corner) for corner in corners)
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + identity + ramp * 4 + table + ramp * 3
    return _profile(b"prtr", b"CMYK", b"Lab ", {b"A2B0": lut})


def _xyz(values: npt.NDArray[np.float64]) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(v * 65536) for v in values))


def _curve(gamma: float) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256))


def _profile(kind: bytes, space: bytes, pcs: bytes, tags: dict[bytes, bytes]) -> bytes:
    tags = {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", 2) + b"x\0" + bytes(78),
        b"wtpt": _xyz(np.array([0.9642, 1.0, 0.8249])),
        **tags,
    }
    place, table, data = 128 + 4 + 12 * len(tags), b"", b""
    for name, value in tags.items():
        padded = value + bytes(-len(value) % 4)
        table += struct.pack(">4sII", name, place + len(data), len(value))
        data += padded
    head = struct.pack(
        ">I4sI4s4s4s12s4s", place + len(data), b"", 0x02100000, kind, space, pcs, bytes(12), b"acsp"
    )
    head += bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + data


def in_srgb(colour: Colour, columns: npt.NDArray[np.float64], gamma: float) -> Colour:
    """A colour of a space with these colorants and this exponent, in sRGB (IEC 61966-2-1)."""
    light = np.linalg.solve(SRGB, columns @ (np.array(colour) / 255) ** gamma).clip(0, 1)
    encoded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    red, green, blue = (encoded * 255).round().astype(int).tolist()
    return red, green, blue


def write(path: Path, content: bytes | Image.Image, form: str = "PNG", **options: object) -> Path:
    """Write bytes as they are, or a picture in this format of Pillow's."""
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        content.save(path, form, **options)
    return path
