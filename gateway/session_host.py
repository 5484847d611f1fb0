"""The gateway as a connection sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from gateway.core.options import SessionOptions
from gateway.core.session import SessionCore
from gateway.door.guard import Grant
from protocol.process.voices import VoiceChoice
from protocol.wire.controls import Options, Resume
from protocol.wire.messages import Pcm, Sentence

if TYPE_CHECKING:
    from gateway.connection import Connection


class SessionHost(Protocol):
    """The gateway as a connection sees it."""

    def resolve_options(self, options: Options, grant: Grant) -> SessionOptions:
        """Fill in the options that the client left open. Raises BrowserError if they cannot be had."""

    def notice(self) -> str:
        """The outage, or the reason for a lower frame rate, for clients to show. Empty when all is well."""

    def stage_times(self) -> dict[str, int]:
        """Stage → how long clips are in it just now, in ms."""

    def admit(self, connection: Connection) -> None:
        """Count the session in. Raises BrowserError("busy" or "not_ready")."""

    @property
    def full_rate(self) -> int:
        """Frames a second that a client counts on which does not name a rate."""

    def take_over(self, connection: Connection, resume: Resume) -> SessionCore | None:
        """Give the session that the client comes back to into this connection's hands.

        Returns:
            The session, still in its place, or None when this gateway does not have it. Then the connection
            has the session's name, if the token was good.
        """

    def resume_token(self, connection: Connection) -> str:
        """The token with which the client can come back to its session."""

    def pcm_waiting(self, session: str) -> int:
        """How many Pcm messages of this session wait for an audio worker."""

    def send_speech(self, messages: list[Pcm]) -> None:
        """Hand speech to the audio workers."""

    def close_epoch(self, session: str, epoch: int) -> None:
        """Tell the stages that this epoch is over."""

    @property
    def voice(self) -> VoiceChoice:
        """The engine that speaks texts."""

    def speak(self, sentence: Sentence) -> None:
        """Hand a sentence to a voice worker."""

    def close_texts(self, session: str, turn: int) -> None:
        """Tell the voice workers that the sentences up to this turn are not wanted any more."""

    def record(self, connection: Connection, action: str) -> None:
        """Record the session, or stop: `action` is one of RECORD_ACTIONS."""
