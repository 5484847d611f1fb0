"""Pictures of a session as pixels, whatever their codec."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from echomimic_live_client.inbox import Frame

if TYPE_CHECKING:
    from av.video.codeccontext import VideoCodecContext


class VideoDecoder:
    """Decodes the pictures of one session, in order. It needs PyAV (the extra `record`)."""

    def __init__(self) -> None:
        self._decoders: dict[str, VideoCodecContext] = {}
        #: Codec, epoch, seq and index of the picture that was decoded last.
        self._last: tuple[str, int, int, int] = ("", 0, 0, -1)

    def decode(self, frame: Frame) -> npt.NDArray[np.uint8] | None:
        """The picture as RGB, uint8 (height, width, 3).

        Returns:
            None where an earlier picture that this one needs was not decoded here. Pass over such a picture.

        Raises:
            av.FFmpegError: the bytes are damaged.
        """
        from av.packet import Packet

        if not frame.key and self._last != (frame.codec, frame.epoch, frame.seq, frame.index - 1):
            return None
        self._last = (frame.codec, frame.epoch, frame.seq, frame.index)
        pictures = self._decoder_of(frame.codec).decode(Packet(frame.data))
        return np.asarray(pictures[0].to_ndarray(format="rgb24"), np.uint8) if pictures else None

    def _decoder_of(self, codec: str) -> VideoCodecContext:
        from av.codec import CodecContext
        from av.video.codeccontext import VideoCodecContext

        if codec not in self._decoders:
            made = CodecContext.create("mjpeg" if codec == "jpeg" else codec, "r")
            assert isinstance(made, VideoCodecContext)
            made.thread_count = 1  # more would hold pictures back
            self._decoders[codec] = made
        return self._decoders[codec]
