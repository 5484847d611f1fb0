"""The hop to the voice workers. Nothing of it costs anything before the first text."""

from __future__ import annotations

import logging

import zmq

from protocol.hop.keys import RunKey
from protocol.hop.server import HopServer
from protocol.process.settings import Settings
from protocol.process.voices import VOICE_WANTED_FILE, choose_voice
from protocol.wire.messages import Close, Sentence

logger = logging.getLogger(__name__)

#: Name of the stage that speaks texts.
VOICE_STAGE = "voice_worker"


class VoiceHop:
    """Sentences to the voice workers. `hop` is None where there is no engine."""

    def __init__(
        self, settings: Settings, context: zmq.Context[zmq.Socket[bytes]], key: RunKey | None
    ) -> None:
        """Bind the hop's socket. Raises EndpointError if it cannot be had."""
        self.choice = choose_voice(settings)
        self.hop: HopServer | None = None
        self._wanted_file = settings.run_dir / VOICE_WANTED_FILE
        self._asked = False
        if self.choice.engine:
            self.hop = HopServer(
                context,
                settings.endpoint("sentences"),
                sticky=False,
                dead_after=settings.dead_after,
                name="sentences",
                key=key,
            )

    def speak(self, sentence: Sentence) -> None:
        """Hand a sentence to a worker. The launcher starts one at the first sentence."""
        assert self.hop is not None
        if not self._asked:
            self._asked = True
            try:
                self._wanted_file.touch(mode=0o600)
                # The launcher wakes for this line, and looks.
                logger.info("a text is to be spoken: a voice worker is wanted")
            except OSError as error:  # a worker that was started by hand speaks all the same
                logger.error("%s: %s", self._wanted_file, error.strerror)
        self.hop.dispatch(sentence)

    def close_session(self, session: str, turn: int) -> None:
        """The sentences of a session up to this turn are not wanted any more."""
        if self.hop is not None and self._asked:
            self.hop.broadcast(Close(session, turn))

    def wake(self) -> None:
        """Let the hop's pump tick now, in a wake-up that the process has anyway."""
        if self.hop is not None and self.hop.wake is not None:
            self.hop.wake()

    def close(self) -> None:
        """Close the socket."""
        if self.hop is not None:
            self.hop.close()
