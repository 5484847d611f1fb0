"""Records one session: listens to its player, and writes files in a thread of its own."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.core.players import ClipSound
from gateway.recording.timeline import PicturePiece, RecordingPiece, RecordingTimeline, SoundPiece
from protocol.process.logs import first_line
from protocol.wire.browser import VideoMessage
from protocol.wire.clock import SAMPLE_RATE
from protocol.wire.phrases import phrase

if TYPE_CHECKING:
    from gateway.recording.part import RecordingPart

logger = logging.getLogger(__name__)

#: Bytes that may wait for the disk.
MOST_WAITING = 64 << 20
#: Seconds of sound without a picture after which there is nothing to record.
MOST_EARLY = 60.0
#: Files that one recording may have: the codec or the size of the pictures changes between them.
MOST_PARTS = 60


@dataclass(frozen=True)
class RecordingLimits:
    """The bounds of a recording."""

    seconds: float
    bytes: int


@dataclass(frozen=True)
class PartEvent:
    """A file was begun, or has ended for a reason."""

    path: Path
    seconds: float = 0.0
    bytes: int = 0
    #: Empty for a file that begins.
    ended: str = ""


class SessionRecorder:
    """A tap on a session's player. It begins with the next clip.

    Args:
        rate: of the session's sound, in Hz.
        limits: of the recording.
        new_stem: gives the path of a new file, without its ending.
        report: is called in the writing thread for each file that begins or ends, and with None in the end.
        generated: whether files are marked as generated.
        sign: signs a finished file, or does nothing.
        clock: the session's.
    """

    def __init__(
        self,
        rate: int,
        limits: RecordingLimits,
        new_stem: Callable[[], Path],
        report: Callable[[PartEvent | None], None],
        *,
        generated: bool,
        sign: Callable[[Path], None] = lambda path: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.rate = rate
        self._limits = limits
        self._report = report
        self._clock = clock
        self._timeline = RecordingTimeline(rate)
        self._began = clock()
        #: Bytes that this thread has handed to the writing thread, and bytes that are written.
        self._handed = self._written = 0
        self._queue: queue.SimpleQueue[list[RecordingPiece] | str] = queue.SimpleQueue()
        self._writer = _Writer(rate, limits, new_stem, report, generated, sign)
        #: Whether nothing more is taken.
        self.stopped = False
        self._thread = threading.Thread(target=self._run, name="recording", daemon=True)
        self._thread.start()

    # ---- the tap

    def sound(self, sound: ClipSound, start: float) -> None:
        """Take the sound of the next clip."""
        if not self.stopped:
            self._timeline.add_sound(sound, start)

    def picture(self, picture: VideoMessage, now: float) -> None:
        """Take a frame."""
        if not self.stopped:
            self._timeline.add_picture(picture, now)

    def interrupted(self) -> None:
        """Forget everything that the client will not play."""
        if not self.stopped:
            self._hand_over(self._timeline.cut(self._clock()))

    # ---- from the gateway

    def tick(self, now: float) -> None:
        """Hand on everything whose time has come. Stops at the limits."""
        if self.stopped:
            return
        self._hand_over(self._timeline.pull(now))
        if now - self._began > self._limits.seconds:
            self.stop(phrase("recording_long"))
        elif self._handed - self._written > MOST_WAITING:
            self.stop(phrase("recording_disk"))
        elif not self._thread.is_alive():
            self.stop(phrase("recording_unwritable"))

    def stop(self, reason: str) -> None:
        """End the recording at this moment."""
        if self.stopped:
            return
        self._hand_over(self._timeline.cut(self._clock()))
        self.stopped = True
        self._queue.put(reason)

    def join(self, seconds: float) -> None:
        """Wait until the last file is written."""
        self._thread.join(seconds)

    def _hand_over(self, pieces: list[RecordingPiece]) -> None:
        if pieces:
            self._handed += sum(map(_bytes_of, pieces))
            self._queue.put(pieces)

    # ---- in the thread

    def _run(self) -> None:
        try:
            while not isinstance(batch := self._queue.get(), str) and not self._writer.full:
                for piece in batch:
                    self._writer.write(piece)
                self._written += sum(map(_bytes_of, batch))
            reason = batch if isinstance(batch, str) else phrase("recording_large")
            self._writer.end(reason)
        # A file system or a library may fail in any way, and that must cost nobody a session.
        except Exception as error:
            logger.warning("a recording cannot be written: %s", first_line(error))
            self._writer.give_up(phrase("recording_unwritable"))
        self._report(None)


def _bytes_of(piece: RecordingPiece) -> int:
    return piece.samples.nbytes if isinstance(piece, SoundPiece) else len(piece.picture.data)


class _Writer:
    """The files of a recording, one after the other."""

    def __init__(
        self,
        rate: int,
        limits: RecordingLimits,
        new_stem: Callable[[], Path],
        report: Callable[[PartEvent | None], None],
        generated: bool,
        sign: Callable[[Path], None],
    ) -> None:
        self._rate = rate
        self._limits = limits
        self._new_stem = new_stem
        self._report = report
        self._generated = generated
        self._sign = sign
        self._part: RecordingPart | None = None
        self._parts = 0
        self._bytes = 0
        #: Sound that comes before the first picture.
        self._early: list[SoundPiece] = []

    @property
    def full(self) -> bool:
        """Whether the recording has reached its size, or its number of files."""
        size = self._bytes + (self._part.bytes if self._part else 0)
        return size > self._limits.bytes or self._parts > MOST_PARTS

    def write(self, piece: RecordingPiece) -> None:
        """Write a piece into the file that it belongs to."""
        if isinstance(piece, SoundPiece):
            if self._part is None:
                self._early.append(piece)
                if (piece.start - self._early[0].start) / self._rate > MOST_EARLY:
                    self._early.pop(0)
            else:
                self._part.add_sound(piece)
            return
        if self._part is not None and not self._part.fits(piece.picture):
            self.end(phrase("recording_pictures"))
        if self._part is None:
            if not piece.picture.key:
                return
            self._begin(piece)
        assert self._part is not None
        self._part.add_picture(piece)

    def end(self, reason: str) -> None:
        """Finish the file, if there is one."""
        part, self._part = self._part, None
        if part is None:
            return
        part.finish()
        self._sign(part.path)
        self._bytes += part.path.stat().st_size
        self._report(PartEvent(part.path, part.seconds, part.path.stat().st_size, reason))

    def give_up(self, reason: str) -> None:
        """Close the file after an error. It stays as far as it goes."""
        part, self._part = self._part, None
        if part is not None:
            part.discard()
            size = part.path.stat().st_size if part.path.exists() else 0
            self._report(PartEvent(part.path, part.seconds, size, reason))

    def _begin(self, first: PicturePiece) -> None:
        # Here, because PyAV is optional, and a gateway that records nothing needs none of its memory.
        from gateway.recording.part import RecordingPart

        early, self._early = self._early, []
        start = min([first.pts, *(sound.start * SAMPLE_RATE // self._rate for sound in early)])
        stem = self._new_stem()
        self._part = RecordingPart(stem, first.picture, self._rate, start, generated=self._generated)
        self._parts += 1
        self._report(PartEvent(self._part.path))
        for sound in early:
            self._part.add_sound(sound)
