"""The features of clips that hold a voice, and one answer for all that hold none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from audio_worker.ring import WINDOW
from audio_worker.rooms import Rooms
from audio_worker.sessions import DueClip
from audio_worker.voice import VoiceDetector
from protocol.wire.messages import Array16

if TYPE_CHECKING:
    from audio_worker.features import Features
    from audio_worker.gpu_features import RecordedFeatures

#: Shapes of clips whose silence is remembered. Few are ever asked for.
MOST_SHAPES = 8


class ClipFeatures:
    """Asks Whisper for clips with a voice only. Belongs to the compute thread.

    Args:
        features: Whisper.
        detector: tells which clips are silent, or None where all go through Whisper.
    """

    def __init__(self, features: Features | RecordedFeatures, detector: VoiceDetector | None) -> None:
        self.whisper = features
        self._rooms = None if detector is None else Rooms(detector)
        #: Tokens of digital silence by frames and frames a second.
        self._of_silence: dict[tuple[int, int], Array16] = {}

    def tokens(self, clips: Sequence[DueClip]) -> list[tuple[Array16, bool]]:
        """For each clip float16 (frames, tokens, 384), and whether it is silent.

        All silent clips of a shape have the tokens of digital silence, whatever noise they hold.
        """
        silent = [self._rooms is not None and self._rooms.is_silent(clip) for clip in clips]
        spoken = [clip for clip, quiet in zip(clips, silent, strict=True) if not quiet]
        made = iter(self.whisper.tokens(spoken) if spoken else [])
        return [
            (self._silence(clip) if quiet else next(made), quiet)
            for clip, quiet in zip(clips, silent, strict=True)
        ]

    def at_once(self, clip: DueClip) -> Array16 | None:
        """The tokens of a clip as quiet as its room, which take no time, or None: it has to be looked at.

        Any thread may call it while the compute thread does nothing.
        """
        known = self._of_silence.get((clip.clip_frames, clip.fps))
        return known if known is not None and self._rooms is not None and self._rooms.is_even(clip) else None

    def _silence(self, clip: DueClip) -> Array16:
        shape = clip.clip_frames, clip.fps
        if shape not in self._of_silence:
            zeros = replace(clip, samples=np.zeros(WINDOW, np.float32))
            self._of_silence = {shape: self.whisper.tokens([zeros])[0], **self._of_silence}
            while len(self._of_silence) > MOST_SHAPES:
                self._of_silence.popitem()
        return self._of_silence[shape]
