"""Who gets which job: credit, stickiness, re-dispatch. No sockets, no clock of its own, no sleeps.

Time is a float in seconds that the caller passes in and that never runs backwards.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

P = TypeVar("P")

MAX_HOMES = 4096  # sessions remembered by a sticky dispatcher although nothing of theirs is queued
QUIET_AFTER = 1.0  # seconds of silence (five heartbeats) after which a worker is given no new work


@dataclass(slots=True)
class TrackedJob(Generic[P]):
    """One unit of work and where it stands. TrackedJob numbers rise in the order of submission."""

    number: int
    session: str
    epoch: int
    payload: P
    submitted: float
    sent: float = 0.0
    sends: int = 0


@dataclass(slots=True)
class Peer(Generic[P]):
    """A worker as the dispatcher sees it. `held` also counts cancelled jobs (None): they use its credit."""

    key: bytes
    stage: str
    name: str
    credit: int
    last_seen: float
    last_given: int = 0
    held: dict[int, TrackedJob[P] | None] = field(default_factory=dict)
    held_since: dict[int, float] = field(default_factory=dict)

    @property
    def spare_credit(self) -> int:
        return self.credit - len(self.held)


class Dispatcher(Generic[P]):
    """Jobs in, assignments out; every job is acknowledged, cancelled, pushed out, or still here.

    `sticky`: a session's jobs go to one worker, in order, for as long as that worker lives. Otherwise each
    job goes to the worker with the most spare credit. `max_pending_per_session` bounds what waits: a
    session's oldest waiting job is pushed out when another is submitted beyond it.
    """

    def __init__(
        self,
        *,
        sticky: bool,
        dead_after: float,
        max_pending_per_session: int | None = None,
        first_job: int = 1,
    ) -> None:
        if max_pending_per_session is not None and max_pending_per_session < 1:
            raise ValueError("max_pending_per_session must be at least 1")
        self.sticky = sticky
        self.dead_after = dead_after
        self.max_pending = max_pending_per_session
        self._next_job = first_job
        self._given = 0
        self._peers: dict[bytes, Peer[P]] = {}
        self._queues: dict[str, deque[TrackedJob[P]]] = {}
        self._homes: dict[str, bytes] = {}

    # ------------------------------------------------------------------ workers

    def join(self, key: bytes, stage: str, name: str, credit: int, now: float) -> bool:
        """A worker offers itself; True if it was unknown. From a known one it only renews the credit."""
        peer = self._peers.get(key)
        if peer is None:
            self._peers[key] = Peer(key, stage, name, credit, now)
            return True
        peer.credit, peer.last_seen = credit, now
        return False

    def seen(self, key: bytes, now: float) -> bool:
        """A sign of life; False if the worker is unknown."""
        peer = self._peers.get(key)
        if peer is None:
            return False
        peer.last_seen = max(peer.last_seen, now)
        return True

    def holds(self, key: bytes, jobs: tuple[int, ...], now: float) -> bool:
        """The worker says which jobs it holds; False if one given to it long ago is not among them.

        Such a job, or the acknowledgement of it, was lost with a connection. What was sent recently may
        still be on its way, so only jobs older than `dead_after` count.
        """
        peer = self._peers[key]
        missing = [
            job for job, since in peer.held_since.items() if now - since > self.dead_after and job not in jobs
        ]
        for job in missing:
            if peer.held[job] is None:
                del peer.held[job], peer.held_since[job]
        return not any(job in peer.held for job in missing)

    def leave(self, key: bytes) -> int:
        """Forget a worker; what it held goes back in front of the queues. Returns how many jobs that is."""
        peer = self._peers.pop(key, None)
        if peer is None:
            return 0
        for session in [s for s, home in self._homes.items() if home == key]:
            del self._homes[session]
        back = [job for job in peer.held.values() if job is not None]
        for session in {job.session for job in back}:
            jobs = [*self._queues.get(session, ()), *(job for job in back if job.session == session)]
            self._queues[session] = deque(sorted(jobs, key=lambda job: job.number))
        return len(back)

    def silent(self, now: float, longer_than: float) -> list[Peer[P]]:
        """The workers not heard of for `longer_than` seconds."""
        return [peer for peer in self._peers.values() if now - peer.last_seen > longer_than]

    def forgive_silence(self, now: float) -> None:
        """Take every worker as just seen: the server itself was away and could not have heard them."""
        for peer in self._peers.values():
            peer.last_seen = now

    def peer(self, key: bytes) -> Peer[P] | None:
        return self._peers.get(key)

    @property
    def peers(self) -> list[Peer[P]]:
        return list(self._peers.values())

    # ------------------------------------------------------------------ jobs

    def add_job(self, session: str, epoch: int, payload: P, now: float) -> list[P]:
        """Queue a job; returns what the session's bound pushed out, oldest first."""
        queue = self._queues.setdefault(session, deque())
        queue.append(TrackedJob(self._next_job, session, epoch, payload, now))
        self._next_job += 1
        pushed_out = []
        while self.max_pending is not None and len(queue) > self.max_pending:
            pushed_out.append(queue.popleft().payload)
        return pushed_out

    def cancel(self, session: str, epoch: int) -> int:
        """Forget a session's jobs up to `epoch`: waiting ones, and those in hand will not be given again."""
        queue = self._queues.pop(session, deque())
        kept = deque(job for job in queue if job.epoch > epoch)
        cancelled = len(queue) - len(kept)
        if kept:
            self._queues[session] = kept
        for peer in self._peers.values():
            for number, job in peer.held.items():
                if job is not None and job.session == session and job.epoch <= epoch:
                    peer.held[number] = None
                    cancelled += 1
        if not kept and not any(job is not None and job.session == session for job in self._held()):
            self._homes.pop(session, None)
        return cancelled

    def _held(self) -> Iterator[TrackedJob[P] | None]:
        return (job for peer in self._peers.values() for job in peer.held.values())

    def ack(self, key: bytes, number: int) -> TrackedJob[P] | None:
        """The worker is done with a job. None if it was not (or no longer) this worker's, or was cancelled.

        Only the present holder's word counts: on a sticky hop an earlier holder's state is not the session's
        any more, and elsewhere a second result is recognised downstream.
        """
        peer = self._peers.get(key)
        if peer is None:
            return None
        peer.held_since.pop(number, None)
        return peer.held.pop(number, None)

    def assign(self, now: float) -> tuple[Peer[P], TrackedJob[P]] | None:
        """The next job for a worker with credit, now held by it; None if nothing can be given."""
        for session in sorted(self._queues, key=lambda s: self._queues[s][0].number):
            peer = self._worker_for(session, now)
            if peer is None:
                if not self.sticky:
                    return None
                continue
            queue = self._queues[session]
            job = queue.popleft()
            if not queue:
                del self._queues[session]
            job.sent, job.sends = now, job.sends + 1
            peer.held[job.number] = job
            peer.held_since[job.number] = now
            self._given += 1
            peer.last_given = self._given
            return peer, job
        return None

    def _worker_for(self, session: str, now: float) -> Peer[P] | None:
        if self.sticky:
            peer = self._home_worker(session, now)
            return peer if peer is not None and self._may_take(peer, now) else None
        ready = [peer for peer in self._peers.values() if self._may_take(peer, now)]
        return max(ready, key=lambda peer: (peer.spare_credit, -peer.last_given), default=None)

    def _may_take(self, peer: Peer[P], now: float) -> bool:
        return peer.spare_credit > 0 and now - peer.last_seen <= min(QUIET_AFTER, self.dead_after)

    def _home_worker(self, session: str, now: float) -> Peer[P] | None:
        if session not in self._homes:
            ready = [peer for peer in self._peers.values() if now - peer.last_seen <= QUIET_AFTER]
            if not ready:
                return None
            homes = list(self._homes.values())
            chosen = min(ready, key=lambda peer: (homes.count(peer.key), len(peer.held)))
            self._homes[session] = chosen.key
            self._forget_idle_homes()
        return self._peers[self._homes[session]]

    def _forget_idle_homes(self) -> None:
        if len(self._homes) <= MAX_HOMES:
            return
        busy = {job.session for job in self._held() if job is not None}
        for session in list(self._homes)[: len(self._homes) - MAX_HOMES]:
            if session not in busy and session not in self._queues:
                del self._homes[session]

    # ------------------------------------------------------------------ figures

    @property
    def pending(self) -> int:
        return sum(map(len, self._queues.values()))

    @property
    def in_flight(self) -> int:
        return sum(job is not None for job in self._held())

    def pending_of(self, session: str) -> int:
        return len(self._queues.get(session, ()))
