"""How pictures are coded on their way to a client."""

from __future__ import annotations

JPEG = "jpeg"
#: H.264 as Annex B: start codes, and the parameter sets before each key frame.
H264 = "h264"
VP8 = "vp8"
#: Every codec. The place of one is its number on the wire to a client.
CODECS = (JPEG, H264, VP8)
