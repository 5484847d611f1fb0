"""The token file as the gateway sees it: read again when it changes, while the gateway runs."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from gateway.door.token_file import TokenBook, TokenFileError, file_state, read_book

logger = logging.getLogger(__name__)

#: Seconds between two looks for the sake of running sessions.
LOOK_EVERY = 0.5
#: Seconds between two readings of a file that cannot be used and does not change.
READ_AGAIN_EVERY = 1.0


class TokenWatch:
    """Gives the newest contents of one token file.

    A file that cannot be used (gone, broken by hand, readable for others) lets nobody new in until it is
    mended, and the log says why. Sessions that run go on meanwhile: a slip of an editor must not end them.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Read the file. Raises TokenFileError when it cannot be used."""
        self.path = path
        self._clock = clock
        self._state = file_state(path)
        self._last_good = read_book(path)
        self._error: TokenFileError | None = None
        self._read_at = self._looked_at = clock()

    def book(self) -> TokenBook:
        """The contents. Each call looks whether the file has changed, which takes microseconds.

        Raises:
            TokenFileError: the file cannot be used now.
        """
        self._look()
        if self._error is not None:
            raise self._error
        return self._last_good

    def last_good(self) -> TokenBook:
        """The contents, or the last ones that could be used. They are half a second old at most."""
        if self._clock() - self._looked_at >= LOOK_EVERY:
            self._look()
        return self._last_good

    def _look(self) -> None:
        now, state = self._clock(), file_state(self.path)
        self._looked_at = now
        # A bad file is read again by itself: mending a folder's rights changes nothing in the file.
        again = self._error is not None and now - self._read_at >= READ_AGAIN_EVERY
        if state == self._state and not again:
            return
        self._state, self._read_at = state, now
        try:
            book = read_book(self.path)
        except TokenFileError as error:
            if str(error) != str(self._error):
                logger.error("nobody new is let in: %s", error)
            self._error = error
            return
        if self._error is not None or book != self._last_good:
            logger.info("the token file was read again")
        self._error, self._last_good = None, book
