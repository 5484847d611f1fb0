"""How the pictures of each clip are coded: by the codec that its session has, or as JPEG."""

from __future__ import annotations

import logging

from encoder_worker.jpeg import Picture
from encoder_worker.jpeg_pool import JpegPool
from encoder_worker.video import ClipEncoder, CodedPicture, VideoEncoder, working_encoder
from protocol.process.logs import first_line
from protocol.process.settings import Settings
from protocol.wire.video import JPEG

logger = logging.getLogger(__name__)


class Coders:
    """The codecs of this worker.

    Args:
        settings: the run's.
        jpeg: codes what no video codec codes. It may be replaced.
    """

    def __init__(self, settings: Settings, jpeg: JpegPool) -> None:
        self.jpeg = jpeg
        #: Whether pictures are marked as generated.
        self.generated = settings.mark_generated
        self._asked = settings.video
        self._jpeg_quality = settings.jpeg_quality
        #: The encoder of video. None: there is none, and every client gets JPEG.
        self.video: VideoEncoder | None = None

    def warm_up(self, height: int, width: int) -> None:
        """Look for a video encoder that works for pictures of this size."""
        self.video = working_encoder(self._asked, (height, width))

    @property
    def names(self) -> list[str]:
        """The codecs besides JPEG."""
        return [] if self.video is None else [self.video.codec]

    def describe(self) -> str:
        """All that a clip's coded pictures depend on beside the pictures. After `warm_up`."""
        return repr((self._jpeg_quality, self.video, self.generated))

    def give_up_video(self, error: Exception) -> None:
        """The video encoder failed: every clip is JPEG from now on."""
        logger.warning("pictures go as JPEG from now on: %s", first_line(error))
        self.video = None


class ClipCoder:
    """Codes the pictures of one clip, in order.

    Args:
        coders: the worker's.
        codec: that of the clip's session.
        fps: pictures a second.
    """

    def __init__(self, coders: Coders, codec: str, fps: int) -> None:
        self._coders = coders
        self._fps = fps
        video = coders.video
        self._video = video if codec != JPEG and video is not None and video.codec == codec else None
        self._encoder: ClipEncoder | None = None

    @property
    def codes_video(self) -> bool:
        """Whether the next pictures go through the video encoder."""
        return self._video is not None

    def __call__(self, pictures: Picture) -> list[CodedPicture]:
        """(n, H, W, 3) uint8 RGB → n coded pictures. JPEGs have no segments yet."""
        if self._video is not None:
            try:
                return self._coded(self._video, pictures)
            # A codec that fails must not cost a session its pictures.
            except Exception as error:
                self._video = None
                self._coders.give_up_video(error)
        return [CodedPicture(jpeg) for jpeg in self._coders.jpeg(pictures)]

    def _coded(self, video: VideoEncoder, pictures: Picture) -> list[CodedPicture]:
        if self._encoder is None:
            size = pictures.shape[1], pictures.shape[2]
            self._encoder = ClipEncoder(video, size, self._fps, generated=self._coders.generated)
        return self._encoder(pictures)
