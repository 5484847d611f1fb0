"""The recordings of a gateway: started and stopped by clients, told to them, stopped with their sessions."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, replace

from gateway.connection import Connection
from gateway.recording import recording_problem
from gateway.recording.recorder import PartEvent, RecordingLimits, SessionRecorder
from gateway.recording.signing import Signer
from gateway.recording.store import Recording, RecordingStore
from gateway.sessions import SessionRegistry
from protocol.process.settings import Settings
from protocol.wire.phrases import coded, phrase

logger = logging.getLogger(__name__)

#: Seconds between two looks for recordings that are to be deleted.
SWEEP_EVERY = 60.0
#: Seconds for which a gateway that stops waits for its files.
FINISH_WITHIN = 5.0
#: Recordings at once.
MOST_AT_ONCE = 8


class RecordingError(RuntimeError):
    """A recording cannot begin. The text is for the person who asked for it."""


@dataclass
class _Running:
    """A recording that is written."""

    recorder: SessionRecorder
    owner: str
    #: The file that is written now.
    part: Recording | None = None


class Recordings:
    """Every recording of a gateway, running and done."""

    def __init__(self, settings: Settings, sessions: SessionRegistry) -> None:
        """Read the folder of the recordings.

        Args:
            settings: the gateway's.
            sessions: whose players are recorded.
        """
        self._settings = settings
        self._sessions = sessions
        self._limits = RecordingLimits(settings.record_minutes * 60.0, settings.record_mb << 20)
        self.store = RecordingStore(
            settings.recordings_folder, settings.record_keep, settings.record_hours, time.time
        )
        self._signer = Signer.of(settings)
        #: By session.
        self._running: dict[str, _Running] = {}
        #: Recorders whose last file is not finished yet.
        self._ending: list[SessionRecorder] = []
        self._sweep_at = 0.0

    @property
    def problem(self) -> str:
        """Why there are no recordings here. Empty where there are."""
        return recording_problem(self._settings)

    def start(self, connection: Connection) -> None:
        """Record a session from its next clip on.

        Raises:
            RecordingError: it is recorded already, or cannot be.
        """
        core = connection.core
        if self.problem or core is None:
            raise RecordingError(self.problem or phrase("recording_early"))
        if connection.name in self._running:
            raise RecordingError(phrase("recording_already"))
        if len(self._running) >= MOST_AT_ONCE:
            raise RecordingError(phrase("recording_many", most=MOST_AT_ONCE))
        try:
            self.store.new_stem()
        except OSError as error:
            raise RecordingError(phrase("recording_folder", why=error.strerror)) from error
        loop, name = asyncio.get_running_loop(), connection.name

        def report(event: PartEvent | None) -> None:
            loop.call_soon_threadsafe(self._take_event, name, recorder, event)

        recorder = SessionRecorder(
            core.options.sample_rate,
            self._limits,
            self.store.new_stem,
            report,
            generated=self._settings.mark_generated,
            sign=self._signer.sign,
        )
        self._running[name] = _Running(recorder, connection.grant.token_id)
        core.tapped.tap = recorder
        logger.info("session %s is recorded", name)

    def stop(self, session: str, reason: str = phrase("recording_stopped")) -> bool:
        """End the recording of a session. False where there is none."""
        running = self._running.get(session)
        if running is None:
            return False
        running.recorder.stop(reason)
        return True

    def control(self, connection: Connection, action: str) -> None:
        """Do what a client's text `record` asks for, and answer it."""
        if action == "stop":
            if not self.stop(connection.name):
                _tell_failure(connection, phrase("recording_none"))
            return
        try:
            self.start(connection)
        except RecordingError as error:
            _tell_failure(connection, str(error))

    def in_work(self, name: str) -> bool:
        """Whether this file is written now."""
        return name in self._names_in_work()

    def tick(self, now: float) -> None:
        """Write what is due. Stop recordings whose session is over."""
        for name, running in list(self._running.items()):
            connection = self._sessions.get(name)
            core = connection.core if connection is not None else None
            if core is None:
                running.recorder.stop(phrase("recording_over"))
            elif core.options.sample_rate != running.recorder.rate:
                running.recorder.stop(phrase("recording_rate"))
            running.recorder.tick(now)
            if running.recorder.stopped:
                self._retire(name, running)
        if now >= self._sweep_at:
            self._sweep_at = now + SWEEP_EVERY
            self.store.sweep(self._names_in_work())

    def close(self) -> None:
        """Finish every file."""
        for running in self._running.values():
            running.recorder.stop(phrase("recording_server"))
        for recorder in [*self._ending, *(running.recorder for running in self._running.values())]:
            recorder.join(FINISH_WITHIN)

    def _names_in_work(self) -> set[str]:
        return {running.part.name for running in self._running.values() if running.part is not None}

    def _retire(self, name: str, running: _Running) -> None:
        """The recorder takes nothing more. Its thread tells when its file is finished."""
        connection = self._sessions.get(name)
        core = connection.core if connection is not None else None
        if core is not None and core.tapped.tap is running.recorder:
            core.tapped.tap = None
        if running.recorder not in self._ending:
            self._ending.append(running.recorder)

    def _take_event(self, session: str, recorder: SessionRecorder, event: PartEvent | None) -> None:
        running = self._running.get(session)
        if running is None or running.recorder is not recorder:
            return
        if event is None:
            self._retire(session, running)
            self._ending.remove(recorder)
            del self._running[session]
            self.store.sweep(self._names_in_work())
            connection = self._sessions.get(session)
            if running.part is None and connection is not None:
                _tell_failure(connection, phrase("recording_empty"))
            return
        if not event.ended:
            running.part = Recording(event.path.name, session, running.owner, time.time())
        assert running.part is not None
        if event.ended:
            running.part = replace(
                running.part, finished=True, seconds=event.seconds, bytes=event.bytes, reason=event.ended
            )
        try:
            self.store.put(running.part)
        except OSError as error:
            logger.warning("the facts of a recording cannot be written: %s", error.strerror)
        connection = self._sessions.get(session)
        if connection is not None:
            connection.tell("recording", **told(running.part))


def told(recording: Recording) -> dict[str, object]:
    """The fields of `recording`, on the wire and in `/recordings.json`."""
    return {
        "state": "finished" if recording.finished else "started",
        "name": recording.name,
        "mime": recording.kind,
        "seconds": round(recording.seconds, 3),
        "bytes": recording.bytes,
        "reason": recording.reason,
        "phrase": coded(recording.reason),
    }


def _tell_failure(connection: Connection, reason: str) -> None:
    connection.tell("recording", state="failed", reason=reason, phrase=coded(reason))
