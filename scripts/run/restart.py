"""Decides whether a stage that ended is started again. It takes times and keeps no clock."""

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
    """Do not start the stage again. `reason` completes the sentence "<stage> …"."""

    reason: str


@dataclass(slots=True)
class RestartPolicy:
    """Back-off between restarts of one stage.

    A run shorter than `quick` seconds is a quick failure. The n-th quick failure in a row waits
    `base * 2**(n-1)` seconds, and the `limit`-th ends the attempts. A run that lasted longer starts
    the count anew.
    """

    limit: int = 3
    quick: float = 30.0
    base: float = 0.5
    failures: int = field(default=0, init=False)

    def ended(self, ran_for: float, status: int) -> Restart | GiveUp:
        """Decide about a stage that ran for `ran_for` seconds and ended with `status` (−n: by signal n)."""
        how = describe_status(status)
        if status == EXIT_CONFIGURATION:
            return GiveUp(f"ended with {how}: it cannot work with this configuration")
        if ran_for >= self.quick:
            self.failures = 0
            return Restart(self.base)
        self.failures += 1
        if self.failures >= self.limit:
            return GiveUp(
                f"ended {self.failures} times within {self.quick:g} s of its start, last with {how}"
            )
        return Restart(self.base * 2 ** (self.failures - 1))


def describe_status(status: int) -> str:
    """Say a process's exit status in words: `status 1` or `signal 9 (SIGKILL)`."""
    if status >= 0:
        return f"status {status}"
    import signal

    try:
        return f"signal {-status} ({signal.Signals(-status).name})"
    except ValueError:
        return f"signal {-status}"
