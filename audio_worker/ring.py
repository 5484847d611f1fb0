"""One session's sound: chunks of any size in, a window of 1.5 s out for each clip.

No sockets, no clock, no model. Positions are 16 kHz samples of the session's stream (pts). Clip k starts at
frame k·clip_frames, that is at sample k·clip_frames·16000//fps. Its window is the 24,000 samples that end
with the clip: the clip and the history before it. Before the stream's first sample there is silence.
With a look ahead, a window ends so many samples after its clip, and is there when these have come.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import soxr

from protocol.wire.clock import SAMPLE_RATE, clip_at, pts_after, pts_of_clip
from protocol.wire.messages import Samples
from protocol.wire.phrases import phrase

#: Samples of a clip's window: 1.5 s.
WINDOW = 24_000
#: A hole of up to 2 s in a stream is filled with silence. After a longer one the stream begins anew.
MAX_GAP = 2 * SAMPLE_RATE


class SpeechError(ValueError):
    """A session's sound cannot be used. The text says why, for the person at the other end."""


@dataclass(frozen=True, slots=True)
class ClipWindow:
    """The sound that clip `seq` is made from: 24,000 samples that end with the clip or its look ahead.

    `pts` is the position of the clip's first frame.
    """

    seq: int
    pts: int
    samples: Samples


class ClipRing:
    """Cuts a stream of 16 kHz samples into clip windows.

    Args:
        fps: frames per second.
        clip_frames: frames of a clip. A clip lasts 1.5 s at most.
        ahead: samples after a clip that its window has besides, fewer than a clip has.

    Raises:
        SpeechError: a clip would be longer than the window.
    """

    def __init__(self, fps: int, clip_frames: int, ahead: int = 0) -> None:
        if pts_of_clip(1, fps, clip_frames) > WINDOW:
            raise SpeechError(phrase("failed_clip_long", frames=clip_frames, fps=fps))
        self._fps = fps
        self._clip_frames = clip_frames
        self._ahead = ahead
        self._next = 0  # the clip whose window is next
        self._position: int | None = None  # pts of the next sample; None before the first
        self._store = np.zeros(4 * WINDOW, np.float32)
        self._fill = WINDOW  # samples in the store; the last WINDOW of them are the history

    @property
    def position(self) -> int | None:
        """pts of the next expected sample, None before the first."""
        return self._position

    def clip_start(self, seq: int) -> int:
        """pts of the first frame of clip `seq`."""
        return pts_of_clip(seq, self._fps, self._clip_frames)

    def clip_at(self, pts: int) -> int:
        """The clip that sample `pts` belongs to."""
        return clip_at(pts, self._fps, self._clip_frames)

    def prime(self, history: Samples) -> None:
        """Put sound before the stream's first sample, in place of silence. The last 1.5 s of it count."""
        if len(history):
            heard = history[-WINDOW:]
            self._store[self._fill - len(heard) : self._fill] = heard

    def push(self, samples: Samples, pts: int) -> list[ClipWindow]:
        """Add samples, the first of them at `pts`.

        Samples that are known already are skipped: a chunk can come twice when a worker was replaced.

        Returns:
            The windows of the clips that are complete now.
        """
        windows: list[ClipWindow] = []
        if self._position is None:
            self._begin_at(pts)
        assert self._position is not None
        gap = pts - self._position
        if gap > MAX_GAP:
            windows += self.flush()
            self._store[:] = 0.0
            self._begin_at(pts)
        elif gap > 0:
            windows += self._append(np.zeros(gap, np.float32))
        elif gap < 0:
            samples = samples[-gap:]
        return windows + self._append(samples)

    def flush(self) -> list[ClipWindow]:
        """Complete the clip in progress with silence, and one that waits. Without them there is no window."""
        if self._position is None:
            return []
        seq = self.clip_at(self._position)
        left = 0 if self._position == self.clip_start(seq) else self.clip_start(seq + 1) - self._position
        windows = self._append(np.zeros(left, np.float32))
        return windows + self.look_no_further()

    @property
    def looks_ahead(self) -> bool:
        """Whether a clip is complete and waits for sound after it."""
        return self._position is not None and self._position >= self.clip_start(self._next + 1)

    def look_no_further(self) -> list[ClipWindow]:
        """The window of a clip that waits for sound after it, with silence in its place."""
        if not self.looks_ahead:
            return []
        assert self._position is not None
        missing = self.clip_start(self._next + 1) + self._ahead - self._position
        heard = np.concatenate(
            [self._store[self._fill - WINDOW + missing : self._fill], np.zeros(missing, np.float32)]
        )
        return [self._window(heard)]

    def _begin_at(self, pts: int) -> None:
        self._position, self._next = pts, self.clip_at(pts)

    def _window(self, heard: Samples) -> ClipWindow:
        """The window of the next clip."""
        seq, self._next = self._next, self._next + 1
        return ClipWindow(seq, self.clip_start(seq), heard)

    def _append(self, samples: Samples) -> list[ClipWindow]:
        assert self._position is not None
        windows = []
        while len(samples) > 0:
            end = self.clip_start(self._next + 1) + self._ahead
            piece, samples = samples[: end - self._position], samples[end - self._position :]
            if self._fill + len(piece) > len(self._store):
                self._store[:WINDOW] = self._store[self._fill - WINDOW : self._fill]
                self._fill = WINDOW
            self._store[self._fill : self._fill + len(piece)] = piece
            self._fill += len(piece)
            self._position += len(piece)
            if self._position == end:
                windows.append(self._window(self._store[self._fill - WINDOW : self._fill].copy()))
        return windows


