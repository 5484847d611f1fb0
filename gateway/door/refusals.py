"""The refusals of the door: a word for programs, a sentence for people, and a line in the log."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

logger = logging.getLogger(__name__)

#: Code → HTTP status. `protocol/SPEC.md` has the meaning of each.
STATUSES = {
    "bad_request": HTTPStatus.BAD_REQUEST,
    "host": HTTPStatus.MISDIRECTED_REQUEST,
    "origin": HTTPStatus.FORBIDDEN,
    "token_missing": HTTPStatus.UNAUTHORIZED,
    "token_wrong": HTTPStatus.UNAUTHORIZED,
    "token_expired": HTTPStatus.UNAUTHORIZED,
    "token_revoked": HTTPStatus.UNAUTHORIZED,
    "token_scope": HTTPStatus.FORBIDDEN,
    "token_file": HTTPStatus.SERVICE_UNAVAILABLE,
    "throttled": HTTPStatus.TOO_MANY_REQUESTS,
    "busy": HTTPStatus.SERVICE_UNAVAILABLE,
}
#: Seconds between two lines in the log about the same thing.
SAME_LINE_EVERY = 60.0
#: Lines in the log within SAME_LINE_EVERY, whatever they are about.
MOST_LINES = 10
#: Characters of a client's text in a line of the log.
MAX_QUOTED = 100


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a visitor may not come in.

    Attributes:
        code: a key of STATUSES.
        message: a sentence that the visitor may read. It holds nothing secret.
        log: a sentence for the operator, with the flag that lets the visitor in. Empty: nothing is logged.
        headers: further headers of the answer, such as WWW-Authenticate.
    """

    code: str
    message: str
    log: str = ""
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def status(self) -> HTTPStatus:
        """The HTTP status of the answer."""
        return STATUSES[self.code]


class Refused(Exception):
    """A visitor may not come in."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


def quoted(text: str) -> str:
    """A client's text for a line of the log: on one line, without control characters, and not long."""
    short = text if len(text) <= MAX_QUOTED else text[: MAX_QUOTED - 1] + "…"
    return "".join(character if character.isprintable() else "?" for character in short)


class RefusalLog:
    """Writes refusals to the log: each once a minute, and no more than ten lines a minute in all."""

    def __init__(self, clock: Callable[[], float], write: Callable[[str], None] = logger.warning) -> None:
        self._clock = clock
        self._write = write
        #: Text → time of its last line and refusals since. The oldest lines are first.
        self._lines: OrderedDict[str, tuple[float, int]] = OrderedDict()
        #: Refusals that had no line of their own.
        self._untold = 0

    def add(self, refusal: Refusal) -> None:
        """Count the refusal, and write a line where one is due."""
        if not refusal.log:
            return
        now = self._clock()
        told_at, since = self._lines.get(refusal.log, (None, 0))
        if told_at is not None and now - told_at < SAME_LINE_EVERY:
            self._lines[refusal.log] = (told_at, since + 1)
            return
        # Lines that are too old to hold a new one back leave nothing but their count.
        while self._lines and now - next(iter(self._lines.values()))[0] >= SAME_LINE_EVERY:
            text, (_, count) = self._lines.popitem(last=False)
            if text != refusal.log:
                self._untold += count
        if len(self._lines) >= MOST_LINES:
            self._untold += 1
            return
        more = f" ({since} more in the meantime)" if since else ""
        others = f" ({self._untold} other refusals had no line)" if self._untold else ""
        self._untold = 0
        self._lines[refusal.log] = (now, 0)
        self._write(f"{refusal.log}{more}{others}")
