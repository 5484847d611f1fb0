"""Measures samples as the gateway does, and judges by other speech and gestures whether they are carried."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from demo.factory.evaluate.fit.pictures import FitPicture
from demo.factory.evaluate.path import StreamingPath
from gateway.avatars.fit import Fit, measure_fit
from gateway.avatars.preview import SPEECH
from gateway.avatars.syllables import syllables
from protocol.process.settings import Settings
from protocol.wire.clock import SAMPLE_RATE

#: An avatar is carried well if a second of real speech with another gesture keeps this share of the edges and
#: has this PSNR in dB, in the frames that look most like the picture.
GOOD_EDGES, GOOD_PSNR = 0.6, 24.0


@dataclass(frozen=True, slots=True)
class Measured:
    """The figures of one sample."""

    kind: str
    name: str
    #: As the gateway measures it.
    fit: Fit
    #: By a second of other speech and another gesture.
    judged: Fit

    @property
    def carried_well(self) -> bool:
        """Whether the model carries the picture, by the judgement."""
        return self.judged.edges >= GOOD_EDGES and self.judged.psnr >= GOOD_PSNR


class FitTrial:
    """Animates samples through the workers' own classes."""

    def __init__(self, folder: Path, speech: np.ndarray) -> None:
        """Load the model.

        Args:
            folder: an empty folder for the samples.
            speech: mono, 16 kHz, float32 (n,): the speech to judge by.
        """
        self._own = folder / "own"
        self._own.mkdir()
        self._path = StreamingPath(Settings(own_avatar_dir=self._own, run_dir=folder))
        self._speech = speech[:SAMPLE_RATE]
        info = self._path.info()
        self.ratio = float(str(info["width"])) / float(str(info["height"]))
        poses = info["poses"]
        assert isinstance(poses, list)
        self._poses = poses[0], poses[-1]

    def measure(self, samples: Iterable[FitPicture]) -> Iterator[Measured]:
        """Measure samples one after another. Each takes a few seconds."""
        for sample in samples:
            name = f"own-{hashlib.sha256(sample.picture.tobytes()).hexdigest()[:32]}"
            file = self._own / f"{name}.png"
            sample.picture.save(file)
            preview = self._frames(name, self._poses[0], syllables(SPEECH))
            talk = self._frames(name, self._poses[1], self._speech)
            fit = measure_fit(sample.picture, preview[::2])
            yield Measured(sample.kind, sample.name, fit, measure_fit(sample.picture, talk[::4]))
            file.unlink()

    def _frames(self, avatar: str, pose: str, sound: np.ndarray) -> list[Image.Image]:
        made = [part.pictures for part in self._path.play(avatar, pose, sound)]
        return [Image.fromarray(frame) for part in made if part is not None for frame in part]


def temporary_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder for a trial's files."""
    return tempfile.TemporaryDirectory(prefix="fit-")