class SpeechStream:
    """One epoch of a session: a `ClipRing`, behind a resampler where the rate is not 16 kHz.

    The resampler is soxr's high quality one. It holds back its filter's length (about 40 ms at 48 kHz) and
    gives the rest on flush. Positions stay true: sample i of the input is at i·16000/rate of the output.

    Args:
        sample_rate: rate of the samples that come, in hertz.
        fps: frames per second.
        clip_frames: frames of a clip.
        history: samples that were spoken before, at the stream's own rate.
        ahead: samples at 16 kHz after a clip that its window has besides.

    Raises:
        SpeechError: a clip would be longer than the window.
    """

    def __init__(
        self, sample_rate: int, fps: int, clip_frames: int, history: Samples | None = None, ahead: int = 0
    ) -> None:
        self.sample_rate = sample_rate
        self.fps = fps
        self.clip_frames = clip_frames
        self.ahead = ahead
        self._ring = ClipRing(fps, clip_frames, ahead)
        if history is not None and len(history):
            self._ring.prime(soxr.resample(history, sample_rate, SAMPLE_RATE))
        self._resampler: Any = None
        self._start = 0  # pts of the resampler's first sample
        self._taken = 0  # samples it took, at its own rate
        self._given = 0  # samples it gave, at 16 kHz

    def add_chunk(self, samples: Samples, pts: int, flush: bool = False) -> list[ClipWindow]:
        """Add samples at the stream's own rate, the first of them at `pts` (16 kHz).

        Args:
            samples: any number, also none.
            pts: position of the first one.
            flush: complete the clip in progress with silence.

        Returns:
            The windows of the clips that are complete now.
        """
        if self.sample_rate == SAMPLE_RATE:
            windows = self._ring.push(samples, pts)
            return windows + self._ring.flush() if flush else windows
        windows = []
        if len(samples) > 0:
            samples, pts = self._skip_known(samples, pts)
        if len(samples) > 0:
            # two samples of slack: the sender rounds its positions down to 16 kHz
            if self._resampler is not None and pts - self._expected() > 2:
                windows += self._drain()
            windows += self._resample(samples, pts)
        if flush:
            windows += self._drain() + self._ring.flush()
        return windows

    @property
    def looks_ahead(self) -> bool:
        """Whether a clip is complete and waits for sound after it."""
        return self._ring.looks_ahead

    def look_no_further(self) -> list[ClipWindow]:
        """The window of a clip that waits for sound after it, with silence in its place."""
        return self._ring.look_no_further()

    def _expected(self) -> int:
        """pts of the next input sample."""
        return self._start + pts_after(self._taken, self.sample_rate)

    def _skip_known(self, samples: Samples, pts: int) -> tuple[Samples, int]:
        known = self._expected() if self._resampler is not None else self._ring.position
        if known is None or known - pts <= 2:
            return samples, pts
        return samples[-(-(known - pts) * self.sample_rate // SAMPLE_RATE) :], known

    def _resample(self, samples: Samples, pts: int) -> list[ClipWindow]:
        if self._resampler is None:
            self._resampler = soxr.ResampleStream(
                self.sample_rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ"
            )
            self._start, self._taken, self._given = pts, 0, 0
        self._taken += len(samples)
        return self._emit(self._resampler.resample_chunk(samples))

    def _drain(self) -> list[ClipWindow]:
        if self._resampler is None:
            return []
        rest = self._resampler.resample_chunk(np.zeros(0, np.float32), last=True)
        left = self._expected() - (self._start + self._given)  # soxr rounds the length up, pts round down
        windows = self._emit(rest[: max(left, 0)])
        self._resampler = None
        return windows

    def _emit(self, resampled: Samples) -> list[ClipWindow]:
        pts = self._start + self._given
        self._given += len(resampled)
        return self._ring.push(resampled, pts)
