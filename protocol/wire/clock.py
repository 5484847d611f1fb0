"""The clock of a session: positions in 16 kHz samples (pts), frames and clips.

The count of audio samples is the only clock. Frame i of a session belongs to sample i·16000/fps. Divisions
round down, so a position is a whole sample at every frame rate, and every process finds the same one.
"""

from __future__ import annotations

#: Samples of a second on the session's clock. A `pts` counts these.
SAMPLE_RATE = 16_000
#: Frame rates that a machine may be given without `--fps`, from the highest down.
FRAME_RATES = (24, 12, 8)
#: The frame rate that `--clip-frames` counts in.
FULL_RATE = FRAME_RATES[0]
#: Frames of a clip at that rate where nothing is chosen, as in the official windows.
USUAL_CLIP_FRAMES = 12
#: Samples behind a clip that its tokens are made of besides, by its own samples. A clip's last frames lack
#: what lies behind it. Of 3 frames at 24 fps two do, and 20 ms more give back half of what that costs the
#: mouth (docs/lab/continuity.md).
LOOK_AHEAD = {3 * SAMPLE_RATE // FULL_RATE: SAMPLE_RATE // 50}


def look_ahead(fps: int, frames: int) -> int:
    """Samples after a clip of so many frames that have to come before it is made."""
    return LOOK_AHEAD.get(pts_of_clip(1, fps, frames), 0)


def frames_of_clip(fps: int, clip_frames: int) -> int:
    """Frames of a clip at `fps`. It lasts as long as `clip_frames` at 24 fps do (12, 6, 4 by default)."""
    return max(1, clip_frames * fps // FULL_RATE)


def pts_of_frame(frame: int, fps: int) -> int:
    """Position of the sample that frame `frame` of a session belongs to."""
    return frame * SAMPLE_RATE // fps


def pts_of_clip(clip: int, fps: int, frames: int) -> int:
    """Position of the first sample of clip `clip` in a session whose clips have `frames` frames each."""
    return pts_of_frame(clip * frames, fps)


def first_frame_from(pts: int, fps: int) -> int:
    """The first frame of a session at `pts` or later, which is the frame itself for a frame's own pts."""
    return -(-pts * fps // SAMPLE_RATE)


def clip_at(pts: int, fps: int, frames: int) -> int:
    """The clip that sample `pts` belongs to."""
    # pts_of_clip rounds down, so the clip's first sample may lie before the exact quotient
    clip = pts * fps // (frames * SAMPLE_RATE)
    return clip + 1 if pts_of_clip(clip + 1, fps, frames) <= pts else clip


def pts_after(samples: int, rate: int) -> int:
    """Position on the clock after `samples` samples at `rate`."""
    return samples * SAMPLE_RATE // rate


def samples_until(pts: int, rate: int) -> int:
    """Samples at `rate` before position `pts`."""
    return pts * rate // SAMPLE_RATE
