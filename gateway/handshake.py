"""Around the websockets library: its listener, its logger, and how a handshake is read."""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Sequence

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import NegotiationError
from websockets.typing import Subprotocol

from gateway.door.credentials import SUBPROTOCOL_PREFIX
from gateway.site import ConnectionEnds
from protocol.hop.endpoints import EndpointError
from protocol.process.addresses import bind_socket, bracketed
from protocol.process.settings import Settings
from protocol.wire.browser import SUBPROTOCOL_V2

logger = logging.getLogger(__name__)

#: Bytes that the kernel may hold for a client that reads slowly.
SEND_BUFFER = 1 << 18
#: Bytes of it that may not have been sent yet.
UNSENT = 1 << 16


def select_subprotocol(ws: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """Version 2 where it is offered, version 1 where nothing but a token is. A token is never echoed."""
    versions = [name for name in offered if not name.startswith(SUBPROTOCOL_PREFIX)]
    if not versions:
        return None
    if SUBPROTOCOL_V2 in versions:
        return Subprotocol(SUBPROTOCOL_V2)
    raise NegotiationError(f"expected no subprotocol or {SUBPROTOCOL_V2}")


def peer_of(ws: ServerConnection) -> ConnectionEnds:
    """The ends of a connection. The library says None for those of a connection that is gone."""
    ends = [str(end[0]) if end else "" for end in (ws.remote_address, ws.local_address)]
    return ConnectionEnds(ends[0], ends[1], tls=ws.transport.get_extra_info("ssl_object") is not None)


def websockets_logger() -> logging.Logger:
    """The library's logger, without its line for every connection: the gateway logs every session."""
    library = logging.getLogger("websockets.server")
    library.addFilter(_is_no_hang_up)
    if not logger.isEnabledFor(logging.DEBUG):
        library.setLevel(logging.WARNING)
    return library


def bound_listener(settings: Settings) -> socket.socket:
    """The socket for the page's address. Raises EndpointError, alone of all errors about the port."""
    try:
        listener = bind_socket(settings.host, settings.port)
    except OSError as error:
        in_use = error.errno == errno.EADDRINUSE
        advice = (
            "is another run using it? choose another --port" if in_use else "choose another --host or --port"
        )
        where = f"{bracketed(settings.host)}:{settings.port}"
        raise EndpointError(f"cannot listen on {where} ({error.strerror}): {advice}") from error
    # The sockets that it accepts inherit it.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):  # Linux and macOS
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT)
    listener.setblocking(False)
    return listener


def _is_no_hang_up(record: logging.LogRecord) -> bool:
    """False for a client that was gone before it asked for anything, which websockets 16 logs as an error."""
    error = record.exc_info[1] if record.exc_info else None
    return error is None or not isinstance(error.__cause__, EOFError)
