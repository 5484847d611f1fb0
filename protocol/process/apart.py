"""A function of the project in a process of its own, whose memory goes back to the system when it ends.

A worker asks so for the work of a start alone, such as timing torch. Request and answer are JSON. The process
ends when its asker does: it holds the other end of the process's standard input.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from protocol.process.cause import count_oom_kills, describe_end
from protocol.process.logs import first_line, set_up_logging
from protocol.process.settings import ROOT, Settings, flags_of, load_settings
from protocol.wire.limits import shorten

logger = logging.getLogger(__name__)

#: Seconds after which the process is killed. Importing torch takes 2 s, and a minute on a very busy machine.
MOST_SECONDS = 120.0

#: Bytes of an answer that are read. A pipe holds as many, so no process waits for its asker.
MOST_ANSWER = 4096

#: The program of such a process. The project comes first on Python's path, as with `scripts/run/start.py`.
#: The working folder, which Python calls "", goes: it is the user's, and may hold a `numpy.py`.
_PROGRAM = """
import sys
sys.path[:] = [sys.argv[1], *filter(None, sys.path)]
from protocol.process.apart import answer
answer()
"""

#: Linux kills the process with the highest number first where memory runs out: this one, and no stage.
_OOM_SCORE = "1000"


class ApartError(RuntimeError):
    """The process gave no answer. The text says why."""


def ask_apart(
    function: str,
    settings: Settings,
    facts: Mapping[str, Any],
    *,
    stage: str,
    most_seconds: float = MOST_SECONDS,
) -> Mapping[str, Any]:
    """Calls `function(settings, **facts)` in a process of its own, and waits for it.

    The process logs to this process's stderr.

    Args:
        function: as "module:name". It returns a mapping that JSON can carry.
        settings: reach the function as they are.
        facts: further arguments, of JSON's types.
        stage: whose log lines the process writes.
        most_seconds: the process may take.

    Returns:
        The mapping.

    Raises:
        ApartError: the process could not be started, failed, was killed, or took too long.
    """
    kills = count_oom_kills()
    request = json.dumps({"flags": flags_of(settings), "stage": stage, "facts": facts}).encode() + b"\n"
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, str(ROOT), function],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
    except OSError as error:
        raise ApartError(f"no process can be started: {first_line(error)}") from error
    assert process.stdin is not None and process.stdout is not None
    with process:
        try:
            with suppress(BrokenPipeError):  # it has ended, and its status says more
                process.stdin.write(request)
            status = process.wait(most_seconds)
            content = process.stdout.read(MOST_ANSWER)
        except subprocess.TimeoutExpired:
            raise ApartError(f"it took longer than {most_seconds:g} s") from None
        finally:
            process.kill()
    now = count_oom_kills()
    return _made(content, status, None if kills is None or now is None else now - kills)


def _made(content: bytes, status: int, oom_kills: int | None) -> Mapping[str, Any]:
    """The mapping of an answer. Raises ApartError where it holds none."""
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise ApartError(describe_end(status, [], oom_kills))
    made = answer.get("made")
    if not isinstance(made, dict):
        raise ApartError(shorten(str(answer.get("failed"))))
    return made


# ------------------------------------------------------------------ in that process


def answer() -> None:
    """The process's main: reads the request from stdin, answers on stdout, and ends."""
    told = os.dup(1)
    os.dup2(2, 1)  # what libraries print would mix with the answer
    request = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_asker, name="end-with-asker", daemon=True).start()
    with suppress(OSError):  # not Linux
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE, encoding="ascii")
    module, _, name = sys.argv[2].partition(":")
    given: dict[str, Any]
    try:
        settings = load_settings(request["flags"], env={})
        set_up_logging(request["stage"], str(settings.worker_index), settings.log_level)
        made = getattr(import_module(module), name)(settings, **request["facts"])
        given = {"made": made} if isinstance(made, dict) else {"failed": f"{name} returns no mapping"}
    except Exception as error:  # the asker says what it does without an answer
        logger.debug("%s fails", sys.argv[2], exc_info=error)
        given = {"failed": f"{type(error).__name__}: {first_line(error)}"}
    os.write(told, json.dumps(given).encode())
    logging.shutdown()
    os._exit(0)  # an interpreter with torch in it takes 0.7 s of processor time to end


def _end_with_asker() -> None:
    """Ends this process when its standard input does: the asker has ended, however that came about."""
    while os.read(0, 4096):
        pass
    os._exit(1)
