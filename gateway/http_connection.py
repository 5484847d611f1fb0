"""A connection that also answers the requests that the websockets library drops without a word."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.datastructures import Headers
from websockets.exceptions import InvalidMessage
from websockets.http11 import Response

from gateway.answers import FIXED_HEADERS

NOT_HTTP = "This is no HTTP/1.1 request that this server can read."
NO_BODY = "This server takes no request body. Values belong into the query."


class HttpConnection(ServerConnection):
    """The library closes a connection whose first bytes are no request, or one with a body. This says why."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._told = False

    def send_data(self) -> None:
        """Send what is due: before the end that follows a request that cannot be read, the answer to it."""
        trouble = self.protocol.handshake_exc
        if isinstance(trouble, InvalidMessage) and not self._told:
            self._told = True
            if not isinstance(trouble.__cause__, EOFError):  # the client left in the middle of its request
                self.transport.write(unreadable_response(trouble.__cause__).serialize())
        super().send_data()


def unreadable_response(cause: BaseException | None) -> Response:
    """The answer to a request that the library refused because of `cause`."""
    # A chunked body is not implemented. One with a length has no class of its own.
    has_body = isinstance(cause, NotImplementedError) or str(cause) == "unsupported request body"
    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE if has_body else HTTPStatus.BAD_REQUEST
    body = f"{NO_BODY if has_body else NOT_HTTP}\n".encode()
    headers = Headers({**FIXED_HEADERS, "Connection": "close", "Cache-Control": "no-store"})
    headers["Content-Type"] = "text/plain; charset=utf-8"
    headers["Content-Length"] = str(len(body))
    return Response(int(status), status.phrase, headers, body)
