"""One line per log record on stderr, with stage and worker; the supervisor collects them."""

from __future__ import annotations

import logging
import sys
import time


class _OneLine(logging.Formatter):
    """`HH:MM:SS.mmm LEVEL stage.worker logger: text`; the lines of a traceback are joined by ` | `.

    Control characters are escaped: a client's text cannot forge a line or steer a terminal.
    """

    def __init__(self, who: str) -> None:
        super().__init__()
        self._who = who

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in " | ".join(lines))
        stamp = time.strftime("%H:%M:%S", time.localtime(record.created))
        return f"{stamp}.{int(record.msecs):03d} {record.levelname} {self._who} {record.name}: {text}"


def set_up_logging(stage: str, worker: str = "", level: str = "INFO") -> None:
    """Send this process's log to stderr. Calling it again replaces what the call before set up."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine(f"{stage}.{worker}" if worker else stage))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.captureWarnings(True)


def first_line(error: BaseException) -> str:
    """What an error of a library says, without the pages that some add; its type where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
