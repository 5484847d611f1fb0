"""The jobs that a worker has in hand, by the clip that they ask for."""

from __future__ import annotations

from collections.abc import Callable

from protocol.hop.client import Job
from protocol.wire.messages import ClipKey, Work, clip_key


class JobLedger:
    """Jobs taken and not yet acknowledged, from the first to the last word about a clip.

    A clip can have several jobs: an upstream that lost sight of this worker sends the clip again, and another
    upstream may send it too. It is worked on once, and all its jobs are acknowledged together.

    Only the loop's thread may change the ledger. Any thread may ask whether a clip is `in` it.
    """

    def __init__(self, acknowledge: Callable[[Job], None]) -> None:
        """`acknowledge`: tells the upstream that a job is done, as `HopClient.ack` does."""
        self._acknowledge = acknowledge
        self._jobs: dict[ClipKey, list[Job]] = {}

    def __contains__(self, key: ClipKey) -> bool:
        return key in self._jobs

    def enter(self, job: Job, work: Work) -> bool:
        """Write down that `job` asks for the clip of `work`.

        Returns:
            True if the clip is new here and is to be worked on, False if that is under way.
        """
        jobs = self._jobs.setdefault(clip_key(work), [])
        jobs.append(job)
        return len(jobs) == 1

    def received_at(self, key: ClipKey) -> float:
        """When the clip's first job arrived, on the hop client's clock. Raises KeyError without one."""
        return self._jobs[key][0].received_at

    def settle(self, key: ClipKey) -> int:
        """Acknowledge the clip's jobs, and forget them. Returns how many there were."""
        jobs = self._jobs.pop(key, [])
        for job in jobs:
            self._acknowledge(job)
        return len(jobs)

    def settle_session(self, session: str, epoch: int) -> None:
        """Acknowledge every job of the session up to and including `epoch`."""
        for key in [key for key in self._jobs if key[0] == session and key[1] <= epoch]:
            self.settle(key)

    def void(self, upstream: int) -> list[ClipKey]:
        """Forget the jobs of an upstream that takes them back, without a word to it.

        Returns:
            The clips that nobody asks for any more.
        """
        unwanted = []
        for key, jobs in list(self._jobs.items()):
            self._jobs[key] = [job for job in jobs if job.origin.upstream != upstream]
            if not self._jobs[key]:
                del self._jobs[key]
                unwanted.append(key)
        return unwanted
