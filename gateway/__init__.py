"""The gateway: serves the page, holds the websocket sessions, plays frames out with their sound."""

import os

#: Bytes of a line of a request's head. Browsers send the cookies of every other program on localhost too, in
#: one line, and websockets refuses more than 8 KiB of them.
MAX_HEADER_BYTES = 64 * 1024
#: Header lines of a request. A browser sends some 20. This bounds a request's head to 4 MiB.
MAX_HEADERS = 64

# websockets reads these when it is imported, which is after this package. A user's own values go first.
os.environ.setdefault("WEBSOCKETS_MAX_LINE_LENGTH", str(MAX_HEADER_BYTES))
os.environ.setdefault("WEBSOCKETS_MAX_NUM_HEADERS", str(MAX_HEADERS))
