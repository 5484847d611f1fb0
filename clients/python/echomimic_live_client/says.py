"""Texts that the server speaks, from their sending to their last word. No I/O."""

from __future__ import annotations

import secrets
from collections.abc import Generator
from typing import Any

from echomimic_live_client import wire
from echomimic_live_client.signal import Signal


class Say:
    """A text on its way. `await` it for its outcome.

    Attributes:
        id: its name on the wire.
        text: as it was given.
        started_pts: place of its first sample in its epoch. None until it begins.
        outcome: `spoken`, `interrupted`, `failed`, or `lost` where the server was lost before the text's end.
            Empty while it goes on.
        message: why it failed.
        ended_pts: place of its end in its epoch. None while it goes on, and where the server names none.
    """

    def __init__(self, text: str, voice: str, news: Signal) -> None:
        self.id = secrets.token_hex(8)
        self.text = text
        self.message = ""
        self.outcome = ""
        self.started_pts: int | None = None
        self.ended_pts: int | None = None
        self._news = news
        #: The text on the wire.
        self.wire_text = wire.say(text, voice, self.id)

    def __await__(self) -> Generator[Any, None, str]:
        return self._ended().__await__()

    async def _ended(self) -> str:
        while not self.outcome:
            await self._news.wait()
        return self.outcome

    def end(self, outcome: str, message: str = "", pts: int | None = None) -> None:
        """It goes on no longer."""
        if not self.outcome:
            self.outcome, self.message, self.ended_pts = outcome, message, pts
            self._news.wake()


class Says:
    """The texts whose end was not told yet."""

    def __init__(self, news: Signal) -> None:
        """`news`: is woken when a text ends."""
        self._news = news
        self._waiting: dict[str, Say] = {}

    @property
    def waiting(self) -> bool:
        """Whether a text goes on."""
        return bool(self._waiting)

    def begin(self, text: str, voice: str) -> Say:
        """A text is sent."""
        say = Say(text, voice, self._news)
        self._waiting[say.id] = say
        return say

    def interrupt(self) -> None:
        """All texts are dropped."""
        self.end_all("interrupted", "")

    def end_all(self, outcome: str, message: str) -> None:
        """No text goes on."""
        for say in self._waiting.values():
            say.end(outcome, message)
        self._waiting.clear()

    def take_text(self, kind: str, fields: dict[str, Any], greeting: bool) -> list[str]:
        """Take a text of the server.

        Returns:
            The texts to send again, where a new connection's server has never had them.
        """
        say = self._waiting.get(str(fields.get("id")))
        pts = fields.get("pts")
        if kind == "say_started" and say is not None:
            say.started_pts = pts
        elif kind == "say_ended" and say is not None:
            del self._waiting[say.id]
            say.end(str(fields.get("outcome")), str(fields.get("message", "")), pts)
        elif kind == "ready" and greeting:
            return self._again(fields.get("saying", []))
        return []

    def _again(self, known: list[str]) -> list[str]:
        """Texts that another connection's server does not know. One that had begun is not said twice."""
        unknown = [say for say in self._waiting.values() if say.id not in known]
        for say in [say for say in unknown if say.started_pts is not None]:
            del self._waiting[say.id]
            say.end("lost", "the server was lost while it spoke")
        return [say.wire_text for say in unknown if not say.outcome]
