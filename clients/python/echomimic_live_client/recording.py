"""Recordings of a session: the pictures as they came, and the sound in step with them."""

from __future__ import annotations

import csv
import importlib.util
import io
import wave
from collections.abc import AsyncIterable
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from echomimic_live_client.inbox import Frame, Sound
from echomimic_live_client.wire import PTS_RATE, int16_of

if TYPE_CHECKING:
    import av

#: Samples by which rounding may put two neighbouring clips apart: they are joined.
ROUNDING = 2

Sound16 = npt.NDArray[np.int16]


class Writer(Protocol):
    """A place for pictures and sound."""

    def add_frame(self, frame: Frame) -> None:
        """Take the next picture."""

    def add_sound(self, samples: Sound16, start: int, rate: int) -> None:
        """Take sound that follows the last one. `start` is the number of its first sample."""

    def close(self) -> None:
        """Finish the files."""


class Recorder:
    """Writes pictures and sounds, in the order of `Session.media`. Pauses become silence.

    Args:
        path: a `.mkv` file (the pictures as they came and PCM, nothing is encoded again), or a folder: JPEGs
            in `frames/`, their times in `frames.csv`, and `sound.wav`. Without PyAV, `talk.mkv` becomes the
            folder `talk`.

    Attributes:
        path: the file or the folder.

    Raises:
        ValueError: the path has another ending.
        FileExistsError: there is such a folder, and it is not empty.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if self.path.suffix not in {"", ".mkv"}:
            raise ValueError(f"{self.path}: give a name that ends in .mkv, or that of a folder")
        if self.path.suffix and importlib.util.find_spec("av") is None:
            self.path = self.path.with_suffix("")
        self._writer: Writer = MkvWriter(self.path) if self.path.suffix else FolderWriter(self.path)
        self._samples = 0
        self._rate = 0

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def add(self, item: Frame | Sound) -> None:
        """Take the next picture or sound. Raises ValueError for sound of another rate than before."""
        if isinstance(item, Frame):
            self._writer.add_frame(item)
            return
        self._rate = self._rate or item.rate
        if item.rate != self._rate:
            raise ValueError(f"a recording has one rate of sound: it began with {self._rate} Hz")
        silence = round(item.time * self._rate) - self._samples
        if silence > ROUNDING:
            self._write(np.zeros(silence, np.int16))
        self._write(int16_of(item.samples))

    def _write(self, samples: Sound16) -> None:
        # In pieces of a second: a long pause takes no memory, and players find sound beside each picture.
        for start in range(0, len(samples), self._rate):
            piece = samples[start : start + self._rate]
            self._writer.add_sound(piece, self._samples, self._rate)
            self._samples += len(piece)

    def close(self) -> None:
        """Finish the recording."""
        self._writer.close()


async def record(media: AsyncIterable[Frame | Sound], path: str | Path) -> Path:
    """Record everything that `Session.media` gives. Returns the file or folder, see `Recorder`."""
    with Recorder(path) as recorder:
        async for item in media:
            recorder.add(item)
    return recorder.path


class FolderWriter:
    """Pictures as files, a table of their times, and a WAV."""

    def __init__(self, folder: Path) -> None:
        if folder.exists() and any(folder.iterdir()):
            raise FileExistsError(f"{folder} holds other files: give a new folder")
        self._frames = folder / "frames"
        self._frames.mkdir(parents=True)
        self._times = (folder / "frames.csv").open("w", newline="", encoding="utf-8")
        self._table = csv.writer(self._times)
        self._table.writerow(["file", "seconds", "epoch", "seq", "index"])
        self._sound_path = folder / "sound.wav"
        self._sound: wave.Wave_write | None = None
        self._count = 0

    def add_frame(self, frame: Frame) -> None:
        name = f"{self._count:06d}.jpg"
        (self._frames / name).write_bytes(frame.jpeg)
        self._table.writerow([name, f"{frame.time:.6f}", frame.epoch, frame.seq, frame.index])
        self._count += 1

    def add_sound(self, samples: Sound16, start: int, rate: int) -> None:
        if self._sound is None:
            self._sound = wave.open(str(self._sound_path), "wb")  # noqa: SIM115 - closed in close()
            self._sound.setnchannels(1)
            self._sound.setsampwidth(2)
            self._sound.setframerate(rate)
        self._sound.writeframes(samples.astype("<i2").tobytes())

    def close(self) -> None:
        self._times.close()
        if self._sound is not None:
            self._sound.close()


class MkvWriter:
    """The pictures as they came and PCM in Matroska, by PyAV.

    The file begins with the first picture, since its head has the size. Without sound until then it is
    silent.
    """

    def __init__(self, path: Path) -> None:
        import av

        path.parent.mkdir(parents=True, exist_ok=True)
        self._packet = av.Packet
        self._container = av.open(str(path), "w", format="matroska")
        #: Sound before the first picture.
        self._early: list[tuple[Sound16, int, int]] = []
        self._video: av.VideoStream | None = None
        self._codec = ""
        self._audio: av.AudioStream | None = None

    def add_frame(self, frame: Frame) -> None:
        if self._video is None:
            if not frame.key:
                return  # nothing can be shown before the next clip
            self._begin_video(frame)
            self._begin_audio()
        if frame.codec != self._codec:
            raise ValueError(f"a recording has one codec: it began with {self._codec}, not {frame.codec}")
        self._mux(self._video, frame.data, round(frame.time * PTS_RATE), PTS_RATE, key=frame.key)

    def add_sound(self, samples: Sound16, start: int, rate: int) -> None:
        if self._video is None:
            self._early.append((samples, start, rate))
        elif self._audio is not None:
            self._mux(self._audio, samples.astype("<i2").tobytes(), start, rate, len(samples))

    def close(self) -> None:
        if self._video is None:
            self._begin_audio()
        self._container.close()

    def _begin_video(self, frame: Frame) -> None:
        import av

        self._codec = frame.codec
        if frame.codec == "h264":
            # The key frame begins with the parameters that the file's head holds.
            with av.open(io.BytesIO(frame.data), format="h264") as source:
                self._video = self._container.add_stream_from_template(source.streams.video[0])
            return
        name = "mjpeg" if frame.codec == "jpeg" else frame.codec
        reader = av.CodecContext.create(name, "r")
        assert isinstance(reader, av.VideoCodecContext)
        picture = [*reader.decode(self._packet(frame.data)), *reader.decode(None)][0]
        stream = self._container.add_mux_stream(
            name, rate=24, width=picture.width, height=picture.height, pix_fmt=picture.format.name
        )
        assert isinstance(stream, av.VideoStream)
        self._video = stream

    def _begin_audio(self) -> None:
        if not self._early:
            return
        self._audio = self._container.add_stream("pcm_s16le", rate=self._early[0][2], layout="mono")
        for samples, start, rate in self._early:
            self._mux(self._audio, samples.astype("<i2").tobytes(), start, rate, len(samples))
        self._early.clear()

    def _mux(
        self,
        stream: av.VideoStream | av.AudioStream | None,
        data: bytes,
        start: int,
        rate: int,
        length: int = 0,
        key: bool = True,
    ) -> None:
        assert stream is not None
        packet = self._packet(data)
        packet.stream = stream
        packet.pts = packet.dts = start
        packet.time_base = Fraction(1, rate)
        packet.is_keyframe = key
        if length:
            packet.duration = length
        self._container.mux(packet)
