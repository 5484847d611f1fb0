"""JPEG of several pictures at once in threads; with threads to spare, of the strips of a picture as well.

A picture cut at rows where JPEG's own blocks end becomes strips whose coded data stand one after the other in
one file: a restart interval as long as a strip tells decoders to begin anew there (ITU T.81, B.2.4.4). The
blocks are the same as those of the whole picture, so it decodes to the same pixels.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from encoder_worker.jpeg import JpegEncoder, Picture

log = logging.getLogger(__name__)

STRIP = 2**16
"""Pixels a strip has at least; with fewer, handing it to a thread costs as much as is won."""
MOST_THREADS = 8
LARGEST_INTERVAL = 2**16 - 1
START_OF_FRAME, START_OF_SCAN = 0xC0, 0xDA
BLOCK = {"444": (8, 8), "422": (8, 16), "420": (16, 16)}
"""Rows and columns of pixels that a coded unit (MCU) covers."""


class JpegPool:
    """Encodes the pictures that a decoder made at once.

    Args:
        encode: for one picture or strip; any thread may call it.
        threads: that work side by side.
    """

    def __init__(self, encode: JpegEncoder, threads: int) -> None:
        self._encode = encode
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="jpeg")

    def __call__(self, pictures: Picture) -> list[bytes]:
        """(n, H, W, 3) uint8 RGB → n JPEGs, in order."""
        spare = self._threads // max(1, len(pictures))
        size = (pictures.shape[1], pictures.shape[2])
        rows = strip_rows(*size, min(spare, size[0] * size[1] // STRIP), self._encode.subsampling)
        if rows >= size[0]:
            return list(self._pool.map(self._encode, pictures))
        starts = range(0, size[0], rows)
        strips = [picture[start : start + rows] for picture in pictures for start in starts]
        made = list(self._pool.map(self._encode, strips))
        units = interval(rows, size[1], self._encode.subsampling)
        groups = [made[at : at + len(starts)] for at in range(0, len(made), len(starts))]
        try:
            return [joined(group, size[0], units) for group in groups]
        except ValueError as error:  # libjpeg-turbo can be told by its environment to write other kinds
            log.warning("JPEG goes on in whole pictures: %s", error)
            self._threads = 1
            return list(self._pool.map(self._encode, pictures))


def threads_for(cores: int, *, gpu: bool) -> int:
    """Threads for JPEG on a machine of `cores`. While a GPU decodes, half of the cores have nothing to do."""
    few = min(4, cores)
    return max(few, min(MOST_THREADS, cores // 2)) if gpu else few


def strip_rows(height: int, width: int, strips: int, subsampling: str) -> int:
    """Rows of pixels of each strip, the last of which may have fewer; `height` where it stays whole."""
    high, _ = BLOCK[subsampling]
    if strips < 2:
        return height
    rows = -(-height // (strips * high)) * high
    return height if interval(rows, width, subsampling) > LARGEST_INTERVAL else min(rows, height)


def interval(rows: int, width: int, subsampling: str) -> int:
    """Coded units of a strip."""
    high, wide = BLOCK[subsampling]
    return rows // high * -(-width // wide)


def joined(strips: Sequence[bytes], height: int, units: int) -> bytes:
    """One baseline JPEG of `height` rows out of strips that are JPEGs themselves, alike but for heights.

    Args:
        units: coded units of each strip but the last, which may have fewer.

    Raises:
        ValueError: they are not baseline JPEGs.
    """
    head, frame, scan = _head(strips[0])
    parts: list[bytes] = [
        head[: frame + 5], height.to_bytes(2, "big"), head[frame + 7 : scan],
        b"\xff\xdd\x00\x04", units.to_bytes(2, "big"), head[scan:],
    ]  # fmt: skip
    for number, strip in enumerate(strips):
        if number:
            parts.append(bytes((0xFF, 0xD0 + (number - 1) % 8)))
        own, _, _ = _head(strip)
        parts.append(strip[len(own) : -2])
    parts.append(strips[-1][-2:])
    return b"".join(parts)


def _head(jpeg: bytes) -> tuple[bytes, int, int]:
    """All before the coded data, and where in it the frame's and the scan's segments begin."""
    frame = at = 0
    for at, marker in _segments(jpeg):
        if marker == START_OF_FRAME:
            frame = at
        if marker == START_OF_SCAN:
            break
    if not frame or jpeg[at + 1] != START_OF_SCAN or jpeg[-2:] != b"\xff\xd9":
        raise ValueError("not a baseline JPEG")
    return jpeg[: at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")], frame, at


def _segments(jpeg: bytes) -> Iterable[tuple[int, int]]:
    """Where each of the segments before the coded data begins, and its marker."""
    at = 2
    while at + 4 <= len(jpeg) and jpeg[at] == 0xFF:
        yield at, jpeg[at + 1]
        at += 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
