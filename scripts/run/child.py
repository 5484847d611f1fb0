"""One stage as a child process that cannot outlive the supervisor."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress

from protocol.process.cause import count_oom_kills
from protocol.process.ready import ALIVE, READY_FD

_PR_SET_PDEATHSIG = 1
_MAX_LINE = 64 * 1024


def die_with_parent(parent: int) -> Callable[[], None] | None:
    """A hook for the forked child: be killed by the kernel when `parent` ends, however it ends (Linux).

    The signal is SIGKILL because nobody would be left to follow up on a stage that ignores a gentler one.
    Elsewhere than on Linux there is no such call and a killed supervisor leaves its stages running.
    """
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl  # looked up before the fork, where that is safe

    def hook() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # the parent ended between fork and prctl
            os._exit(1)

    return hook


class Child:
    """A started stage: its process group, its output as lines, and the moment when it said that it works.

    Must be made in the supervisor's main thread: PR_SET_PDEATHSIG follows the thread that forked.
    """

    def __init__(self, name: str, command: Sequence[str], started_at: float) -> None:
        self.name = name
        self.started_at = started_at
        #: When the stage said that it is ready. None before that.
        self.ready_at: float | None = None
        #: When the stage gave its last sign of life. None before the first.
        self.alive_at: float | None = None
        #: The kernel's count when it started.
        self.oom_kills_before = count_oom_kills()
        self.ended = False  # its output did: nothing more will come
        self._partial = b""
        self._ready, told = os.pipe()
        try:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                bufsize=0,
                pass_fds=(told,),
                env={**os.environ, READY_FD: str(told)},
                start_new_session=True,  # its own group: Ctrl-C reaches the supervisor only
                preexec_fn=die_with_parent(os.getpid()),  # noqa: PLW1509 - the supervisor has one thread
            )
        except BaseException:
            os.close(self._ready)
            raise
        finally:
            os.close(told)
        os.set_blocking(self._ready, False)
        assert self._process.stdout is not None
        self.output = self._process.stdout
        os.set_blocking(self.output.fileno(), False)

    @property
    def pid(self) -> int:
        """The process id, which also names the group."""
        return self._process.pid

    def status(self) -> int | None:
        """Exit status, negative for a signal, None while the process lives.

        Processes that the ended stage left in its group are killed before the stage is reaped. Until it is
        reaped, no other process can get its id, which is also the group's.
        """
        if self._process.returncode is None:
            if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                return None
            self.signal_group(signal.SIGKILL)
        return self._process.poll()

    def note_signs(self, now: float) -> None:
        """Read the stage's signs: that it is ready, and that it lives. They count as of `now`."""
        with suppress(BlockingIOError):
            told = os.read(self._ready, 4096)  # empty when the stage has closed the pipe
            if told and self.ready_at is None:
                self.ready_at = now
            if ALIVE in told:
                self.alive_at = now

    def forgive_silence(self, now: float) -> None:
        """Count the stage as just heard. Nobody has read its signs for a while."""
        if self.alive_at is not None:
            self.alive_at = now

    def oom_kills(self) -> int | None:
        """Processes that the kernel has killed for want of memory since this one started. None: not known."""
        now = count_oom_kills()
        return None if now is None or self.oom_kills_before is None else now - self.oom_kills_before

    def read_lines(self, *, last: bool = False) -> list[str]:
        """Whole lines that have arrived, and with `last` the unfinished one too."""
        data = bytearray(self._partial)
        while True:
            try:
                chunk = os.read(self.output.fileno(), 65536)
            except BlockingIOError:
                break
            if not chunk:
                self.ended = True
                break
            data += chunk
            if len(data) > 16 * _MAX_LINE:  # a flood: let the others have their turn
                break
        *lines, rest = bytes(data).split(b"\n")
        if rest and (last or len(rest) > _MAX_LINE):
            lines, rest = [*lines, rest], b""
        self._partial = rest
        return [line.rstrip(b"\r").decode("utf-8", "replace") for line in lines]

    def signal_group(self, number: signal.Signals) -> None:
        """Signal the stage and everything it started. A group that is gone is fine."""
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):
            pass

    def close(self) -> None:
        """Close the pipes."""
        self.output.close()
        os.close(self._ready)
