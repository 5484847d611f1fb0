"""Recordings that the server makes of a session: the pictures as it sent them, and the sound in step."""

from __future__ import annotations

import asyncio
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlencode

from echomimic_live_client.connection import Answer, Network
from echomimic_live_client.errors import ClientError, Refused

#: Bytes that are asked for at once. The server sends at most 8 MiB.
PIECE = 4 << 20
#: Seconds for the server to finish its files.
FINISH_WITHIN = 30.0
#: Seconds between two questions whether the files are finished: the first pause, and the longest.
ASK_EVERY, ASK_MOST = 0.05, 0.5


@dataclass(frozen=True, slots=True)
class RecordedFile:
    """One file of a recording.

    Attributes:
        name: its name at the server.
        mime: its type: `video/mp4`, `video/webm` or `video/x-matroska`.
        seconds: its length.
        bytes: its size.
        reason: a sentence: why it ended.
        code: the reason as a word, such as `recording_stopped` or `recording_long`.
        finished: False for a file that the server could not finish. It plays up to its last whole part.
    """

    name: str
    mime: str
    seconds: float
    bytes: int
    reason: str
    code: str
    finished: bool


class ServerRecording:
    """A recording that runs, made by `Session.record`.

    Attributes:
        files: its files, once it has ended: one, or more where the pictures' codec or size changed. Empty
            where nothing was played.
    """

    def __init__(self, network: Network, session: str) -> None:
        self._network = network
        self._session = session
        self._before: set[str] = set()
        self.files: list[RecordedFile] = []

    async def begin(self) -> None:
        """Start it. `Session.record` has done that."""
        self._before = {file.name for file in await self._listed()}
        checked(await self._act("start"))

    async def stop(self) -> list[RecordedFile]:
        """End it, if it has not ended by itself, and wait until its files are finished.

        Returns:
            `files`.

        Raises:
            ClientError: `recording_late`: the server does not finish them in time.
            ConnectionLost: the server cannot be reached.
        """
        pause, end = ASK_EVERY, time.monotonic() + FINISH_WITHIN
        while True:
            # 409: this session is not recorded any more. 404: there is no such session any more.
            status = (await self._act("stop")).status
            self.files = [file for file in await self._listed() if file.name not in self._before]
            whole = all(file.finished for file in self.files)
            if status == 409 or (status == 404 and whole):
                return self.files
            if time.monotonic() > end:
                raise ClientError("recording_late", f"the files are not finished after {FINISH_WITHIN:g} s")
            await asyncio.sleep(pause)
            pause = min(2 * pause, ASK_MOST)

    async def save(self, path: str | Path) -> list[Path]:
        """Stop it, and fetch its files.

        Args:
            path: a name to which the server's ending is added: `talk` becomes `talk.mp4`. Further files
                become `talk-2.mp4` and so on.

        Raises:
            ClientError: as `stop`. `recording_gone`: the server has deleted a file by rule.
        """
        saved = []
        for number, file in enumerate(await self.stop(), 1):
            ending = Path(file.name).suffix
            stem = Path(path).with_suffix("") if Path(path).suffix == ending else Path(path)
            target = stem.with_name(f"{stem.name}{'' if number == 1 else f'-{number}'}{ending}")
            await self.fetch(file, target)
            saved.append(target)
        return saved

    async def fetch(self, file: RecordedFile, target: Path) -> None:
        """Write one of `files` to a path. The file appears at the path once it is complete."""
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f"{target.name}.part")
        try:
            with part.open("wb") as out:
                while True:
                    answer = await self._piece(file, out.tell())
                    await asyncio.to_thread(out.write, answer.body)
                    whole = answer.headers.get("Content-Range", "").rpartition("/")[2]
                    if not answer.body or not whole.isdecimal() or out.tell() >= int(whole):
                        break
            os.replace(part, target)
        finally:
            part.unlink(missing_ok=True)

    async def remove(self) -> None:
        """Delete the files at the server."""
        for file in self.files:
            await self._network.ask("POST", f"recordings/remove?{urlencode({'name': file.name})}")

    async def _piece(self, file: RecordedFile, begin: int) -> Answer:
        asked = {"Range": f"bytes={begin}-{begin + PIECE - 1}"}
        answer = await self._network.ask("GET", f"recordings/{quote(file.name)}", asked)
        if answer.status == 404:
            raise ClientError("recording_gone", "the server does not have this file any more")
        return checked(answer)

    async def _act(self, action: str) -> Answer:
        query = urlencode({"session": self._session})
        return await self._network.ask("POST", f"recordings/{action}?{query}")

    async def _listed(self) -> list[RecordedFile]:
        answer = await self._network.ask("GET", f"recordings.json?{urlencode({'session': self._session})}")
        try:
            return [_file(fields) for fields in json.loads(checked(answer).body)["recordings"]]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ClientError("bad_message", "the server's list of recordings cannot be read") from None


def _file(fields: dict[str, object]) -> RecordedFile:
    phrase = fields.get("phrase")
    return RecordedFile(
        name=Path(str(fields["name"])).name,
        mime=str(fields["mime"]),
        seconds=float(str(fields["seconds"])),
        bytes=int(str(fields["bytes"])),
        reason=str(fields["reason"]),
        code=str(phrase.get("code", "")) if isinstance(phrase, dict) else "",
        finished=fields["state"] == "finished",
    )


def checked(answer: Answer) -> Answer:
    """The answer, if its status is a good one.

    Raises:
        Refused: the server's door refuses it.
        ClientError: the server cannot do it. The code is the server's, or `unsupported`.
    """
    if answer.status < 400:
        return answer
    text = answer.body[:2000].decode(errors="replace").strip() or f"HTTP status {answer.status}"
    if answer.status in (401, 403):
        raise Refused("token_wrong" if answer.status == 401 else "token_scope", text, answer.status)
    try:
        code = str(json.loads(answer.headers.get("Phrase", "{}")).get("code") or "unsupported")
    except (ValueError, AttributeError):
        code = "unsupported"
    raise ClientError(code, text)
