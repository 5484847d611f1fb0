"""Marks in files of recordings: they say by machine that a model made the pictures."""

from __future__ import annotations

from pathlib import Path

from protocol.wire.generated import DIGITAL_SOURCE_TYPE, GENERATED_XMP

#: Names XMP in a box of type `uuid` (XMP Specification Part 3, 1.2.7.3).
XMP_UUID = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
#: Tags that formats without XMP take, and that people read.
GENERATED_TAGS = {
    "comment": f"AI-generated face, made by echomimic-live. DigitalSourceType: {DIGITAL_SOURCE_TYPE}"
}


def append_xmp(path: Path) -> None:
    """Put the mark behind an MP4, as a box of its own.

    Raises:
        OSError: it cannot be written.
    """
    size = 8 + len(XMP_UUID) + len(GENERATED_XMP)
    with path.open("ab") as file:
        file.write(size.to_bytes(4, "big") + b"uuid" + XMP_UUID + GENERATED_XMP)
