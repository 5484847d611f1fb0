"""One file of a recording, by PyAV: packets as they were sent, and sound that is encoded once.

| Pictures | File | Sound |
|---|---|---|
| H.264 | MP4 | AAC |
| VP8 | WebM | Opus |
| JPEG | Matroska | PCM of 16 bits |

While it is written, an MP4 consists of fragments, one for each clip. So a file that nobody finished can be
played. `finish` writes it anew as a plain MP4, whose head stands in front, without touching the packets.
"""

from __future__ import annotations

import io
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from gateway.recording.timeline import PicturePiece, SoundPiece
from protocol.wire.browser import VideoMessage
from protocol.wire.clock import SAMPLE_RATE
from protocol.wire.generated import GENERATED_TAGS, XMP_BOX
from protocol.wire.messages import Samples
from protocol.wire.video import H264, JPEG, VP8

#: Codec of the pictures → ending of the file, ffmpeg's format, encoder of the sound, its only rate or 0.
FORMATS = {
    H264: (".mp4", "mp4", "aac", 0),
    VP8: (".webm", "webm", "libopus", 48_000),
    JPEG: (".mkv", "matroska", "pcm_s16le", 0),
}
#: A fragment for each key frame. Its head waits for the sound's, which tells how much of it is a lead-in.
FRAGMENTS = "+frag_keyframe+delay_moov+default_base_moof"
#: Markers of the segment of a JPEG that has its size: all ways to code but those that nobody uses.
START_OF_FRAME = (0xC0, 0xC1, 0xC2)
#: Silence is written in pieces of this many seconds.
SILENCE_PIECE = 1
#: Ticks of a picture whose successor is not known: one of 24 a second.
LAST_DURATION = SAMPLE_RATE // 24


