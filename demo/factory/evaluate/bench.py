"""The scale of the trials, and the parts that all of them use."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from demo.factory.evaluate.judge import Judge, Scores
from demo.factory.evaluate.material import HeldOut, Scene
from demo.factory.evaluate.path import Made, Picture, StreamingPath
from protocol.wire.clock import SAMPLE_RATE

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scale:
    """The extent of each trial. Seconds are of speech."""

    identities: int = 8
    seconds: float = 10.0
    seam_seconds: float = 60.0
    drift_seconds: float = 600.0
    drift_window: float = 10.0
    silence_scenes: int = 2
    silence_seconds: float = 6.0
    condition_scenes: int = 2
    condition_seconds: float = 6.0
    human_seconds: float = 20.0


#: For CI: every trial, a moment of each. Its figures are noisy; they show that the evaluation works.
QUICK = Scale(2, 1.0, 1.5, 2.0, 1.0, 1, 1.0, 1, 1.0, 1.5)
FULL = Scale(64, 10.0, 60.0, 600.0, 10.0, 8, 12.0, 8, 10.0, 20.0)


@dataclass
class Bench:
    """The streaming path, the material and the judge of one evaluation."""

    path: StreamingPath
    material: HeldOut
    judge: Judge
    scale: Scale

    @property
    def fps(self) -> int:
        return self.path.fps

    def play(
        self, scene: Scene, *, rate: int = SAMPLE_RATE, wanted: Callable[[int], bool] = lambda first: True
    ) -> Iterator[Made]:
        """Play a session of the scene's identity, hands and speech, as `StreamingPath.play` does."""
        avatar = self.material.names[scene.identity]
        return self.path.play(avatar, scene.pose, scene.speech.samples, rate=rate, wanted=wanted)

    def pictures(self, scene: Scene) -> Picture:
        """All pictures of a session, uint8 (frames, H, W, 3)."""
        made = [clip.pictures for clip in self.play(scene)]
        return np.concatenate([pictures for pictures in made if pictures is not None])

    def score(self, scene: Scene, truth: Scene | None = None) -> tuple[Picture, Scores]:
        """A session's pictures, and their scores against the truth of the scene, or of another one."""
        pictures = self.pictures(scene)
        return pictures, self.judged(truth or scene, pictures)

    def judged(self, truth: Scene, pictures: Picture, first: int = 0, batch: int = 12) -> Scores:
        """Scores of consecutive pictures, a few at a time to bound memory."""
        starts = range(0, len(pictures), batch)
        return Scores.cat([self.judge.score(truth, first + i, pictures[i : i + batch]) for i in starts])
