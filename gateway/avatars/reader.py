"""Has pictures of strangers decoded, one at a time, each in a process of its own (`decoding`)."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from gateway.avatars.alignment import Sight, sight_of
from gateway.avatars.cropping import MOST_SIDE, Crop
from gateway.avatars.decoding import FACES, HEAD, MOST_FACES, MOST_PIXELS, REFUSED, UNABLE
from protocol.process.settings import ROOT
from protocol.wire.phrases import phrase

logger = logging.getLogger(__name__)

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
        status, output, reason = await self._run(
            picture, ",".join(f"{part:.6f}" for part in crop), f"{ratio:.6f}"
        )
        _check(status, reason)
        return _pixels_of(output)

    async def find_faces(self, picture: bytes) -> Sight | None:
        """Look for faces in a picture, as it was sent. None where nothing can look for them.

        Raises:
            PictureRefused: it is no picture that can be used.
        """
        status, output, reason = await self._run(picture, FACES)
        if status == UNABLE:
            logger.warning("no face is looked for: %s", reason)
            return None
        _check(status, reason)
        return _sight_of(output)

    async def _run(self, picture: bytes, *arguments: str) -> tuple[int, bytes, str]:
        """Exit status, output and reason of the process."""
        async with self._turn:
            # A file and no pipe: decoders seek. It has no name, so the system removes it in any case.
            with tempfile.TemporaryFile() as file:
                await asyncio.to_thread(file.write, picture)
                file.seek(0)
                return await self._run_with(file.fileno(), *arguments)

    async def _run_with(self, file: int, *arguments: str) -> tuple[int, bytes, str]:
        process = await asyncio.create_subprocess_exec(
            *self._command, *arguments,
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
        lines = reason.decode("utf-8", "replace").strip().splitlines()
        return status, output, lines[-1] if lines else ""


def _check(status: int, reason: str) -> None:
    """Raises PictureRefused for a process that failed."""
    if status == REFUSED:
        raise PictureRefused(reason or phrase("picture_decoder"))
    if status != 0:
        raise PictureRefused(phrase("picture_broken"))


def _pixels_of(output: bytes) -> Pixels:
    """The picture in the process's output. Raises PictureRefused where it is none."""
    width, height = HEAD.unpack_from(output) if len(output) >= HEAD.size else (0, 0)
    data = output[HEAD.size :]
    if not (0 < width <= MOST_SIDE and 0 < height <= MOST_SIDE and len(data) == 3 * width * height):
        raise PictureRefused(phrase("picture_decoder"))
    return Pixels(width, height, data)


def _sight_of(output: bytes) -> Sight:
    """The faces in the process's output. Raises PictureRefused where it is of another form.

    The process has read a stranger's picture, so nothing that it writes is trusted.
    """
    try:
        told = json.loads(output)
        width, height = (int(side) for side in told["size"])
        boxes = [[float(number) for number in box] for box in told["faces"]]
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        raise PictureRefused(phrase("picture_decoder")) from None
    most = max(width, height)
    if not (0 < width * height <= MOST_PIXELS and len(boxes) <= MOST_FACES) or not all(
        len(box) == 3 and all(-most <= number <= most for number in box) and box[2] >= 1 for box in boxes
    ):
        raise PictureRefused(phrase("picture_decoder"))
    return sight_of((width, height), boxes)


async def _read_at_most(stream: asyncio.StreamReader, most: int) -> bytes:
    """Everything up to the stream's end. Bytes beyond `most` are read and forgotten."""
    kept = bytearray()
    while part := await stream.read(1 << 16):
        kept += part[: most - len(kept)]
    return bytes(kept)
