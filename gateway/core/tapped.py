"""A player that lets somebody else listen: its sounds and pictures, and when they are played."""

from __future__ import annotations

from typing import Protocol

from gateway.core.audio_log import ClipShape
from gateway.core.play_clock import PlayClock
from gateway.core.players import ClipSound, OutgoingMessage, Playable, Player
from protocol.wire.browser import VideoMessage
from protocol.wire.controls import Resume, Shown


class Tap(Protocol):
    """The listener. Times are seconds on the session's monotonic clock."""

    def sound(self, sound: ClipSound, start: float) -> None:
        """The sound of the next clip, and when it begins to be played."""

    def picture(self, picture: VideoMessage, now: float) -> None:
        """A frame of a clip whose sound came before, or one of idle life, which is shown at once."""

    def interrupted(self) -> None:
        """Nothing more of all that is played from now on: somebody speaks over the avatar."""


class TappedPlayer:
    """A player in front of another one."""

    def __init__(self, player: Player) -> None:
        self._player = player
        #: The listener, if there is one.
        self.tap: Tap | None = None
        #: The newest picture, and the ones of its clip that it refers to.
        self.newest: list[VideoMessage] = []

    @property
    def clock(self) -> PlayClock:
        """When each clip is played."""
        return self._player.clock

    @property
    def dropped(self) -> int:
        """Frames that the client was too slow for."""
        return self._player.dropped

    def push(self, item: Playable, now: float) -> None:
        """Take the next item of the stream."""
        self._player.push(item, now)
        if isinstance(item, VideoMessage):
            self.newest = [item] if item.key else [*self.newest, item]
        if self.tap is None:
            return
        if isinstance(item, ClipSound):
            self.tap.sound(item, self.clock.start)
        else:
            self.tap.picture(item, now)

    def pull(self, now: float, writable: bool) -> list[OutgoingMessage]:
        """The messages to send now."""
        return self._player.pull(now, writable)

    def wait(self, now: float) -> float | None:
        """Seconds until `pull` may give more by itself."""
        return self._player.wait(now)

    def frame_shown(self, shown: Shown, now: float) -> bool:
        """The client has shown this frame. Returns whether others wait."""
        return self._player.frame_shown(shown, now)

    def stalled(self, now: float) -> float:
        """Seconds for which the client has shown none of the frames that it was sent."""
        return self._player.stalled(now)

    def restart(self, shape: ClipShape) -> None:
        """A new epoch begins."""
        self._player.restart(shape)

    def interrupt(self) -> None:
        """Forget what was sent, too."""
        self._player.interrupt()
        if self.tap is not None:
            self.tap.interrupted()

    def resume(self, resume: Resume, now: float) -> None:
        """The client is back on another connection."""
        self._player.resume(resume, now)
