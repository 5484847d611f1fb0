"""Where the pictures and the sound go: an MP4 or Matroska file, or a folder of JPEGs with a WAV."""

from __future__ import annotations

import io
import os
import shutil
import struct
from abc import ABC, abstractmethod
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from protocol.wire.clock import SAMPLE_RATE
from protocol.wire.generated import GENERATED_TAGS, XMP_BOX
from scripts.render.errors import RenderError
from scripts.render.source import Source
from scripts.render.video_library import h264_encoder, require_library
from scripts.talk.wav import Values

if TYPE_CHECKING:
    import av

#: Endings of films, and ffmpeg's names of their formats.
FORMATS = {".mp4": "mp4", ".mkv": "matroska"}
#: Rates that AAC has. Sound of another rate is written at `USUAL_RATE`.
AAC_RATES = (8000, 11025, 12000, SAMPLE_RATE, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
USUAL_RATE = 48_000
AAC_BITS_A_CHANNEL = 96_000
#: x264's constant quality: compression that is hard to see.
CRF = "18"
#: The number of BT.709 in H.264's tables of matrices, primaries and transfer curves.
BT709 = 1
#: In the same standard: luma from 16 to 235.
LIMITED_RANGE = 1


class Film(ABC):
    """Takes pictures in order. The target appears under its name only when all of it is written.

    Args:
        target: file or folder.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.part = target.with_name(f"{target.name}.part")

    @abstractmethod
    def add_picture(self, jpeg: bytes) -> None:
        """Append a picture, and the sound that belongs to it."""

    @abstractmethod
    def _end(self) -> None:
        """Write the rest."""

    @abstractmethod
    def _let_go(self) -> None:
        """Close everything, without a word about errors."""

    def finish(self) -> None:
        """Write the rest and give the target its name.

        Raises:
            RenderError: it cannot be written.
        """
        try:
            self._end()
            os.replace(self.part, self.target)
        except OSError as error:
            raise _cannot_write(self.target, error) from error

    def discard(self) -> None:
        """Remove the half-written file or folder, if there is one."""
        self._let_go()
        if self.part.is_dir():
            shutil.rmtree(self.part, ignore_errors=True)
        else:
            self.part.unlink(missing_ok=True)


def open_film(target: str, source: Source, fps: int, *, generated: bool = True) -> Film:
    """Begin a film.

    Args:
        target: as the user wrote it. A `/` at the end, or a folder that is there, means a folder.
        source: its sound.
        fps: pictures a second.
        generated: whether a video file says by machine that a model made it. JPEGs come marked or not.

    Raises:
        RenderError: it cannot be written there.
    """
    path = Path(target).absolute()
    try:
        if target.endswith("/") or path.is_dir():
            return PictureFolder(path, source)
        if path.suffix.lower() not in FORMATS:
            raise RenderError(f"{target}: end it with .mp4, .mkv (exact sound) or / (pictures and a WAV)")
        require_library(target)
        return VideoFile(path, source, fps, generated)
    except OSError as error:
        raise _cannot_write(path, error) from error


def _cannot_write(path: Path, error: OSError) -> RenderError:
    return RenderError(f"{path}: {error.strerror or error}")


class VideoFile(Film):
    """H.264 with AAC in MP4, or with exact sound in Matroska: FLAC for 16-bit sound, else float PCM."""

    def __init__(self, target: Path, source: Source, fps: int, generated: bool) -> None:
        import av

        super().__init__(target)
        self._fps = fps
        self._generated = generated
        self._pictures = 0
        self._sound, self._rate, codec, self._sample_format = _track(source, target.suffix.lower())
        self._sounded = 0
        self._layout = "stereo" if self._sound.shape[1] == 2 else "mono"
        encoder = h264_encoder()
        self.part.parent.mkdir(parents=True, exist_ok=True)
        options = {"movflags": "+faststart"} if target.suffix.lower() == ".mp4" else {}
        self._file = av.open(str(self.part), "w", format=FORMATS[target.suffix.lower()], options=options)
        self._file.metadata.update(GENERATED_TAGS if generated else {})
        choices = {"crf": CRF, "preset": "medium"} if encoder == "libx264" else {}
        video = self._file.add_stream(encoder, rate=fps, options=choices)
        audio = self._file.add_stream(codec, rate=self._rate, layout=self._layout)
        # add_stream's type is that of any stream, unless its codec is a constant
        assert isinstance(video, av.VideoStream) and isinstance(audio, av.AudioStream)
        self._video, self._audio = video, audio
        if codec == "aac":
            audio.bit_rate = AAC_BITS_A_CHANNEL * self._sound.shape[1]

    def add_picture(self, jpeg: bytes) -> None:
        import av
        from av.video.reformatter import Colorspace
        from PIL import Image

        with Image.open(io.BytesIO(jpeg)) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        if self._pictures == 0:
            self._begin(pixels.shape[1], pixels.shape[0])
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709)
        frame.pts, frame.time_base = self._pictures, Fraction(1, self._fps)
        self._file.mux(self._video.encode(frame))
        self._pictures += 1
        self._write_sound(-(-self._pictures * self._rate // self._fps))

    def _begin(self, width: int, height: int) -> None:
        context = self._video.codec_context
        context.width, context.height, context.pix_fmt = width, height, "yuv420p"
        context.time_base = Fraction(1, self._fps)
        context.colorspace = context.color_primaries = context.color_trc = BT709
        context.color_range = LIMITED_RANGE

    def _write_sound(self, end: int) -> None:
        """Write the sound up to frame `end`, so that both tracks lie beside each other in the file."""
        part = self._sound[self._sounded : end]
        if not len(part):
            return
        self._file.mux(self._audio.encode(self._sound_frame(part)))
        self._sounded += len(part)

    def _sound_frame(self, part: Values) -> av.AudioFrame:
        import av

        values: npt.NDArray[Any] = (
            part if self._sample_format == "flt" else np.round(part * 32768).astype(np.int16)
        )
        packed: Any = np.ascontiguousarray(values).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(packed, format=self._sample_format, layout=self._layout)
        frame.sample_rate = self._rate
        frame.pts, frame.time_base = self._sounded, Fraction(1, self._rate)
        return frame

    def _end(self) -> None:
        self._write_sound(len(self._sound))
        self._file.mux(self._video.encode(None))
        self._file.mux(self._audio.encode(None))
        self._file.close()
        if self._generated and self.target.suffix.lower() == ".mp4":
            with self.part.open("ab") as file:
                file.write(XMP_BOX)

    def _let_go(self) -> None:
        import av

        try:
            self._file.close()
        except (av.FFmpegError, ValueError):
            pass


def _track(source: Source, suffix: str) -> tuple[Values, int, str, str]:
    """Samples, rate, ffmpeg's codec and the format of the samples that it is given."""
    if suffix == ".mkv":
        scaled = source.channels * 32768
        is_16_bit = bool((scaled == np.round(scaled)).all() and (np.abs(scaled + 0.5) < 32768).all())
        codec, sample_format = ("flac", "s16") if is_16_bit else ("pcm_f32le", "flt")
        return source.channels, source.rate, codec, sample_format
    if source.rate in AAC_RATES:
        return source.channels, source.rate, "aac", "flt"
    import soxr

    return soxr.resample(source.channels, source.rate, USUAL_RATE), USUAL_RATE, "aac", "flt"


class PictureFolder(Film):
    """`00000.jpg`, … as the encoder workers made them, and `sound.wav` with float samples."""

    def __init__(self, target: Path, source: Source) -> None:
        super().__init__(target)
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise RenderError(f"{target}: is there and not an empty folder; name a new one")
        if self.part.exists():
            raise RenderError(f"{self.part}: is left of an earlier film; remove it")
        self.part.mkdir(parents=True)
        self._pictures = 0
        (self.part / "sound.wav").write_bytes(_float_wav(source))

    def add_picture(self, jpeg: bytes) -> None:
        (self.part / f"{self._pictures:05d}.jpg").write_bytes(jpeg)
        self._pictures += 1

    def _end(self) -> None:
        pass

    def _let_go(self) -> None:
        pass


def _float_wav(source: Source) -> bytes:
    """A WAV file of 32-bit floating-point samples, which hold every sound that is read exactly."""
    data = np.ascontiguousarray(source.channels, "<f4").tobytes()
    channels = source.channels.shape[1]
    sizes = (channels, source.rate, source.rate * channels * 4, channels * 4, 32, 0)
    head = b"WAVEfmt " + struct.pack("<IHHIIHHH", 18, 3, *sizes)
    head += b"fact" + struct.pack("<II", 4, len(source.channels)) + b"data" + struct.pack("<I", len(data))
    return b"RIFF" + struct.pack("<I", len(head) + len(data)) + head + data