class RecordingPart:
    """A file that is being written.

    Args:
        stem: path without the ending.
        first: the first picture, a key frame.
        rate: of the sound, in Hz.
        start: place of the part's beginning in the recording, in samples at 16 kHz.
        generated: whether the file is marked as generated.

    Raises:
        OSError: it cannot be written.
        av.FFmpegError: likewise, or the picture cannot be read.
    """

    def __init__(self, stem: Path, first: VideoMessage, rate: int, start: int, *, generated: bool) -> None:
        self.codec = first.codec
        self._suffix, self._format, sound, sound_rate = FORMATS[first.codec]
        self.path = stem.with_suffix(self._suffix)
        self.shape = stream_shape(first)
        self._generated = generated
        self._rate = rate
        self._start = start
        self._written = 0  # samples
        self._last_pts = -1
        self.bytes = 0
        options = {"movflags": FRAGMENTS} if first.codec == H264 else {}
        _make_private(self.path)
        # without it, fragments would wait in a buffer
        self._file = av.open(
            str(self.path), "w", format=self._format, options={**options, "flush_packets": "1"}
        )
        self._file.metadata.update(GENERATED_TAGS if generated else {})
        self._video = self._video_stream(first)
        audio = self._file.add_stream(sound, rate=sound_rate or rate, layout="mono")
        assert isinstance(audio, av.AudioStream)
        self._audio = audio

    @property
    def seconds(self) -> float:
        """Length so far."""
        return max(self._written / self._rate, (self._last_pts + LAST_DURATION) / SAMPLE_RATE)

    def fits(self, picture: VideoMessage) -> bool:
        """Whether a picture can go into this file: it has the same codec and size."""
        return picture.codec == self.codec and (not picture.key or stream_shape(picture) == self.shape)

    def add_sound(self, piece: SoundPiece) -> None:
        """Write sound, after the silence before it."""
        start = piece.start - self._start * self._rate // SAMPLE_RATE
        samples = piece.samples[max(0, self._written - start) :]
        while self._written < start:
            gap = min(start - self._written, SILENCE_PIECE * self._rate)
            self._write_sound(np.zeros(gap, np.float32))
        if len(samples):
            self._write_sound(samples)

    def add_picture(self, piece: PicturePiece) -> None:
        """Write a picture, as it is."""
        pts = max(piece.pts - self._start, self._last_pts + 1)
        packet = av.Packet(piece.picture.data)
        packet.stream = self._video
        packet.time_base = Fraction(1, SAMPLE_RATE)
        packet.pts = packet.dts = self._last_pts = pts
        packet.duration = LAST_DURATION
        packet.is_keyframe = piece.picture.key
        self._mux([packet])

    def finish(self) -> None:
        """Write what is left. An MP4 is then written anew in one piece."""
        self._mux(self._audio.encode(None))
        self._file.close()
        if self._format == "mp4":
            self._write_plain()
            if self._generated:
                with self.path.open("ab") as file:
                    file.write(XMP_BOX)
        self.bytes = self.path.stat().st_size

    def discard(self) -> None:
        """Close the file after an error. What is in it stays."""
        try:
            self._file.close()
        except (av.FFmpegError, OSError, ValueError):
            pass

    def _video_stream(self, first: VideoMessage) -> Any:
        if first.codec == H264:
            # The key frame begins with the parameters that the file's head holds.
            with av.open(io.BytesIO(first.data), format="h264") as source:
                return self._file.add_stream_from_template(source.streams.video[0])
        name = "mjpeg" if first.codec == JPEG else first.codec
        reader = av.CodecContext.create(name, "r")
        assert isinstance(reader, av.VideoCodecContext)
        picture = [*reader.decode(av.Packet(first.data)), *reader.decode(None)][0]
        return self._file.add_mux_stream(
            name, rate=24, width=picture.width, height=picture.height, pix_fmt=picture.format.name
        )

    def _write_sound(self, samples: Samples) -> None:
        mono: Any = np.clip(samples, -1, 1)[None].astype(np.float32)
        frame = av.AudioFrame.from_ndarray(mono, format="flt", layout="mono")
        frame.sample_rate = self._rate
        frame.pts, frame.time_base = self._written, Fraction(1, self._rate)
        self._written += len(samples)
        self._mux(self._audio.encode(frame))

    def _mux(self, packets: list[Any]) -> None:
        self.bytes += sum(packet.size for packet in packets)
        self._file.mux(packets)

    def _write_plain(self) -> None:
        plain = self.path.with_suffix(".plain.mp4")
        try:
            _make_private(plain)
            with av.open(str(self.path)) as source:
                options = {"movflags": "+faststart"}
                with av.open(str(plain), "w", format="mp4", options=options) as target:
                    target.metadata.update(GENERATED_TAGS if self._generated else {})
                    streams = {s.index: target.add_stream_from_template(s) for s in source.streams}
                    for packet in source.demux():
                        if packet.dts is not None:
                            packet.stream = streams[packet.stream.index]
                            target.mux(packet)
            os.replace(plain, self.path)
        finally:
            plain.unlink(missing_ok=True)


def stream_shape(picture: VideoMessage) -> bytes:
    """The bytes of a key frame that say its size, and all else that the head of a file has.

    They are the parameter sets of H.264, and height and width of the others. Empty where there are none.
    """
    data = picture.data
    if picture.codec == H264:
        units = data.split(b"\0\0\1")
        return b"".join(unit.rstrip(b"\0") for unit in units if unit and unit[0] & 31 in (7, 8))
    if picture.codec == VP8:
        return data[6:10]  # RFC 6386, 9.1
    at = 2
    while at + 9 < len(data) and data[at] == 0xFF:  # the segments of a JPEG
        if data[at + 1] in START_OF_FRAME:
            return data[at + 5 : at + 9]
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return b""


def _make_private(path: Path) -> None:
    """Make an empty file that only this user can read. PyAV makes files for everybody."""
    path.touch(0o600, exist_ok=False)
