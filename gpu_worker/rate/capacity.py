"""How many sessions a machine serves at the lowest rate that is acceptable. No I/O, no clock."""

from __future__ import annotations

from gpu_worker.rate.governor import MOST_LOAD_TO_RISE
from gpu_worker.rate.trial import RateChoice
from protocol.wire.clock import FULL_RATE, frames_of_clip

#: Most of the machine's time that the sessions may take together, by type of device. The rest is for chance.
#: A GPU's clips take even times, and those of a given rate are without their decoding. On H200s four exact
#: sessions of 104 to 107 ms a clip and five fast ones of 75 ms were in time. A sixth of these would take 0.9
#: and its decoding (docs/lab/gpu-goals.md).
MOST_SHARE = {"cpu": 0.8, "cuda": 0.88}


class Capacity:
    """Made of the trial's times and of the times in service.

    Args:
        clip_frames: frames of a clip at 24 fps.
        lowest: the lowest acceptable rate.
    """

    #: Seconds that a clip of the lowest rate takes while others follow it, once it was timed.
    lowest_seconds: float | None

    def __init__(self, clip_frames: int, lowest: int) -> None:
        self._clip_frames = clip_frames
        self._lowest = lowest
        self._lasts = frames_of_clip(lowest, clip_frames) / lowest
        self.lowest_seconds = None

    def sessions(self, choice: RateChoice, device_type: str, in_service: float = 0.0) -> int:
        """Sessions that can speak at once, at least 1.

        Args:
            choice: the trial's.
            device_type: "cpu" or "cuda".
            in_service: seconds that a clip of the lowest rate takes in service, 0 if none is known. Without a
                clip behind it, a GPU's clip takes longer than one of many.
        """
        part = frames_of_clip(self._lowest, self._clip_frames) / frames_of_clip(choice.fps, self._clip_frames)
        seconds = self.lowest_seconds or choice.clip_seconds * min(1.0, part)
        overlap = MOST_LOAD_TO_RISE[device_type] / MOST_LOAD_TO_RISE["cpu"]
        seconds = max(seconds, in_service / overlap, 1e-3)
        return max(1, int(MOST_SHARE[device_type] * self._lasts / seconds))

    def fixed_share(self, choice: RateChoice) -> float:
        """Part of a full clip's time that does not depend on its frames, by the two rates that were timed.

        The two may have been timed beside different other work, so it is kept within bounds.
        """
        full = frames_of_clip(FULL_RATE, self._clip_frames)
        low, chosen = (frames_of_clip(fps, self._clip_frames) / full for fps in (self._lowest, choice.fps))
        if self.lowest_seconds is None or low >= chosen or choice.clip_seconds <= 0:
            return 0.0
        ratio = self.lowest_seconds / choice.clip_seconds
        steepness = ratio * (1 - chosen) - 1 + low
        return min(0.6, max(0.0, (low - ratio * chosen) / steepness)) if steepness < 0 else 0.0
