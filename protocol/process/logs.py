"""One line for each log record on stderr, with stage and worker. The supervisor collects the lines."""

from __future__ import annotations

import logging
import re
import sys
import time

from protocol.process.redact import redact

#: Lines of OpenVINO's errors that tell where in its code a check failed. The cause stands behind them.
_PLACE = re.compile(r"(Exception from|Check '.*' failed at) \S+:\d+:")


class _OneLine(logging.Formatter):
    """`HH:MM:SS.mmm LEVEL stage.worker logger: text`. The lines of a traceback are joined by ` | `.

    Control characters are escaped, so that a client's text cannot forge a line or steer a terminal. Tokens
    are blotted out.
    """

    def __init__(self, who: str) -> None:
        super().__init__()
        self._who = who

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        # The websocket library logs addresses. Their queries may carry tokens in any spelling.
        queries = record.name.startswith("websockets")
        lines = [redact(line.strip(), queries=queries) for line in text.splitlines() if line.strip()]
        text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in " | ".join(lines))
        stamp = time.strftime("%H:%M:%S", time.localtime(record.created))
        return f"{stamp}.{int(record.msecs):03d} {record.levelname} {self._who} {record.name}: {text}"


def set_up_logging(stage: str, worker: str = "", level: str = "INFO") -> None:
    """Send this process's log to stderr. A second call replaces the first one's set-up."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine(f"{stage}.{worker}" if worker else stage))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.captureWarnings(True)


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its type if it has none. Some libraries add pages.

    A library's places in its own code are passed over. A line that ends in a colon takes the next one along.
    """
    lines = (str(error).strip() or type(error).__name__).splitlines()
    told = [line for line in lines if line and not _PLACE.fullmatch(line)] or lines
    return " ".join(line.strip() for line in told[: 2 if told[0].endswith(":") else 1])
