"""Frames in as they arrive, in any order. Clips out in order, each frame once.

Encoders work side by side, and a clip may be decoded twice when one of them goes silent. So frames arrive out
of order and doubled. A clip that failed is skipped: its sound goes on and the last frame stays on the screen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from protocol.wire.messages import Frame


@dataclass(frozen=True)
class ClipBegins:
    """Clip `seq` is next.

    Attributes:
        seq: number of the clip.
        has_frames: False when the clip failed before its first frame. It is True when the sound goes ahead of
            frames that may still come.
        silent: whether the first frame is there and says that the clip holds no voice.
    """

    seq: int
    has_frames: bool
    silent: bool = False


@dataclass(frozen=True)
class NextFrame:
    """The next frame of the clip that has begun."""

    frame: Frame


@dataclass(frozen=True)
class ClipEnds:
    """Clip `seq` is over. `missing` of its frames were lost."""

    seq: int
    missing: int


InOrder = ClipBegins | NextFrame | ClipEnds


@dataclass
class _ClipFrames:
    """The frames of one clip that have arrived and are not given out yet."""

    count: int = 0
    frames: dict[int, Frame] = field(default_factory=dict)
    next_index: int = 0
    begun: bool = False
    #: Its sound does not wait for the first frame any more.
    sound_due: bool = False
    failed: bool = False


class Reorderer:
    """One epoch of a session. `known(seq)` says whether that clip was ever asked for."""

    def __init__(self, frames_per_clip: int, known: Callable[[int], bool]) -> None:
        self._expected = frames_per_clip
        self._known = known
        self._clips: dict[int, _ClipFrames] = {}
        self.next_seq = 0

    def add_frame(self, frame: Frame) -> bool:
        """Take a frame. False for one seen before, and for a clip that is over or was never asked for."""
        if frame.seq < self.next_seq or not self._known(frame.seq) or frame.index >= frame.count:
            return False
        clip = self._clips.setdefault(frame.seq, _ClipFrames())
        if clip.failed or frame.index < clip.next_index or frame.index in clip.frames:
            return False
        clip.count = clip.count or frame.count
        if frame.count != clip.count:
            return False
        clip.frames[frame.index] = frame
        return True

    def fail(self, seq: int) -> bool:
        """The missing frames of clip `seq` will not come. False when it is over or was never asked for."""
        if seq < self.next_seq or not self._known(seq):
            return False
        self._clips.setdefault(seq, _ClipFrames()).failed = True
        return True

    def begin_sound(self) -> None:
        """The sound of the next clip is not to wait for its frames."""
        self._clips.setdefault(self.next_seq, _ClipFrames()).sound_due = True

    def pop(self) -> list[InOrder]:
        """Everything that can be given out now, in order."""
        out: list[InOrder] = []
        while (clip := self._clips.get(self.next_seq)) is not None:
            seq = self.next_seq
            ready = clip.next_index in clip.frames
            if not clip.begun and (ready or clip.failed or clip.sound_due):
                clip.begun = True
                silent = ready and clip.frames[clip.next_index].silent
                out.append(ClipBegins(seq, ready or not clip.failed, silent))
            while clip.next_index in clip.frames:
                out.append(NextFrame(clip.frames.pop(clip.next_index)))
                clip.next_index += 1
            over = clip.count and clip.next_index == clip.count
            if not over and not clip.failed:
                break
            out.append(ClipEnds(seq, (clip.count or self._expected) - clip.next_index))
            del self._clips[seq]
            self.next_seq += 1
        return out

    @property
    def begun(self) -> bool:
        """Whether the next clip has begun and is not over."""
        clip = self._clips.get(self.next_seq)
        return clip is not None and clip.begun

    @property
    def left(self) -> int:
        """Frames of the clip that has begun which are not given out yet. 0 when none has begun."""
        clip = self._clips.get(self.next_seq)
        return (clip.count or self._expected) - clip.next_index if clip and clip.begun else 0

    @property
    def overtaken(self) -> bool:
        """Whether a later clip is complete while the next one is still waited for."""
        return any(clip.frames and self.complete(seq) for seq, clip in self._clips.items())

    def complete(self, seq: int) -> bool:
        """Whether every frame of `seq` has arrived, or none is wanted any more."""
        if seq < self.next_seq:
            return True
        clip = self._clips.get(seq)
        if clip is None:
            return False
        return clip.failed or (clip.count > 0 and clip.next_index + len(clip.frames) == clip.count)
