"""Lines of JSON between the leader and a member, over a pair of sockets that nobody else can open."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from typing import Any

#: A message: names and plain values.
Message = dict[str, Any]


class Line:
    """One end of the connection. `send` and the reading methods may be used by two threads.

    Args:
        sock: a connected stream socket.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._partial = b""

    def send(self, message: Message) -> None:
        """Sends a message.

        Raises:
            OSError: the other end is gone.
        """
        self.sock.sendall(json.dumps(message).encode() + b"\n")

    def read_some(self) -> list[Message] | None:
        """Waits for some bytes and returns the messages in them, or None when the other end is gone."""
        try:
            data = self.sock.recv(65536)
        except OSError:
            return None
        if not data:
            return None
        *lines, self._partial = (self._partial + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def hang_up(self) -> None:
        """Ends the connection. Whoever reads at either end is told."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()

    def __iter__(self) -> Iterator[Message]:
        """Every message until the other end is gone."""
        while (messages := self.read_some()) is not None:
            yield from messages
