"""How often the loop of a worker stage goes round: seldom while there has been no work for a while.

Nearly all that a stage costs while nobody is there are its wake-ups. Each finds cold caches and takes 0.3 ms,
and on some virtual machines 2 to 6 ms.
"""

from __future__ import annotations

import time
from collections.abc import Callable

#: Longest wait of a loop that has work, in seconds, and of one that rests.
WORKING_WAIT, RESTING_WAIT = 0.1, 1.6
#: The last stage waits this part of the others' time. Its heartbeat ends the wait of the stage before it just
#: before that would end by itself, and so on up to the gateway. So each process wakes once for both.
LAST_STAGE_PART = 0.9
#: Seconds without work after which a loop rests.
REST_AFTER = 2.0
#: Seconds between two Status without a change.
WORKING_STATUS_EVERY, RESTING_STATUS_EVERY = 0.5, 2.0
#: Waits of a loop that rests in the shortest silence after which a worker is given up.
WAITS_BEFORE_DEAD = 3


class LoopPace:
    """Tells a stage's loop how long it may wait.

    Args:
        last_stage: no stage takes the output of this one.
        dead_after: seconds of silence after which a worker is given up.
        clock: seconds that never run backwards.
    """

    def __init__(
        self, *, last_stage: bool, dead_after: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        part = LAST_STAGE_PART if last_stage else 1.0
        self._working_wait = part * WORKING_WAIT
        self._resting_wait = part * min(RESTING_WAIT, dead_after / WAITS_BEFORE_DEAD)
        self._resting_status_every = min(RESTING_STATUS_EVERY, 0.4 * dead_after)
        self._clock = clock
        self._worked_at = clock()

    def note_work(self) -> None:
        """There is work, or was just now."""
        self._worked_at = self._clock()

    @property
    def resting(self) -> bool:
        """Whether there has been no work for a while."""
        return self._clock() - self._worked_at > REST_AFTER

    @property
    def wait_ms(self) -> int:
        """The longest wait, in milliseconds."""
        return round(1000 * (self._resting_wait if self.resting else self._working_wait))

    @property
    def status_every(self) -> float:
        """Seconds between two Status without a change. One that rests sends one in every second round."""
        return self._resting_status_every if self.resting else WORKING_STATUS_EVERY
