"""Decides which worker gets which job: credit, stickiness, giving jobs again. No sockets, no sleeps.

The caller passes the time in: seconds as a float that never run backwards.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

P = TypeVar("P")

#: Sessions without a job whose worker a sticky dispatcher remembers.
MAX_HOMES = 4096
#: Seconds of silence after which a worker is given no new jobs.
QUIET_AFTER = 1.0
#: Seconds of silence after which another worker gets a silent one's jobs as well: three heartbeats. The gap
#: on the screen is this long, and the time of the work itself.
SILENT_AFTER = 0.3
#: Both times for a worker that has said that it rests, and was given no job since.
RESTING_SILENT_AFTER = 4.0


@dataclass(slots=True)
class TrackedJob(Generic[P]):
    """One unit of work, and how far it has come. Numbers rise in the order in which jobs are added."""

    number: int
    session: str
    epoch: int
    payload: P
    queued_at: float
    sent_at: float = 0.0
    times_sent: int = 0


@dataclass(slots=True)
class Peer(Generic[P]):
    """A worker as the dispatcher sees it."""

    key: bytes
    stage: str
    name: str
    credit: int
    last_seen: float
    #: It has said that it rests, and was given no job since.
    rests: bool = False
    #: The dispatcher's turn at which it got a job last.
    last_turn: int = 0
    #: Its jobs by number. A cancelled one is None and uses credit until the worker acknowledges it.
    held: dict[int, TrackedJob[P] | None] = field(default_factory=dict)
    held_since: dict[int, float] = field(default_factory=dict)

    @property
    def spare_credit(self) -> int:
        """How many more jobs it may hold."""
        return self.credit - len(self.held)


class Dispatcher(Generic[P]):
    """Takes jobs and assigns them to workers. A job stays until it is acknowledged, cancelled or pushed out.

    Args:
        sticky: a session's jobs go to one worker, in order, for as long as that worker lives. Otherwise each
            job goes to the worker with the most spare credit, and the jobs of a worker that falls silent go
            to a second one as well. The first acknowledgement of a job counts.
        dead_after: seconds of silence after which the caller gives a worker up.
        max_pending_per_session: jobs of a session that may wait. One more pushes the oldest out.
        first_job: number of the first job.
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
        #: Jobs that a second worker got as well.
        self.handed_over = 0
        self._awake_at = float("-inf")
        self._next_job = first_job
        self._turns = 0
        self._peers: dict[bytes, Peer[P]] = {}
        self._queues: dict[str, deque[TrackedJob[P]]] = {}
        self._homes: dict[str, bytes] = {}

    # ------------------------------------------------------------------ workers

    def add_worker(self, key: bytes, stage: str, name: str, credit: int, now: float) -> bool:
        """A worker offers itself. Returns True if it was unknown. A known one renews its credit."""
        peer = self._peers.get(key)
        if peer is None:
            self._peers[key] = Peer(key, stage, name, credit, now)
            return True
        peer.credit, peer.last_seen = credit, now
        return False

    def note_alive(self, key: bytes, now: float, *, rests: bool = False) -> bool:
        """The worker gave a sign of life, and perhaps said that it rests. Returns False if it is unknown."""
        peer = self._peers.get(key)
        if peer is None:
            return False
        peer.last_seen = max(peer.last_seen, now)
        # One that was given a job since it said so is awake, or will be.
        peer.rests = rests and not peer.held
        return True

    def check_held(self, key: bytes, jobs: tuple[int, ...], now: float) -> bool:
        """The worker says which jobs it holds.

        A job that is missing was lost with a connection, or its acknowledgement was. A job that was sent
        lately may still be on its way, so only jobs older than `dead_after` count.

        Returns:
            False if a job that was given to it long ago is missing.
        """
        peer = self._peers[key]
        missing = [
            job for job, since in peer.held_since.items() if now - since > self.dead_after and job not in jobs
        ]
        for job in missing:
            if peer.held[job] is None:  # cancelled, so nobody misses it and its credit is free again
                del peer.held[job], peer.held_since[job]
        return not any(job in peer.held for job in missing)

    def sessions_of(self, key: bytes) -> list[str]:
        """The sessions whose home a worker of a sticky hop is."""
        return [session for session, home in self._homes.items() if home == key]

    def remove_worker(self, key: bytes) -> int:
        """Forget a worker. Its jobs go back to the front of the queues. Returns how many there were."""
        peer = self._peers.pop(key, None)
        if peer is None:
            return 0
        # its sessions find a new worker, which starts their state anew
        for session in self.sessions_of(key):
            del self._homes[session]
        back = [job for job in peer.held.values() if job is not None and not self._holders(job.number)]
        # a session's jobs have to be in the order in which they were added, whoever had them
        for session in {job.session for job in back}:
            jobs = [*self._queues.get(session, ()), *(job for job in back if job.session == session)]
            self._queues[session] = deque(sorted(jobs, key=lambda job: job.number))
        return len(back)

    def silent_workers(self, now: float, longer_than: float) -> list[Peer[P]]:
        """The workers that have given no sign of life for `longer_than` seconds, or longer if they rest."""
        return [
            peer
            for peer in self._peers.values()
            if now - peer.last_seen > self._patience_with(peer, longer_than)
        ]

    def _patience_with(self, peer: Peer[P], seconds: float) -> float:
        """How long the worker may be silent, where one that does not rest may be so for `seconds`."""
        return max(seconds, min(RESTING_SILENT_AFTER, self.dead_after)) if peer.rests else seconds

    def forgive_silence(self, now: float) -> None:
        """Count every worker as just seen, because the server itself was away and read no messages."""
        for peer in self._peers.values():
            peer.last_seen = now

    def note_pause(self, now: float) -> None:
        """The server read no messages for a while, so nobody's jobs are handed over because of that time."""
        self._awake_at = now

    def find_worker(self, key: bytes) -> Peer[P] | None:
        return self._peers.get(key)

    @property
    def peers(self) -> list[Peer[P]]:
        return list(self._peers.values())

    # ------------------------------------------------------------------ jobs

    def add_job(self, session: str, epoch: int, payload: P, now: float) -> list[P]:
        """Queue a job. Returns the payloads that the session's bound pushed out, oldest first."""
        queue = self._queues.setdefault(session, deque())
        queue.append(TrackedJob(self._next_job, session, epoch, payload, queued_at=now))
        self._next_job += 1
        pushed_out = []
        while self.max_pending is not None and len(queue) > self.max_pending:
            pushed_out.append(queue.popleft().payload)
        return pushed_out

    def cancel(self, session: str, epoch: int) -> int:
        """Forget a session's jobs up to and including `epoch`.

        Waiting jobs go. Jobs that a worker holds are not given again if that worker is lost.
        """
        queue = self._queues.pop(session, deque())
        kept = deque(job for job in queue if job.epoch > epoch)
        if kept:
            self._queues[session] = kept
        in_hand = set()
        for peer in self._peers.values():
            for number, job in peer.held.items():
                if job is not None and job.session == session and job.epoch <= epoch:
                    peer.held[number] = None  # the worker still has it, so it goes on using credit
                    in_hand.add(number)
        # the session may move to another worker once nothing of it is left at this one
        if not kept and not any(job is not None and job.session == session for job in self._held()):
            self._homes.pop(session, None)
        return len(queue) - len(kept) + len(in_hand)

    def _holders(self, number: int) -> list[Peer[P]]:
        """The workers that hold a job which somebody still waits for."""
        return [peer for peer in self._peers.values() if peer.held.get(number) is not None]

    def _held(self) -> Iterator[TrackedJob[P] | None]:
        return (job for peer in self._peers.values() for job in peer.held.values())

    def ack(self, key: bytes, number: int) -> TrackedJob[P] | None:
        """The worker is done with a job.

        Only a present holder's word counts. On a sticky hop an earlier holder's state is not the session's
        any more. Elsewhere the stage downstream recognises a second result. Of two holders the first counts.

        Returns:
            The job, or None if this worker does not hold it or it was cancelled.
        """
        peer = self._peers.get(key)
        if peer is None:
            return None
        peer.held_since.pop(number, None)
        job = peer.held.pop(number, None)
        if job is not None:
            for other in self._holders(number):
                other.held[number] = None  # it still has the job, so it goes on using credit
        return job

    def assign(self, now: float) -> tuple[Peer[P], TrackedJob[P]] | None:
        """Give the next job to a worker with credit. Returns both, or None if no job can be given."""
        handed_over = None if self.sticky else self._hand_over(now)
        if handed_over is not None:
            return handed_over
        # the session whose first job has waited longest comes first
        for session in sorted(self._queues, key=lambda s: self._queues[s][0].number):
            peer = self._worker_for(session, now)
            if peer is None:
                if not self.sticky:
                    return None  # no worker has credit, whatever the session
                continue
            queue = self._queues[session]
            job = queue.popleft()
            if not queue:
                del self._queues[session]
            self._give(peer, job, now)
            return peer, job
        return None

    def _give(self, peer: Peer[P], job: TrackedJob[P], now: float) -> None:
        job.sent_at, job.times_sent = now, job.times_sent + 1
        peer.held[job.number] = job
        peer.held_since[job.number] = now
        peer.rests = False
        self._turns += 1
        peer.last_turn = self._turns

    def _hand_over(self, now: float) -> tuple[Peer[P], TrackedJob[P]] | None:
        """Give the oldest job that only silent workers hold to one that is heard. None if there is none."""
        silent = [peer for peer in self._peers.values() if self._is_silent(peer, now)]
        if not silent:
            return None
        keys = {peer.key for peer in silent}
        stuck = [
            job
            for peer in silent
            for number, job in peer.held.items()
            if job is not None
            and now - peer.held_since[number] > SILENT_AFTER
            and all(holder.key in keys for holder in self._holders(number))
        ]
        if not stuck:
            return None
        job = min(stuck, key=lambda job: job.number)
        # One that holds it, or did before the job was cancelled, is silent too.
        ready = [p for p in self._ready(now) if p.key not in keys and job.number not in p.held]
        peer = max(ready, key=lambda peer: (peer.spare_credit, -peer.last_turn), default=None)
        if peer is None:
            return None
        self._give(peer, job, now)
        self.handed_over += 1
        return peer, job

    def _is_silent(self, peer: Peer[P], now: float) -> bool:
        return now - max(peer.last_seen, self._awake_at) > self._patience_with(peer, SILENT_AFTER)

    def _ready(self, now: float) -> list[Peer[P]]:
        return [peer for peer in self._peers.values() if self._may_take(peer, now)]

    def _worker_for(self, session: str, now: float) -> Peer[P] | None:
        if self.sticky:
            peer = self._home_worker(session, now)
            return peer if peer is not None and self._may_take(peer, now) else None
        # A worker that is silent for a moment may be stopped. It comes after all others, whatever its credit.
        return max(
            self._ready(now),
            key=lambda peer: (not self._is_silent(peer, now), peer.spare_credit, -peer.last_turn),
            default=None,
        )

    def _may_take(self, peer: Peer[P], now: float) -> bool:
        return peer.spare_credit > 0 and not self._is_quiet(peer, now)

    def _is_quiet(self, peer: Peer[P], now: float) -> bool:
        return now - peer.last_seen > self._patience_with(peer, min(QUIET_AFTER, self.dead_after))

    def _home_worker(self, session: str, now: float) -> Peer[P] | None:
        if session not in self._homes:
            ready = [peer for peer in self._peers.values() if not self._is_quiet(peer, now)]
            if not ready:
                return None
            homes = list(self._homes.values())
            # the worker with the fewest sessions, of those the one with the fewest jobs
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
        return len({job.number for job in self._held() if job is not None})

    def pending_of(self, session: str) -> int:
        return len(self._queues.get(session, ()))
