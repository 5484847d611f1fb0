"""Decides whether a stage that ended is started again. It takes times and keeps no clock.

The rule: a start counts as good when the process worked for `proven` seconds after it said that it works
(`protocol.process.ready`). The time before that does not count. So a model that runs out of memory after 40 s
of loading is given up like one that fails at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field

# A stage ends with this status when its configuration cannot work (a bad flag, missing weights):
# starting it again would only say the same thing again.
EXIT_CONFIGURATION = 2


@dataclass(frozen=True, slots=True)
class Restart:
    """Start the stage again after `delay` seconds."""

    delay: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Do not start the stage again."""

    #: Completes the sentence "<stage> …".
    reason: str
    #: Whether the configuration is to blame. Then every other start would end in the same way.
    misconfigured: bool = False


@dataclass(slots=True)
class RestartPolicy:
    """Back-off between restarts of one stage.

    A start fails if the process did not work for `proven` seconds. After the n-th failed start in a row the
    next start waits `base * 2**(n-1)` seconds. After `limit` failed starts the stage is given up. A good
    start sets the count back to 0.
    """

    limit: int = 3
    proven: float = 30.0
    base: float = 0.5
    failures: int = field(default=0, init=False)
    #: How many of the failed starts in a row ended before the process said that it works.
    _never_ready: int = field(default=0, init=False)

    def ended(self, worked_for: float | None, status: int, how: str) -> Restart | GiveUp:
        """Decide about a process that ended.

        Args:
            worked_for: seconds since it said that it works. None: it never said so.
            status: its exit status, −n for signal n.
            how: the end in words, for the reason.
        """
        if status == EXIT_CONFIGURATION:
            return GiveUp(f"cannot work with this configuration ({how})", misconfigured=True)
        if worked_for is not None and worked_for >= self.proven:
            self.failures = self._never_ready = 0
            return Restart(self.base)
        self.failures += 1
        self._never_ready += worked_for is None
        if self.failures < self.limit:
            return Restart(self.base * 2 ** (self.failures - 1))
        if self._never_ready == self.failures:
            when = "before it was ready"
        else:
            when = f"before it had worked for {self.proven:g} s"
        return GiveUp(f"ended {self.failures} times in a row {when}, last with {how}")
