"""A session's sent PCM, cut into clips, kept until each clip is played out.

The log is the session's clock. It gives every sample its `pts` (in 16 kHz samples), says where clips begin
and end, and gives back the exact samples of a clip. A clip that a pause cuts short ends where the client's
samples end. The pipeline pads it with silence, which is never echoed, and the next sample starts the next
clip.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from protocol.wire.clock import (
    SAMPLE_RATE,
    look_ahead,
    pts_after,
    pts_of_clip,
    pts_of_frame,
    samples_until,
)
from protocol.wire.messages import Samples

#: Seconds of sound before the oldest clip in the log that are kept, for a worker that knows nothing of them.
#: It is the length of the audio worker's ring.
HISTORY_SECONDS = 1.5


@dataclass(frozen=True)
class ClipShape:
    """How a stream is cut: `frames` frames a clip, `fps` frames a second."""

    fps: int
    frames: int

    def pts(self, clip: int) -> int:
        """pts of the first sample of `clip`."""
        return pts_of_clip(clip, self.fps, self.frames)

    @property
    def seconds(self) -> float:
        return self.frames / self.fps


@dataclass(frozen=True)
class Piece:
    """Part of one clip, ready for the audio worker. Never crosses a clip's end."""

    clip: int
    pts: int
    samples: Samples
    flush: bool = False


@dataclass(frozen=True)
class ClipAudio:
    """A complete clip's sound.

    Attributes:
        clip: its number.
        pts: of the clip's first sample that the client sent.
        position: samples that the client had sent before the clip.
        samples: at the client's rate.
        ended_at: when the last of them came, in seconds.
        joined: whether the first sample followed the clip before without a pause.
        idle: whether the client sent none of the samples.
        silence: samples at the clip's beginning that the client did not send.
    """

    clip: int
    pts: int
    position: int
    samples: Samples
    ended_at: float
    joined: bool
    idle: bool = False
    silence: int = 0


