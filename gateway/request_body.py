"""Requests with a body, which the websockets library refuses: the body is set aside before it reads them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from enum import Enum, auto

#: Longest head of a request with a body.
MAX_HEAD = 16384
#: Methods whose requests may have one.
_METHODS = (b"POST ", b"PUT ")
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,12})[ \t]*(?=\r\n)", re.IGNORECASE)
_OTHER_LENGTH = re.compile(rb"\r\n(?:transfer-encoding|content-length)[ \t]*:", re.IGNORECASE)
_EXPECTS = re.compile(rb"\r\nexpect:[ \t]*100-continue[ \t]*(?=\r\n)", re.IGNORECASE)


class BodyError(Exception):
    """A body cannot be had. The text says why. `too_long`: it is longer than is read."""

    def __init__(self, text: str, *, too_long: bool = False) -> None:
        super().__init__(text)
        self.too_long = too_long


class _Reading(Enum):
    HEAD = auto()
    BODY = auto()
    #: The library gets every byte.
    NOTHING = auto()
    #: Nobody gets any.
    DROPPED = auto()


class BodyIntake:
    """Splits a request's bytes into those that the library reads, and the body.

    The library gets the head without its Content-Length. These requests reach it unchanged: requests of other
    addresses or methods, chunked ones, and those that name two lengths.

    Attributes:
        length: of the body, in bytes. 0 while there is none.
        expects: whether the client waits for "100 Continue" before it sends the body.
    """

    def __init__(self, takes_body: Callable[[str], bool]) -> None:
        """Nothing came yet. `takes_body` tells of a target's path whether a body may follow there."""
        self._takes_body = takes_body
        self._reading = _Reading.HEAD
        self._begin = bytearray()
        self._body = bytearray()
        self._whole: asyncio.Future[bytes] | None = None
        self.length = 0
        self.expects = False

    @property
    def holds_back(self) -> bool:
        """Whether nothing more should be read from the socket now: nobody has asked for the body yet."""
        return self._reading is _Reading.BODY and self._whole is None

    def feed(self, data: bytes) -> bytes:
        """Take bytes of the connection. Returns the bytes that the library is to read."""
        if self._reading is _Reading.NOTHING:
            return data
        if self._reading is _Reading.HEAD:
            return self._feed_head(data)
        if self._reading is _Reading.BODY:
            self._body += data[: self.length - len(self._body)]
            self._tell_whole()
        return b""

    def _feed_head(self, data: bytes) -> bytes:
        self._begin += data
        begin = bytes(self._begin)
        if not any(method.startswith(begin[:5]) or begin.startswith(method) for method in _METHODS):
            return self._give_up()
        end = begin.find(b"\r\n\r\n")
        if end < 0:
            return b"" if len(begin) <= MAX_HEAD else self._give_up()
        head = begin[: end + 2]
        lengths = _LENGTH.findall(head)
        target = head.split(b" ", 2)[1].partition(b"?")[0].decode("latin-1")
        if len(lengths) != 1 or len(_OTHER_LENGTH.findall(head)) != 1 or not self._takes_body(target):
            return self._give_up()
        self.length = int(lengths[0])
        self.expects = _EXPECTS.search(head) is not None
        self._reading = _Reading.BODY
        self._begin.clear()
        self._body += begin[end + 4 :][: self.length]
        return _LENGTH.sub(b"", head) + b"\r\n"

    def _give_up(self) -> bytes:
        held = bytes(self._begin)
        self._begin.clear()
        self._reading = _Reading.NOTHING
        return held

    def whole(self, loop: asyncio.AbstractEventLoop) -> asyncio.Future[bytes]:
        """The body, once all of it is there. It is set aside from then on."""
        if self._whole is None:
            self._whole = loop.create_future()
            if self._reading is not _Reading.BODY:
                self._whole.set_result(b"")
            self._tell_whole()
        return self._whole

    def _tell_whole(self) -> None:
        if self._whole is not None and not self._whole.done() and len(self._body) == self.length:
            self._whole.set_result(bytes(self._body))
            self._body.clear()

    def drop(self) -> None:
        """The request has its answer. Bytes that still come are read and forgotten."""
        if self._reading is _Reading.BODY:
            self._reading = _Reading.DROPPED
            self._body.clear()
            if self._whole is not None and not self._whole.done():
                self._whole.cancel()
