"""Reads WAV files of every kind that people have: integers, floating point, A-law, mu-law, RF64, streamed.

The formats are RIFF (Microsoft, 1991), WAVE_FORMAT_EXTENSIBLE (Microsoft, 2001) and RF64 (EBU Tech 3306).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float32]

#: Frames of a block: one sample of each channel is a frame.
BLOCK_FRAMES = 2**16

#: Chunks before the sound that are passed over at most.
MAX_CHUNKS = 10_000

_MAGICS = {b"RIFF": "<", b"RF64": "<", b"BW64": "<", b"RIFX": ">"}
_PCM, _FLOAT, _A_LAW, _MU_LAW, _EXTENSIBLE = 1, 3, 6, 7, 0xFFFE
#: What follows the codec's number in an extensible format's GUID.
_GUID_END = bytes.fromhex("000000001000800000aa00389b71")
#: A size that a program writes when it does not know the size yet, or when RF64 has it elsewhere.
_UNKNOWN = 0xFFFFFFFF


class WavError(ValueError):
    """The file is no WAV file, or its sound is of a kind that is not read here. The text says which."""


@dataclass(frozen=True)
class WavSound:
    """Where a file's sound lies, and how it is stored.

    Attributes:
        channels: 1 or more.
        rate: frames a second.
        codec: the format's number: integers, floating point, A-law or mu-law.
        width: bytes of a sample.
        order: "<" for little and ">" for big endian.
        start: place of the first sample in the file, in bytes.
        frames: of the sound. The last one may be cut off, and then it does not count.
    """

    channels: int
    rate: int
    codec: int
    width: int
    order: str
    start: int
    frames: int


def find_sound(stream: BinaryIO) -> WavSound:
    """Read a file's chunks up to its sound.

    A program that writes into a pipe or is killed leaves a length that is unknown, too large or zero. It is
    taken for "up to the end of the file".

    Raises:
        WavError: it is no WAV file, or one of a kind that is not read here.
    """
    head = stream.read(12)
    if len(head) < 12 or head[:4] not in _MAGICS or head[8:] != b"WAVE":
        raise WavError("it is no WAV file")
    order = _MAGICS[head[:4]]
    end = stream.seek(0, 2)
    riff_size = int(struct.unpack(f"{order}I", head[4:8])[0])
    long_size, layout = None, None
    for name, place, size in _chunks(stream, order, end):
        if name == b"fmt ":
            layout = _read_layout(_body(stream, place, min(size, 40)), order)
        elif name == b"ds64":
            long_size = int.from_bytes(_body(stream, place, 24)[8:16], "little")
        elif name == b"data":
            if layout is None:
                raise WavError("its sound comes before its format")
            length = size
            if size == _UNKNOWN and long_size is not None:
                length = long_size
            elif size == 0 and riff_size + 8 <= place:  # a recorder that was killed before it wrote lengths
                length = end - place
            channels, rate, codec, width = layout
            frames = min(length, end - place) // (channels * width)
            return WavSound(channels, rate, codec, width, order, place, frames)
    raise WavError("it has no sound in it" if layout else "it has no format in it")


def blocks(stream: BinaryIO, sound: WavSound) -> Iterator[Values]:
    """The sound in blocks, float32 (frames, channels), nominally in ±1."""
    decode = _decoder(sound)
    size = sound.channels * sound.width
    stream.seek(sound.start)
    left = sound.frames
    while left > 0:
        data = stream.read(min(left, BLOCK_FRAMES) * size)
        frames = len(data) // size
        if not frames:
            return
        left -= frames
        yield decode(data[: frames * size]).reshape(frames, sound.channels)


def _chunks(stream: BinaryIO, order: str, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, place and size of each chunk. The size may be more than the file has."""
    place = 12
    for _ in range(MAX_CHUNKS):
        head = _body(stream, place, 8)
        if len(head) < 8:
            return
        size = int(struct.unpack(f"{order}I", head[4:])[0])
        yield head[:4], place + 8, size
        place += 8 + size
        if size % 2:  # a byte fills an odd chunk up, but not every program writes it
            after = _body(stream, place, 5)
            place += not _is_name(after[:4]) or (after[:1] == b"\0" and _is_name(after[1:]))
        if place >= end:
            return


