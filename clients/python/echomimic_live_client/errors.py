"""The ways in which a session ends other than by its client's own wish."""

from __future__ import annotations

#: Codes after which the same call may work a little later.
TRY_AGAIN = frozenset({"busy", "idle", "not_ready", "shutdown", "throttled", "connection_lost"})


class ClientError(Exception):
    """Base of everything that this package raises for reasons outside the program.

    Attributes:
        code: a word for programs. `protocol/SPEC.md` of the server lists those of the wire.
        message: a sentence for people.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message

    @property
    def try_again(self) -> bool:
        """Whether the same call may work a little later."""
        return self.code in TRY_AGAIN


class Refused(ClientError):
    """The server's door did not let the client in.

    Attributes:
        status: the HTTP status.
        retry_after: seconds until the next try is looked at, 0 where the server named none.
    """

    def __init__(self, code: str, message: str, status: int, retry_after: float = 0.0) -> None:
        super().__init__(code, message)
        self.status = status
        self.retry_after = retry_after


class SessionEnded(ClientError):
    """The server ended the session. `code` is that of the wire, such as `slow_client` or `busy`."""


class ConnectionLost(ClientError):
    """The server could not be reached, or not again within the time. The code is `connection_lost`."""

    def __init__(self, message: str) -> None:
        super().__init__("connection_lost", message)


class WireError(ClientError):
    """The server sent a message that this client cannot read. The code is `bad_message`."""

    def __init__(self, message: str) -> None:
        super().__init__("bad_message", message)
