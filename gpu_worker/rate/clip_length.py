"""The length of clips and the size of pictures: the best that this machine holds. No I/O, no clock.

A clip waits until it is spoken, so a length of 4 frames answers a third of a second sooner than one of 12. It
costs more a second: each clip has its own call of Whisper, of the denoiser and of all hops. Pictures of twice
the side cost more of the encoder. They come after the length: a late answer is worse than a soft face.

Clips of 3 frames are for machines with time to spare. They are made sooner than clips of 4. They wait 22 ms
less for sound, although 20 ms of it lie behind them (`protocol.wire.clock.LOOK_AHEAD`). They have no half, so
under load 24 frames a second become 8. They are tried only once clips of 4 are held with half of the time to
spare, so other machines do not time them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from protocol.process.settings import Settings
from protocol.wire.clock import USUAL_CLIP_FRAMES, frames_of_clip

#: Lengths to try before the usual one, frames at 24 fps. Both can be thinned to 12 fps.
SHORT_LENGTHS = (4, 6)

#: The length to try after the first of these is held with room to spare.
SPARE_LENGTH = 3

#: Most of a clip's duration that either of them may take then. What is left is for a second session.
SPARE_SHARE = 0.5

#: The lengths where nothing is chosen.
DEFAULT_LENGTHS = (USUAL_CLIP_FRAMES,)

#: Most that clips of 12 frames can save against the shortest. A machine that needs more than this times what
#: it may take is not tried with the lengths between.
MOST_SAVED = 1.25

#: Most that the usual pictures can save against those of twice the side.
MOST_SAVED_BY_SIZE = 1.3


@dataclass(frozen=True, slots=True)
class Pace:
    """A frame rate and a length of clips.

    Attributes:
        fps: frames a second.
        clip_frames: frames of a clip at 24 fps.
        fine: whether the VAE's finer head draws, pictures of twice the side.
    """

    fps: int
    clip_frames: int
    fine: bool = False

    @property
    def lasts(self) -> float:
        """Seconds of speech in a clip."""
        return frames_of_clip(self.fps, self.clip_frames) / self.fps


def lengths_to_try(settings: Settings, device_type: str, *, short_window: bool) -> tuple[int, ...]:
    """Lengths of clips, frames at 24 fps, from the shortest to the one that serves where none is held.

    Args:
        settings: of this worker. --clip-frames and --fps leave one length.
        device_type: that denoises, "cpu" or "cuda".
        short_window: whether Whisper hears 1.5 s a clip. Where it hears 30 s, each clip costs as much as
            denoising some frames, so clips stay long.
    """
    usual = settings.frames_a_clip
    is_open = settings.clip_frames is None and settings.fps is None and not settings.passthrough
    return (*SHORT_LENGTHS, usual) if is_open and short_window and device_type == "cpu" else (usual,)


def spare_length(lengths: Sequence[int]) -> int | None:
    """The length for a machine with time to spare, or None where no length is chosen.

    Args:
        lengths: as `lengths_to_try` gives them.
    """
    return SPARE_LENGTH if lengths[0] == SHORT_LENGTHS[0] and len(lengths) > 1 else None


def paces(rates: Sequence[int], lengths: Sequence[int], heads: Sequence[bool] = (False,)) -> list[Pace]:
    """What a trial tries, the best first: the highest rate with all else, then lower rates with the cheapest.

    Args:
        rates: from high to low.
        lengths: as `lengths_to_try` gives them, at least one.
        heads: as `ModelConfig.heads` gives them, at least one.
    """
    highest = [Pace(rates[0], length, fine) for length in lengths for fine in heads]
    return highest + [Pace(fps, lengths[-1], heads[-1]) for fps in rates[1:]]


def next_after(tried: Sequence[Pace], index: int, load: float) -> int:
    """Number of the pace to try after one that was not held.

    The last pace of a rate is never left out.

    Args:
        tried: all paces.
        index: of the one that was not held.
        load: the time that it took, in times of what it may take.

    Returns:
        A number above `index`. It is at most the last one's.
    """
    now, following = tried[index], index + 1
    while (
        following < len(tried) - 1
        and tried[following].fps == tried[following + 1].fps
        and load > _most_saved(now, tried[following])
    ):
        following += 1
    return following


def _most_saved(now: Pace, then: Pace) -> float:
    """Most times that one pace costs as much as another of the same rate."""
    by_length = MOST_SAVED if then.clip_frames > now.clip_frames else 1.0
    return by_length * (MOST_SAVED_BY_SIZE if now.fine and not then.fine else 1.0)
