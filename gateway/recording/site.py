"""The addresses of recordings: start, stop, list, fetch, remove, and a snapshot."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from urllib.parse import parse_qsl

from websockets.http11 import Request

from gateway.answers import HttpAnswer, json_answer, plain
from gateway.connection import Connection
from gateway.door.guard import Grant
from gateway.recording.recordings import RecordingError, Recordings, told
from gateway.recording.snapshot import snapshot
from gateway.sessions import SessionRegistry
from protocol.wire.phrases import phrase

FOLDER = "/recordings/"
LIST = "/recordings.json"
SNAPSHOT = "/snapshot.jpg"
#: Addresses that take a POST.
ACTIONS = (f"{FOLDER}start", f"{FOLDER}stop", f"{FOLDER}remove")
#: Most bytes of one answer: files come in ranges.
MOST_BYTES = 8 << 20
MAX_FIELDS = 8
_RANGE = re.compile(r"bytes=(\d{1,15})-(\d{0,15})")
NO_SESSION = plain(HTTPStatus.NOT_FOUND, "There is no such session.")
NO_RECORDING = plain(HTTPStatus.NOT_FOUND, "There is no such recording.")


class RecordingSite:
    """Answers for the holder of a token with the scope `session`, about sessions of the same token."""

    def __init__(self, recordings: Recordings, sessions: SessionRegistry, *, generated: bool) -> None:
        self._recordings = recordings
        self._sessions = sessions
        self._generated = generated

    @staticmethod
    def has(path: str) -> bool:
        """Whether a GET of this address is answered here."""
        return path in (LIST, SNAPSHOT) or (path.startswith(FOLDER) and path not in ACTIONS)

    async def get(self, path: str, query: str, request: Request, grant: Grant) -> HttpAnswer:
        """The answer to a GET of an address that `has` knows."""
        fields = _fields(query)
        if path == LIST:
            mine = self._recordings.store.of_session(fields.get("session", ""), grant.token_id)
            listed = [told(recording) for recording in mine]
            return json_answer({"recordings": listed, "problem": self._recordings.problem})
        if path == SNAPSHOT:
            return await self._snapshot(fields, grant)
        recording = self._recordings.store.find(path.removeprefix(FOLDER), grant.token_id)
        if recording is None:
            return NO_RECORDING
        asked = request.headers.get_all("Range")
        file = self._recordings.store.path(recording)
        try:
            return await asyncio.to_thread(_read, file, recording.kind, asked[0] if asked else "")
        except OSError:
            return NO_RECORDING

    def act(self, path: str, query: str, grant: Grant) -> HttpAnswer:
        """The answer to a POST of one of `ACTIONS`."""
        fields = _fields(query)
        if path.endswith("remove"):
            recording = self._recordings.store.find(fields.get("name", ""), grant.token_id)
            if recording is None:
                return NO_RECORDING
            if self._recordings.in_work(recording.name):
                return plain(HTTPStatus.CONFLICT, "It is being written: stop it first.")
            self._recordings.store.remove(recording)
            return json_answer({"removed": recording.name})
        connection = self._session(fields, grant)
        if connection is None:
            return NO_SESSION
        if path.endswith("stop"):
            if not self._recordings.stop(connection.name):
                return plain(
                    HTTPStatus.CONFLICT, "This session is not recorded.", why=phrase("recording_none")
                )
            return json_answer({"state": "stopping"})
        try:
            self._recordings.start(connection)
        except RecordingError as error:
            return plain(HTTPStatus.CONFLICT, f"It cannot be recorded: {error}.", why=str(error))
        return json_answer({"state": "starting"})

    def _session(self, fields: Mapping[str, str], grant: Grant) -> Connection | None:
        """The session that a request names, if it is one of the same token."""
        connection = self._sessions.get(fields.get("session", ""))
        return connection if connection is not None and connection.grant.token_id == grant.token_id else None

    async def _snapshot(self, fields: Mapping[str, str], grant: Grant) -> HttpAnswer:
        connection = self._session(fields, grant)
        if connection is None or connection.core is None:
            return NO_SESSION
        newest = list(connection.core.tapped.newest)
        jpeg = await asyncio.to_thread(snapshot, newest, generated=self._generated)
        return HttpAnswer(jpeg, "image/jpeg") if jpeg else plain(HTTPStatus.NOT_FOUND, "No picture yet.")


def _fields(query: str) -> dict[str, str]:
    try:
        return dict(parse_qsl(query, max_num_fields=MAX_FIELDS))
    except ValueError:
        return {}


def _read(path: Path, kind: str, asked: str) -> HttpAnswer:
    """A file, or the range of it that a request asks for, in pieces of at most MOST_BYTES."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        ranges = ("Accept-Ranges", "bytes")
        wanted = _RANGE.fullmatch(asked)
        if wanted is None:
            if size > MOST_BYTES:
                text = f"The file has {size} bytes: ask for ranges of at most {MOST_BYTES} (Range: bytes=0-)."
                return plain(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, text, [ranges])
            return HttpAnswer(file.read(MOST_BYTES), kind, headers=(ranges,))
        begin = int(wanted[1])
        end = min(int(wanted[2] or size), size - 1, begin + MOST_BYTES - 1)
        if begin > end:
            headers = [("Content-Range", f"bytes */{size}")]
            return plain(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, "Beyond the end of the file.", headers)
        file.seek(begin)
        place = ("Content-Range", f"bytes {begin}-{end}/{size}")
        return HttpAnswer(
            file.read(end - begin + 1), kind, HTTPStatus.PARTIAL_CONTENT, headers=(ranges, place)
        )
