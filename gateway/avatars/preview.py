"""Has the stages animate an avatar for a second, in a session of its own that no client sees."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gateway.avatars.syllables import syllables
from protocol.wire.clock import SAMPLE_RATE, frames_of_clip, pts_of_clip
from protocol.wire.messages import Failed, Frame, Pcm

#: Sessions of previews have names that begin with this. Clients' are hexadecimal digits.
PREFIX = "_preview-"
#: Seconds of speech, and seconds within which the stages have to answer.
SPEECH, WITHIN = 1.0, 40.0
#: Clips under way. Of more than two that wait, a worker gives up the oldest, as it does with any session's.
AT_ONCE = 2


class PreviewError(Exception):
    """The stages did not animate the avatar. The text says why."""


@dataclass(frozen=True, slots=True)
class PreviewShape:
    """The shape of a preview: the rate in frames a second, frames of a clip, and a pose's id."""

    fps: int
    clip_frames: int
    pose: str


def _speech(name: str, avatar: str, shape: PreviewShape, clips: int, frames: int) -> deque[Pcm]:
    end = pts_of_clip(clips, shape.fps, frames)
    sound = syllables(end / SAMPLE_RATE + 0.1)[:end]
    speech: deque[Pcm] = deque()
    # Clip by clip, and the last one ends without padding.
    for seq in range(clips):
        begin, stop = (pts_of_clip(clip, shape.fps, frames) for clip in (seq, seq + 1))
        speech.append(
            Pcm(
                name, 0, seq, begin, SAMPLE_RATE, shape.fps, frames, avatar, shape.pose,
                seq == clips - 1, sound[begin:stop].copy(),
            )
        )  # fmt: skip
    return speech


@dataclass(slots=True)
class _Waiting:
    """The frames of one preview, by clip."""

    clips: int
    done: asyncio.Future[None]
    #: Speech that is not sent yet, clip by clip.
    speech: deque[Pcm]
    frames: dict[int, dict[int, Frame]] = field(default_factory=dict)
    #: The clips whose frames are all there.
    whole: int = 0

    def add(self, frame: Frame) -> bool:
        """Keep a frame. Returns whether its clip is whole by it."""
        clip = self.frames.setdefault(frame.seq, {})
        known = frame.index in clip
        clip[frame.index] = frame
        if known or len(clip) < frame.count:
            return False
        self.whole += 1
        return True


class PreviewMaker:
    """Speaks to the stages as a session does, and collects the frames."""

    def __init__(self, send: Callable[[Sequence[Pcm]], None], close: Callable[[str, int], None]) -> None:
        """Nothing is under way.

        Args:
            send: hands speech to the audio workers.
            close: tells the stages that an epoch of a session is over.
        """
        self._send = send
        self._close = close
        self._waiting: dict[str, _Waiting] = {}
        #: One at a time: a preview takes what a session's second takes.
        self._turn = asyncio.Lock()

    async def make(self, avatar: str, shape: PreviewShape) -> list[bytes]:
        """The frames of a second of speech, as JPEG.

        Raises:
            PreviewError: the stages failed, or took too long.
        """
        async with self._turn:
            name = PREFIX + secrets.token_hex(8)
            frames = frames_of_clip(shape.fps, shape.clip_frames)
            clips = max(1, round(SPEECH * shape.fps / frames))
            speech = _speech(name, avatar, shape, clips, frames)
            waiting = _Waiting(clips, asyncio.get_running_loop().create_future(), speech)
            self._waiting[name] = waiting
            try:
                for _ in range(AT_ONCE):
                    self._send_next(waiting)
                await asyncio.wait_for(waiting.done, WITHIN)
            except asyncio.TimeoutError:
                raise PreviewError(f"the stages did not answer within {WITHIN:.0f} s") from None
            finally:
                del self._waiting[name]
                self._close(name, 0)
            return [clip[index].data for _, clip in sorted(waiting.frames.items()) for index in sorted(clip)]

    def _send_next(self, waiting: _Waiting) -> None:
        if waiting.speech:
            self._send([waiting.speech.popleft()])

    def take_frame(self, frame: Frame) -> None:
        """A frame came. Those of other sessions are passed over."""
        waiting = self._waiting.get(frame.session)
        if waiting is None or waiting.done.done():
            return
        if not waiting.add(frame):
            return
        if waiting.whole == waiting.clips:
            waiting.done.set_result(None)
        else:
            self._send_next(waiting)

    def take_failure(self, failed: Failed) -> None:
        """A clip will not come. Those of other sessions are passed over."""
        waiting = self._waiting.get(failed.session)
        if waiting is not None and not waiting.done.done():
            waiting.done.set_exception(PreviewError(failed.reason))
