"""Frames in whatever order they come; clips out in order, each picture once.

Encoders work side by side and a clip may be decoded twice when one of them goes silent, so frames arrive out
of order and doubled. A clip that failed is skipped: its sound goes on and the last picture stays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from protocol.wire.messages import Frame


@dataclass(frozen=True)
class ClipBegins:
    """Clip `seq` is next; `pictures` is False when it failed before its first picture."""

    seq: int
    pictures: bool


@dataclass(frozen=True)
class Picture:
    frame: Frame


@dataclass(frozen=True)
class ClipEnds:
    """Nothing more comes for clip `seq`; `missing` of its pictures were lost."""

    seq: int
    missing: int


InOrder = ClipBegins | Picture | ClipEnds


@dataclass
class _Clip:
    count: int = 0
    frames: dict[int, Frame] = field(default_factory=dict)  # arrived, not yet given out
    next_index: int = 0
    begun: bool = False
    failed: bool = False


class Reorderer:
    """One epoch of a session. `known(seq)` says whether that clip was ever asked for."""

    def __init__(self, frames_per_clip: int, known: Callable[[int], bool]) -> None:
        self._expected = frames_per_clip
        self._known = known
        self._clips: dict[int, _Clip] = {}
        self.next_seq = 0

    def frame(self, frame: Frame) -> bool:
        """Take a frame. False: seen before, or of a clip that is over or was never asked for."""
        if frame.seq < self.next_seq or not self._known(frame.seq) or frame.index >= frame.count:
            return False
        clip = self._clips.setdefault(frame.seq, _Clip())
        if clip.failed or frame.index < clip.next_index or frame.index in clip.frames:
            return False
        clip.count = clip.count or frame.count
        if frame.count != clip.count:
            return False
        clip.frames[frame.index] = frame
        return True

    def fail(self, seq: int) -> bool:
        """Clip `seq` will not come (any more). False when it is over or was never asked for."""
        if seq < self.next_seq or not self._known(seq):
            return False
        self._clips.setdefault(seq, _Clip()).failed = True
        return True

    def pop(self) -> list[InOrder]:
        """What can be given out now, in order."""
        out: list[InOrder] = []
        while (clip := self._clips.get(self.next_seq)) is not None:
            seq = self.next_seq
            ready = clip.next_index in clip.frames
            if not clip.begun and (ready or clip.failed):
                clip.begun = True
                out.append(ClipBegins(seq, ready))
            while clip.next_index in clip.frames:
                out.append(Picture(clip.frames.pop(clip.next_index)))
                clip.next_index += 1
            over = clip.count and clip.next_index == clip.count
            if not over and not clip.failed:
                break
            out.append(ClipEnds(seq, (clip.count or self._expected) - clip.next_index))
            del self._clips[seq]
            self.next_seq += 1
        return out

    @property
    def overtaken(self) -> bool:
        """Whether the next clip is waited for while all pictures of a later one are there."""
        return any(clip.frames and self.complete(seq) for seq, clip in self._clips.items())

    def complete(self, seq: int) -> bool:
        """Whether every picture of `seq` has arrived, or none is wanted any more."""
        if seq < self.next_seq:
            return True
        clip = self._clips.get(seq)
        if clip is None:
            return False
        return clip.failed or (clip.count > 0 and clip.next_index + len(clip.frames) == clip.count)
