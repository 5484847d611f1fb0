"""A clip as one closed group of pictures: H.264 or VP8 by PyAV, which is optional.

A clip's first frame is a key frame, and no frame refers to another clip. So a clip can be lost or be made by
another encoder, and the next one can still be decoded. The encoder starts anew with each clip. Therefore the
same pictures give the same bytes in every worker of a run, and the gateway may mix the frames of a clip that
two workers made.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from encoder_worker.jpeg import Picture
from encoder_worker.marks import with_generated_mark
from protocol.process.logs import first_line
from protocol.wire.clock import FULL_RATE, SAMPLE_RATE
from protocol.wire.video import H264, JPEG, VP8

if TYPE_CHECKING:
    import av

logger = logging.getLogger(__name__)

#: The number of BT.709 in H.264's tables of matrices, primaries and transfer curves.
BT709 = 1
#: In the same standard: luma from 16 to 235.
LIMITED_RANGE = 1
#: More pictures than any clip has: the only key frame is the first one.
NO_MORE_KEYS = 1000


@dataclass(frozen=True)
class VideoEncoder:
    """One of ffmpeg's encoders."""

    #: The name of the codec on the wire.
    codec: str
    #: ffmpeg's name of the encoder.
    library: str
    options: dict[str, str]
    #: Whether it wants a bit rate: it has no constant quality, or only within a rate.
    by_rate: bool = False


#: By the value of --video, the preferred one first.
ENCODERS = {
    "x264": VideoEncoder(
        H264, "libx264", {"preset": "superfast", "tune": "zerolatency", "crf": "19", "profile": "high"}
    ),
    "openh264": VideoEncoder(H264, "libopenh264", {"rc_mode": "quality", "allow_skip_frames": "0"}, True),
    "vp8": VideoEncoder(
        VP8, "libvpx", {"deadline": "realtime", "cpu-used": "6", "lag-in-frames": "0", "crf": "8"}, True
    ),
}


@dataclass(frozen=True)
class CodedPicture:
    """A picture as a client gets it."""

    data: bytes
    codec: str = JPEG
    #: Whether it can be decoded without the ones before it.
    key: bool = True


class VideoError(RuntimeError):
    """An encoder cannot be used, or does not do what is asked of it."""


class ClipEncoder:
    """Codes the pictures of one clip, in order.

    Args:
        encoder: one of `ENCODERS`.
        size: height and width in pixels, both even.
        fps: pictures a second.
        generated: whether the stream is marked as generated, where the codec has room for that.
    """

    def __init__(self, encoder: VideoEncoder, size: tuple[int, int], fps: int, *, generated: bool) -> None:
        from av.codec import CodecContext
        from av.video.codeccontext import VideoCodecContext
        from av.video.reformatter import VideoReformatter

        self._encoder = encoder
        self._marked = generated and encoder.codec == H264
        self._fps = fps
        self._count = 0
        self._reformatter = VideoReformatter()
        context = CodecContext.create(encoder.library, "w")
        assert isinstance(context, VideoCodecContext)
        context.height, context.width = size
        context.pix_fmt = "yuv420p"
        context.time_base = Fraction(1, SAMPLE_RATE)
        context.framerate = Fraction(fps)
        context.gop_size = NO_MORE_KEYS
        context.max_b_frames = 0
        context.thread_count = 1
        context.options = dict(encoder.options)
        if encoder.by_rate:
            context.bit_rate = bit_rate(*size)
        if encoder.codec == H264:  # VP8 has no field for it, and its decoders take BT.601
            context.colorspace = context.color_primaries = context.color_trc = BT709
            context.color_range = LIMITED_RANGE
        self._context = context

    def __call__(self, pictures: Picture) -> list[CodedPicture]:
        """(n, H, W, 3) uint8 RGB → n coded pictures, in order.

        Raises:
            VideoError: the encoder gives more or fewer packets than pictures.
        """
        import av

        coded = []
        for picture in pictures:
            try:
                packets = self._context.encode(self._frame(picture))
            except (av.FFmpegError, ValueError) as error:
                raise VideoError(f"{self._encoder.library}: {first_line(error)}") from error
            if len(packets) != 1:
                raise VideoError(f"{self._encoder.library} gave {len(packets)} packets for a picture")
            key = bool(packets[0].is_keyframe)
            if key != (self._count == 0):
                raise VideoError(f"{self._encoder.library} made picture {self._count} of a clip key: {key}")
            data = bytes(packets[0])
            if key and self._marked:
                data = with_generated_mark(data)
            coded.append(CodedPicture(data, self._encoder.codec, key))
            self._count += 1
        return coded

    def _frame(self, picture: Picture) -> av.VideoFrame:
        import av
        from av.video.reformatter import Colorspace

        rgb: Any = np.ascontiguousarray(picture)
        frame = self._reformatter.reformat(
            av.VideoFrame.from_ndarray(rgb, format="rgb24"),
            format="yuv420p",
            dst_colorspace=Colorspace.ITU709 if self._encoder.codec == H264 else Colorspace.ITU601,
        )
        frame.pts, frame.time_base = self._count * SAMPLE_RATE // self._fps, Fraction(1, SAMPLE_RATE)
        return frame


def bit_rate(height: int, width: int) -> int:
    """Bits a second for encoders that want a rate: 0.5 Mbit/s at 256², 1.4 at 512², 2.9 at 768²."""
    return 200_000 + height * width * 9 // 2


def working_encoder(asked: str, size: tuple[int, int]) -> VideoEncoder | None:
    """The encoder that serves, or None where clients get JPEG.

    Args:
        asked: the value of --video: one of `ENCODERS`, "auto" for the first that works, or "off".
        size: height and width of the pictures.
    """
    names: Sequence[str] = [] if asked == "off" else [asked] if asked != "auto" else list(ENCODERS)
    for name in names:
        try:
            _try_out(ENCODERS[name], size)
        # A library that is missing or broken fails in any way, and JPEG always works.
        except Exception as error:
            level = logging.WARNING if asked == name else logging.DEBUG
            logger.log(level, "--video %s cannot serve, pictures go as JPEG: %s", name, first_line(error))
            continue
        logger.info("%s by %s for clients that take it", ENCODERS[name].codec, ENCODERS[name].library)
        return ENCODERS[name]
    return None


def _try_out(encoder: VideoEncoder, size: tuple[int, int]) -> None:
    """Raises an error of any kind where the encoder does not work."""
    if size[0] % 2 or size[1] % 2:
        raise VideoError(f"pictures of {size[1]} by {size[0]}: both have to be even")
    noise = np.random.default_rng(0).integers(0, 256, (2, *size, 3), np.uint8)
    coder = ClipEncoder(encoder, size, FULL_RATE, generated=True)
    coder(noise)
