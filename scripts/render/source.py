"""The sound of a film: as it is written to the file, and as the model hears it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from protocol.wire.clock import SAMPLE_RATE
from protocol.wire.messages import Samples
from scripts.render.video_library import library
from scripts.talk.sound import SoundError, checked_parts, read_channels
from scripts.talk.wav import Values


@dataclass(frozen=True, slots=True)
class Source:
    """A sound, as its file has it."""

    #: Frames a second.
    rate: int
    #: float32 (frames, channels) in ±1, one channel or two.
    channels: Values = field(repr=False)

    def heard(self) -> Samples:
        """What the model hears: the mean of the channels at 16 kHz, float32 (samples,)."""
        mono: Samples = self.channels.mean(axis=1, dtype=np.float32)
        if self.rate == SAMPLE_RATE:
            return mono
        import soxr

        resampled: Samples = soxr.resample(mono, self.rate, SAMPLE_RATE)
        return resampled


def read_source(path: Path) -> Source:
    """Read a sound file of any kind that `scripts.talk` reads, or that ffmpeg reads where PyAV is installed.

    More than two channels become one, their mean.

    Raises:
        SoundError: the file cannot be used. The message says why.
    """
    try:
        rate, channels = read_channels(path)
    except SoundError as error:
        if library() is None or not path.is_file():
            raise
        rate, channels = _decode(path, error)
    if channels.shape[1] > 2:
        channels = channels.mean(axis=1, keepdims=True, dtype=np.float32)
    return Source(rate, channels)


def _decode(path: Path, before: SoundError) -> tuple[int, Values]:
    """The first sound track of a file, by ffmpeg. Raises `before` where that does not read it either."""
    import av

    try:
        # A playlist could name other files and addresses, and only this file is meant.
        with av.open(str(path), options={"protocol_whitelist": "file"}) as container:
            if not container.streams.audio:
                raise SoundError(f"{path}: has no sound track")
            rate = int(container.streams.audio[0].rate)
            parts = list(checked_parts(path, _blocks(container), rate))
    except (av.FFmpegError, ValueError) as error:
        raise error if isinstance(error, SoundError) else before from error
    if not parts:
        raise SoundError(f"{path}: has no sound in it")
    return rate, np.concatenate(parts)


def _blocks(container: object) -> Iterator[Values]:
    import av
    from av.container import InputContainer

    assert isinstance(container, InputContainer)
    to_float = av.AudioResampler(format="fltp")
    for frame in container.decode(audio=0):
        for converted in to_float.resample(frame):
            yield converted.to_ndarray().T.astype(np.float32)
