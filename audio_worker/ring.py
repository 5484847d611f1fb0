"""One session's sound: chunks of any size in, a window of 1.5 s out for each clip.

No sockets, no clock, no model. Positions are 16 kHz samples of the session's stream (pts). Clip k starts at
frame k·clip_frames, that is at sample k·clip_frames·16000//fps. Its window is the 24,000 samples that end
with the clip: the clip and the history before it. Before the stream's first sample there is silence.
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
    """The sound that clip `seq` is made from: 24,000 samples that end with the clip.

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

    Raises:
        SpeechError: a clip would be longer than the window.
    """

    def __init__(self, fps: int, clip_frames: int) -> None:
        if pts_of_clip(1, fps, clip_frames) > WINDOW:
            raise SpeechError(phrase("failed_clip_long", frames=clip_frames, fps=fps))
        self._fps = fps
        self._clip_frames = clip_frames
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
            self._position = pts
        gap = pts - self._position
        if gap > MAX_GAP:
            windows += self.flush()
            self._store[:] = 0.0
            self._position = pts
        elif gap > 0:
            windows += self._append(np.zeros(gap, np.float32))
        elif gap < 0:
            samples = samples[-gap:]
        return windows + self._append(samples)

    def flush(self) -> list[ClipWindow]:
        """Complete the clip in progress with silence. Without one there is no window."""
        if self._position is None:
            return []
        seq = self.clip_at(self._position)
        if self._position == self.clip_start(seq):
            return []
        return self._append(np.zeros(self.clip_start(seq + 1) - self._position, np.float32))

    def _append(self, samples: Samples) -> list[ClipWindow]:
        assert self._position is not None
        windows = []
        seq = self.clip_at(self._position)
        while len(samples) > 0:
            end = self.clip_start(seq + 1)
            piece, samples = samples[: end - self._position], samples[end - self._position :]
            if self._fill + len(piece) > len(self._store):
                self._store[:WINDOW] = self._store[self._fill - WINDOW : self._fill]
                self._fill = WINDOW
            self._store[self._fill : self._fill + len(piece)] = piece
            self._fill += len(piece)
            self._position += len(piece)
            if self._position == end:
                heard = self._store[self._fill - WINDOW : self._fill].copy()
                windows.append(ClipWindow(seq, self.clip_start(seq), heard))
                seq += 1
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

    Raises:
        SpeechError: a clip would be longer than the window.
    """

    def __init__(self, sample_rate: int, fps: int, clip_frames: int, history: Samples | None = None) -> None:
        self.sample_rate = sample_rate
        self.fps = fps
        self.clip_frames = clip_frames
        self._ring = ClipRing(fps, clip_frames)
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
