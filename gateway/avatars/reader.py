"""Has pictures of strangers decoded, one at a time, each in a process of its own (`decoding`)."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from gateway.avatars.cropping import MOST_SIDE, Crop
from gateway.avatars.decoding import HEAD, REFUSED
from protocol.process.settings import ROOT
from protocol.wire.phrases import phrase

#: Seconds within which a picture has to be decoded.
SECONDS = 30.0
#: Bytes that the process may write.
_MOST_OUTPUT = HEAD.size + 3 * MOST_SIDE * MOST_SIDE
_MOST_REASON = 2000


class PictureRefused(Exception):
    """The picture cannot be used. The text says why, for the person who sent it."""


@dataclass(frozen=True, slots=True)
class Pixels:
    """A decoded picture: RGB, 8 bits each, row by row."""

    width: int
    height: int
    data: bytes


class PictureReader:
    """Decodes pictures, one at a time: each may take hundreds of megabytes."""

    def __init__(self, command: Sequence[str] = (sys.executable, "-m", "gateway.avatars.decoding")) -> None:
        """Nothing runs yet. `command` starts the process."""
        self._command = command
        self._turn = asyncio.Lock()

    async def read(self, picture: bytes, crop: Crop, ratio: float) -> Pixels:
        """Decode a picture.

        Args:
            picture: the file as it was sent.
            crop: the part that is wanted.
            ratio: width over height of the model's frames, to which the part is cut.

        Raises:
            PictureRefused: it is no picture that can be used.
        """
        async with self._turn:
            # A file and no pipe: decoders seek. It has no name, so the system removes it in any case.
            with tempfile.TemporaryFile() as file:
                await asyncio.to_thread(file.write, picture)
                file.seek(0)
                return await self._decode(file.fileno(), crop, ratio)

    async def _decode(self, file: int, crop: Crop, ratio: float) -> Pixels:
        process = await asyncio.create_subprocess_exec(
            *self._command, ",".join(f"{part:.6f}" for part in crop), f"{ratio:.6f}",
            stdin=file, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=ROOT,
            # Nothing of the gateway's environment: settings may name secrets' files.
            env={"PATH": os.defpath, "LC_ALL": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1"},
        )  # fmt: skip
        assert process.stdout is not None and process.stderr is not None
        try:
            output, reason = await asyncio.wait_for(
                asyncio.gather(
                    _read_at_most(process.stdout, _MOST_OUTPUT), _read_at_most(process.stderr, _MOST_REASON)
                ),
                SECONDS,
            )
            # The process has closed both pipes. If it does not end soon, it is killed.
            status = await asyncio.wait_for(process.wait(), SECONDS)
        except asyncio.TimeoutError:
            raise PictureRefused(phrase("picture_slow", seconds=f"{SECONDS:.0f}")) from None
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        if status == REFUSED:
            lines = reason.decode("utf-8", "replace").strip().splitlines()
            raise PictureRefused(lines[-1] if lines else phrase("picture_decoder"))
        if status != 0:
            raise PictureRefused(phrase("picture_broken"))
        return _pixels_of(output)


def _pixels_of(output: bytes) -> Pixels:
    """The picture in the process's output. Raises PictureRefused where it is none."""
    width, height = HEAD.unpack_from(output) if len(output) >= HEAD.size else (0, 0)
    data = output[HEAD.size :]
    if not (0 < width <= MOST_SIDE and 0 < height <= MOST_SIDE and len(data) == 3 * width * height):
        raise PictureRefused(phrase("picture_decoder"))
    return Pixels(width, height, data)


async def _read_at_most(stream: asyncio.StreamReader, most: int) -> bytes:
    """Everything up to the stream's end. Bytes beyond `most` are read and forgotten."""
    kept = bytearray()
    while part := await stream.read(1 << 16):
        kept += part[: most - len(kept)]
    return bytes(kept)
