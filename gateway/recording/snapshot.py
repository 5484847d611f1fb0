"""The newest picture of a session as a JPEG."""

from __future__ import annotations

import io
from collections.abc import Sequence

from protocol.wire.browser import VideoMessage
from protocol.wire.generated import GENERATED_XMP
from protocol.wire.video import JPEG

QUALITY = 92


def snapshot(newest: Sequence[VideoMessage], *, generated: bool) -> bytes | None:
    """A JPEG of the last picture, which refers to those before it. None where there is none.

    A picture that is a JPEG comes as it was sent. Decoding takes some milliseconds: call it in a thread.

    Raises:
        av.FFmpegError: the pictures cannot be decoded.
    """
    if not newest or newest[-1].codec == JPEG:
        return newest[-1].data if newest else None
    import av
    from PIL import Image

    decoder = av.CodecContext.create(newest[-1].codec, "r")
    assert isinstance(decoder, av.VideoCodecContext)
    pictures = [picture for message in newest for picture in decoder.decode(av.Packet(message.data))]
    pictures += decoder.decode(None)
    out = io.BytesIO()
    mark = {"xmp": GENERATED_XMP} if generated else {}
    pixels = pictures[-1].to_ndarray(format="rgb24")
    Image.fromarray(pixels).save(out, "JPEG", quality=QUALITY, subsampling=0, **mark)
    return out.getvalue()
