"""What a session runs with, and how long it waits."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.core.audio_log import ClipShape
from protocol.wire.video import JPEG


@dataclass(frozen=True)
class SessionOptions:
    """The options that a session runs with. `width` and `height` are in pixels, 0 while unknown."""

    avatar: str
    pose: str
    shape: ClipShape
    sample_rate: int
    width: int = 0
    height: int = 0
    #: Whether the client's samples are int16 on the wire.
    int16: bool = False
    #: How the pictures are coded.
    codec: str = JPEG


@dataclass(frozen=True)
class SessionLimits:
    """How long a session waits, in seconds."""

    #: Pause after which a begun clip is flushed.
    idle: float = 0.3
    #: Longest wait for the next clip, counted from its last sample or from the session's last frame.
    clip: float = 15.0
    #: Longest wait for a clip after a later clip is complete.
    overtaken: float = 7.0
    #: Longest time that a client may take without showing any frame that it was sent.
    shown: float = 5.0
    #: Longest silence in front of a clip whose frames are not there when its turn comes.
    sound_wait: float = 1.5
    #: A clip's turn is not put off for its frames when its sound is this late, counted from its last sample.
    sound_delay: float = 2.0
