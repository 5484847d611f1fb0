"""Runs an installer: a line of progress every few seconds, and another try when the network failed."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

#: Seconds without a line after which one is printed.
EVERY = 5.0
TRIES = 5
#: Seconds before the second try. They double each time.
FIRST_WAIT = 2.0
#: Lines shown of an installer that failed.
TAIL_LINES = 15
_MAX_WIDTH = 100
#: What pip and uv print when the network is to blame, so that another try may help.
NETWORK = re.compile(
    r"timed? ?out|connection (broken|reset|aborted|refused|error)|IncompleteRead|ProtocolError"
    r"|RemoteDisconnected|name resolution|Name or service not known|Network is unreachable|No route to host"
    r"|error sending request|error decoding response|end of file before message|EOF occurred"
    r"|retries exceeded|incomplete download|HTTP error 5\d\d|5\d\d (Server|Service|Bad|Gateway)"
    # a download that was cut off, which older versions of pip do not notice
    r"|THESE PACKAGES DO NOT MATCH|^ERROR: Wheel .* is invalid|BadZipFile",
    re.I,
)


def say(text: str) -> None:
    """Print a line for the user."""
    print(text, file=sys.stderr, flush=True)


def run_patiently(
    command: Sequence[str],
    environment: Mapping[str, str],
    *,
    cwd: Path | None = None,
    watched: Path | None = None,
    tries: int = TRIES,
) -> bool:
    """Run an installer until it succeeds, or fails for another reason than the network.

    Args:
        command: its command line.
        environment: its variables.
        cwd: the folder that it runs in.
        watched: a folder whose size tells how far it is.
        tries: how often it is run at most.

    Returns:
        Whether it succeeded. If not, its last lines were printed.

    Raises:
        KeyboardInterrupt: the user stopped it. The installer has ended.
    """
    for number in range(1, tries + 1):
        lines: deque[str] = deque(maxlen=400)
        if _run_once(command, environment, cwd, watched, lines) == 0:
            return True
        trouble = next((line for line in reversed(lines) if NETWORK.search(line)), "")
        if not trouble or number == tries:
            break
        wait = FIRST_WAIT * 2 ** (number - 1)
        say(f"the network failed ({_short(trouble)}); trying again in {wait:g} s ({number + 1} of {tries}) …")
        time.sleep(wait)
    for line in list(lines)[-TAIL_LINES:]:
        say(f"    {line}")
    return False


def _run_once(
    command: Sequence[str],
    environment: Mapping[str, str],
    cwd: Path | None,
    watched: Path | None,
    lines: deque[str],
) -> int:
    # Descriptors that were inherited stay open: the lock of the environment is one of them.
    process = subprocess.Popen(
        command,
        env=dict(environment),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        close_fds=False,
    )
    came: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    reader = threading.Thread(target=_read, args=(process, came), daemon=True)
    reader.start()
    try:
        _follow(came, lines, watched)
        return process.wait()
    except BaseException:
        _end(process)
        raise


def _read(process: subprocess.Popen[str], came: queue.SimpleQueue[str | None]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        came.put(line.strip())
    came.put(None)


def _follow(came: queue.SimpleQueue[str | None], lines: deque[str], watched: Path | None) -> None:
    """Keep the lines and print how far it is every few seconds, until the output ends."""
    began = said = time.monotonic()
    while True:
        try:
            line = came.get(timeout=max(0.0, said + EVERY - time.monotonic()))
        except queue.Empty:
            said = time.monotonic()
            size = folder_size(watched) / 1e6 if watched else 0.0
            amount = f", {size:.0f} MB" if size >= 1 else ""
            say(f"  … {said - began:.0f} s{amount}: {_short(lines[-1] if lines else 'starting')}")
            continue
        if line is None:
            return
        if line:
            lines.append(line)


def _end(process: subprocess.Popen[str]) -> None:
    """Let the installer end as it likes, since Ctrl-C reached it too, and end it when it does not."""
    for number, patience in ((None, 5.0), (signal.SIGTERM, 3.0), (signal.SIGKILL, 3.0)):
        if number is not None:
            process.send_signal(number)
        try:
            process.wait(patience)
            return
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            continue


def folder_size(folder: Path) -> int:
    """Bytes of the files in a folder and below. Those that vanish meanwhile do not count."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_size
            except OSError:
                continue
    return total


def _short(line: str) -> str:
    text = "".join(letter if letter.isprintable() else " " for letter in line)
    return text if len(text) <= _MAX_WIDTH else f"{text[:_MAX_WIDTH]}…"