def _is_name(text: bytes) -> bool:
    return len(text) == 4 and all(0x20 <= byte < 0x7F for byte in text)


def _body(stream: BinaryIO, place: int, size: int) -> bytes:
    stream.seek(place)
    return stream.read(size)


def _read_layout(data: bytes, order: str) -> tuple[int, int, int, int]:
    """(channels, rate, codec, bytes of a sample) of a format chunk.

    Raises:
        WavError: such sound is not read here.
    """
    if len(data) < 16:
        raise WavError("its format is cut off")
    codec, channels, rate, _, frame_size, bits = struct.unpack(f"{order}HHIIHH", data[:16])
    if codec == _EXTENSIBLE:
        if len(data) < 40 or data[26:40] != _GUID_END:
            raise WavError("its format is unknown")
        codec = int(struct.unpack(f"{order}H", data[24:26])[0])
    if not channels:
        raise WavError("it has no channels")
    # The frame's size tells the width where few bits stand in many bytes, such as 24 in 32.
    width = (bits + 7) // 8
    if frame_size % channels == 0 and width < frame_size // channels <= 8:
        width = frame_size // channels
    widths = {_PCM: (1, 2, 3, 4), _FLOAT: (2, 4, 8), _A_LAW: (1,), _MU_LAW: (1,)}
    if width not in widths.get(codec, ()):
        raise WavError(f"its samples are of format {codec} with {bits} bits")
    return channels, rate, codec, width


def _decoder(sound: WavSound) -> Callable[[bytes], Values]:
    """What turns bytes into samples in ±1."""
    if sound.codec == _FLOAT:
        kind = np.dtype(f"{sound.order}f{sound.width}")

        def decode_float(data: bytes) -> Values:
            with np.errstate(over="ignore", invalid="ignore"):  # what float32 cannot hold becomes infinite
                return np.frombuffer(data, kind).astype(np.float32)

        return decode_float
    if sound.codec in (_A_LAW, _MU_LAW):
        table = _a_law() if sound.codec == _A_LAW else _mu_law()
        return lambda data: table[np.frombuffer(data, np.uint8)]
    return lambda data: _integers(data, sound.width, sound.order)


def _integers(data: bytes, width: int, order: str) -> Values:
    """Signed integers of 2 to 4 bytes, or unsigned ones of one byte."""
    values = np.frombuffer(data, np.uint8).reshape(-1, width)
    if order == ">":
        values = values[:, ::-1]
    # The sample's bytes become the upper ones of an int32.
    wide = np.zeros((len(values), 4), np.uint8)
    wide[:, 4 - width :] = values if width > 1 else values ^ 0x80
    samples: Values = wide.view("<i4")[:, 0].astype(np.float32)
    samples /= 2**31
    return samples


def _a_law() -> Values:
    """ITU-T G.711, A-law: the sample of each byte."""
    byte = np.arange(256) ^ 0x55
    exponent, mantissa = byte >> 4 & 7, byte & 15
    size = np.where(exponent == 0, mantissa * 16 + 8, (mantissa * 16 + 0x108) << np.maximum(exponent - 1, 0))
    return _scaled(np.where(byte & 0x80, size, -size))


def _mu_law() -> Values:
    """ITU-T G.711, mu-law: the sample of each byte."""
    byte = ~np.arange(256) & 255
    size = (((byte & 15) * 8 + 0x84) << (byte >> 4 & 7)) - 0x84
    return _scaled(np.where(byte & 0x80, -size, size))


def _scaled(values: npt.NDArray[np.int64]) -> Values:
    samples: Values = values.astype(np.float32)
    samples /= 2**15
    return samples
