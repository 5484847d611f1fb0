"""The mark that says by machine that pictures were made by a model.

It is the IPTC's digital source type (https://cv.iptc.org/newscodes/digitalsourcetype/) in XMP (Adobe's XMP
Specification Part 3). A JPEG has it in an APP1 segment. H.264 has it in each key frame, as user data of the
supplemental enhancement information (ITU-T H.264, D.1.7) under the identifier of XMP.
"""

from __future__ import annotations

from protocol.wire.generated import GENERATED_XMP, XMP_UUID

#: In front of XMP in a JPEG.
JPEG_HEADER = b"http://ns.adobe.com/xap/1.0/\0"

_START_CODE = b"\0\0\0\1"
_SEI, _USER_DATA = 6, 5
#: Slices, with and without a key frame's.
_SLICES = range(1, 6)


def with_generated_mark(access_unit: bytes) -> bytes:
    """A key frame of H.264 (Annex B) with the mark. x264's own description of itself gives way to it."""
    units = [unit for unit in split_units(access_unit) if unit[0] & 31 != _SEI]
    first_slice = next((i for i, unit in enumerate(units) if unit[0] & 31 in _SLICES), len(units))
    units.insert(first_slice, _mark_unit())
    return b"".join(_START_CODE + unit for unit in units)


def split_units(access_unit: bytes) -> list[bytes]:
    """The NAL units of Annex B, without their start codes."""
    parts = access_unit.split(b"\0\0\1")
    # A start code may have a fourth byte, and a unit never ends in zeros.
    return [unit for part in parts[1:] if (unit := part.rstrip(b"\0"))]


def _mark_unit() -> bytes:
    """The NAL unit. Its text holds no zeros, so nothing in it can look like a start code."""
    payload = XMP_UUID + GENERATED_XMP
    size = b"\xff" * (len(payload) // 255) + bytes([len(payload) % 255])
    return bytes([_SEI, _USER_DATA]) + size + payload + b"\x80"
