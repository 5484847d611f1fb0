"""The tasks of a GPU worker's compute thread while nobody speaks, and how long it waits for each."""

from __future__ import annotations

from enum import Enum

#: Seconds without a clip before caches are warmed: between a session's clips that would delay them.
WARM_CACHES_AFTER = 3.0

#: Seconds without a clip before the lowest rate is timed, by which the sessions are counted.
TIME_LOWEST_AFTER = 4.0

#: The same while a session rests: its next word would wait for the clip that is on trial.
TIME_LOWEST_AT_REST = 30.0

#: Seconds without a clip before a GPU's lower rates are made ready, so that the rate can fall to them.
READY_TO_FALL_AFTER = 5.0

#: Seconds without a clip before a rate below the usual ones is made ready, on a slow machine. Converting its
#: network takes seconds.
READY_FOR_NEED_AFTER = 90.0

#: Seconds without a clip after which a rate that fell is tried again, for the first and the second time. The
#: other stages may have been starting during the trial before.
RETRY_RATE_AFTER = (10.0, 60.0)

#: Seconds from the second time to the third. Each wait after that is twice as long, so that a machine which
#: holds no more spends little on it.
RETRY_RATE_AGAIN = 600.0


class PauseTask(Enum):
    """Tasks of the compute thread while nobody speaks, and the keys of their outputs."""

    WARM_CACHES = "warming the caches"
    TIME_LOWEST = "timing the lowest frame rate"
    RETRY_RATE = "trying the frame rate again"
    FAVOUR = "loading the network for clips of the new length"
    READY_TO_FALL = "preparing a lower frame rate"
    READY_FOR_NEED = "preparing a rate below the usual ones"