class AudioLog:
    """Samples in, pieces out. Complete clips are kept by number.

    `rate` is the client's sample rate. `position` samples came before, and `history` has the last of them.
    Of a stream without pauses, clip k covers the client's samples from `bound(k)` to `bound(k + 1)`.
    """

    def __init__(
        self,
        shape: ClipShape,
        rate: int = SAMPLE_RATE,
        position: int = 0,
        history: Samples | None = None,
    ) -> None:
        self.shape = shape
        self.rate = rate
        self.clip = 0  # the clip being filled
        self._length_of, self._length = -1, 0  # a clip, and its samples
        self.position = position  # samples received in all
        self._clip_position = position  # of the first sample of the clip being filled
        self._parts: list[Samples] = []
        self._filled = 0
        self._silence = 0  # samples in front of those of the client
        self._joined = False
        self._holds_back = rate != SAMPLE_RATE or look_ahead(shape.fps, shape.frames) > 0
        self._held_back = False  # the audio worker may hold the last clip back
        self.after_idle = False  # the last clip was one that the client did not send
        self._done: dict[int, ClipAudio] = {}
        #: The sound before the oldest clip in the log, at most 1.5 s, with the padding that the model heard.
        self.history = np.empty(0, np.float32) if history is None else history

    def bound(self, clip: int) -> int:
        """The client's sample at which `clip` begins, were there no pauses."""
        return samples_until(self.shape.pts(clip), self.rate)

    @property
    def partial(self) -> int:
        """Samples in the clip being filled."""
        return self._filled

    @property
    def missing(self) -> int:
        """Samples that end the clip being filled."""
        if self._length_of != self.clip:  # asked for at each of the client's messages
            self._length_of, self._length = self.clip, self.bound(self.clip + 1) - self.bound(self.clip)
        return self._length - self._filled

    @property
    def held(self) -> int:
        """Complete clips not yet released."""
        return len(self._done)

    @property
    def begins(self) -> bool:
        """Whether the next sample begins a clip that follows none without a pause, nor one of idle life."""
        return not (self._filled or self._joined or self.after_idle)

    def holds(self, clip: int) -> bool:
        """Whether this clip is complete and not released."""
        return clip in self._done

    def begin_with_silence(self, frames: int) -> None:
        """Let the next clip begin with so many frames of silence that the client did not send.

        No clip may have begun, and samples must follow. To the audio worker it is a hole, so silence.
        """
        first = self.clip * self.shape.frames + frames
        start = samples_until(pts_of_frame(first, self.shape.fps), self.rate)
        self._filled = self._silence = start - self.bound(self.clip)

    def append(self, samples: Samples, now: float) -> list[Piece]:
        """Add samples, shape (n,). Returns the pieces that they make, cut at clip ends."""
        pieces = []
        start = 0
        self._held_back = self._holds_back and (self._held_back or len(samples) > 0)
        while start < len(samples):
            missing = self.missing
            part = samples[start : start + missing]
            if not self._parts:
                self._clip_position = self.position
            start += len(part)
            pieces.append(Piece(self.clip, self._next_pts(), part))
            self._parts.append(part)
            self._filled += len(part)
            self.position += len(part)
            if len(part) == missing:
                self._finish(now, joined=True)
        return pieces

    def skip(self, count: int) -> None:
        """The client sent this many samples more which are left out."""
        self.position += count

    def flush(self, now: float) -> Piece | None:
        """End the clip being filled. None when no clip has begun.

        At rates that are resampled, the last samples of a clip that is complete here may still be in the
        resampler. A clip with a look ahead may still wait for what follows. So a pause is flushed there too.
        """
        if self._filled:
            piece = Piece(self.clip, self._next_pts(), np.empty(0, np.float32), flush=True)
            self._finish(now, joined=False)
        elif self._held_back:
            piece = Piece(self.clip - 1, self._next_pts(), np.empty(0, np.float32), flush=True)
        else:
            return None
        self._held_back = self._joined = False
        return piece

    def append_idle(self, now: float) -> Piece:
        """A whole clip of silence, which the client did not send. No clip may have begun."""
        silence = np.zeros(self.missing, np.float32)
        piece = Piece(self.clip, self._next_pts(), silence, flush=True)
        self._clip_position = self.position
        self._finish(now, joined=False, idle=True)
        self._held_back = self._joined = False
        return piece

    @property
    def holds_speech(self) -> bool:
        """Whether speech of the client is here that was not played yet."""
        return bool(self._filled) or not all(audio.idle for audio in self._done.values())

    def take_from(self, clip: int) -> Samples:
        """Remove and give back every sample from the beginning of `clip` on. Clips before it are released."""
        for seq in [seq for seq in self._done if seq < clip]:
            self.release(seq)
        samples = _join([*(self._done[seq].samples for seq in sorted(self._done)), *self._parts])
        self.position -= len(samples)
        self._parts, self._filled, self._silence, self._done = [], 0, 0, {}
        return samples

    def complete(self, clip: int) -> bool:
        """Whether all of `clip`'s samples have come (released clips included)."""
        return clip < self.clip

    def audio(self, clip: int) -> ClipAudio:
        """The sound of a complete clip. Raises KeyError when it is not complete or already released."""
        return self._done[clip]

    def release(self, clip: int) -> ClipAudio:
        """`audio(clip)`, forgetting it. It becomes part of the history."""
        audio = self._done.pop(clip)
        padding = self.bound(clip + 1) - self.bound(clip) - len(audio.samples) - audio.silence
        before, after = np.zeros(audio.silence, np.float32), np.zeros(padding, np.float32)
        heard = _join([self.history, before, audio.samples, after])
        self.history = heard[-int(HISTORY_SECONDS * self.rate) :]
        return audio

    def _next_pts(self) -> int:
        return self.shape.pts(self.clip) + pts_after(self._filled, self.rate)

    def _finish(self, now: float, joined: bool, idle: bool = False) -> None:
        self._done[self.clip] = ClipAudio(
            clip=self.clip,
            pts=self.shape.pts(self.clip) + pts_after(self._silence, self.rate),
            position=self._clip_position,
            samples=_join(self._parts),
            ended_at=now,
            joined=self._joined,
            idle=idle,
            silence=self._silence,
        )
        self._parts, self._filled, self._silence = [], 0, 0
        self._joined, self.after_idle = joined, idle
        self.clip += 1


def _join(parts: list[Samples]) -> Samples:
    return np.concatenate(parts) if parts else np.empty(0, np.float32)
