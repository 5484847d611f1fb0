from __future__ import annotations

from collections import Counter

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from protocol.hop.dispatch import MAX_HOMES, QUIET_AFTER, RESTING_SILENT_AFTER, SILENT_AFTER, Dispatcher

SESSIONS = ["ann", "ben", "cleo"]


class DispatcherMachine(RuleBasedStateMachine):
    """Random joins, deaths, acknowledgements and closings against a plain account of every job."""

    workers = Bundle("workers")
    silent: set[bytes]

    @initialize(sticky=st.booleans(), bound=st.none() | st.integers(1, 4))
    def start(self, sticky: bool, bound: int | None) -> None:
        self.jobs = Dispatcher[int](sticky=sticky, dead_after=5.0, max_pending_per_session=bound)
        self.sticky, self.bound = sticky, bound
        self.now = 0.0
        self.submitted = 0
        self.waiting: dict[int, str] = {}  # payload → session, everything that is owed a result
        self.done: set[int] = set()
        self.given: dict[bytes, dict[int, int]] = {}  # worker → job number → payload
        self.times_given: Counter[int] = Counter()
        self.times_returned: Counter[int] = Counter()
        self.next_worker = 0
        self.silent = set()
        self.heard: dict[bytes, float] = {}

    @rule(target=workers, credit=st.integers(1, 3))
    def add_worker(self, credit: int) -> bytes:
        key = b"w%d" % self.next_worker
        self.next_worker += 1
        assert self.jobs.add_worker(key, "stage", key.decode(), credit, self.now)
        assert not self.jobs.add_worker(key, "stage", key.decode(), credit, self.now)
        self.given[key] = {}
        self.heard[key] = self.now
        return key

    @rule(worker=consumes(workers))
    def die(self, worker: bytes) -> None:
        self.silent.discard(worker)
        held = self.given.pop(worker).values()
        lost = [p for p in held if p in self.waiting and not self._in_hand(p)]
        assert self.jobs.remove_worker(worker) == len(lost)
        self.times_returned.update(lost)
        assert not self.jobs.note_alive(worker, self.now)
        assert self.jobs.remove_worker(worker) == 0

    @rule(session=st.sampled_from(SESSIONS), n=st.integers(1, 5))
    def add_jobs(self, session: str, n: int) -> None:
        for _ in range(n):
            self.submitted += 1
            self.waiting[self.submitted] = session
            for payload in self.jobs.add_job(session, 0, self.submitted, self.now):
                assert self.waiting.pop(payload) == session
                assert self.times_given[payload] == self.times_returned[payload]  # it was in nobody's hands

    @rule(session=st.sampled_from(SESSIONS))
    def close(self, session: str) -> None:
        gone = [p for p, owner in self.waiting.items() if owner == session]
        assert self.jobs.cancel(session, 0) == len(gone)
        for payload in gone:
            del self.waiting[payload]

    @rule(worker=workers, pick=st.randoms(use_true_random=False))
    def ack(self, worker: bytes, pick: object) -> None:
        held = self.given[worker]
        if not held:
            assert self.jobs.ack(worker, 10**9) is None
            return
        number = pick.choice(sorted(held))  # type: ignore[attr-defined]
        payload = held.pop(number)
        job = self.jobs.ack(worker, number)
        if payload in self.waiting:
            assert job is not None and job.payload == payload
            del self.waiting[payload]
            assert payload not in self.done
            self.done.add(payload)
        else:
            assert job is None
        assert self.jobs.ack(worker, number) is None

    @rule(worker=workers, other=workers)
    def ack_of_anothers_job_is_ignored(self, worker: bytes, other: bytes) -> None:
        if worker != other:
            for number in self.given[other]:
                if number not in self.given[worker]:
                    assert self.jobs.ack(worker, number) is None

    @rule()
    def give(self) -> None:
        while (assigned := self.jobs.assign(self.now)) is not None:
            peer, job = assigned
            if self._in_hand(job.payload):
                assert not self.sticky and not self._is_silent(peer.key)
                assert all(self._is_silent(key) for key, held in self.given.items() if job.number in held)
                self.times_returned[job.payload] += 1
            assert self.waiting[job.payload] == job.session
            assert job.number not in self.given[peer.key]
            self.given[peer.key][job.number] = job.payload
            self.times_given[job.payload] += 1
            # nothing of this session that was submitted earlier still waits behind it
            assert not any(
                p < job.payload and owner == job.session and not self._in_hand(p)
                for p, owner in self.waiting.items()
            )
        spare = any(
            len(held) < self.jobs.find_worker(key).credit  # type: ignore[union-attr]
            for key, held in self.given.items()
            if key not in self.silent
        )
        if spare and not self.sticky:
            assert self.jobs.pending == 0

    def _is_silent(self, worker: bytes) -> bool:
        return self.now - self.heard[worker] > SILENT_AFTER

    def _in_hand(self, payload: int) -> bool:
        return any(payload in held.values() for held in self.given.values())

    @rule(seconds=st.floats(0.01, 0.5))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        for worker, held in self.given.items():
            if worker not in self.silent:
                self.heard[worker] = self.now
                assert self.jobs.note_alive(worker, self.now)
                assert self.jobs.check_held(worker, tuple(held), self.now)

    @rule(worker=workers)
    def fall_silent(self, worker: bytes) -> None:
        self.silent.add(worker)

    @rule(worker=workers)
    def be_heard_again(self, worker: bytes) -> None:
        self.silent.discard(worker)
        self.heard[worker] = self.now
        assert self.jobs.note_alive(worker, self.now)

    @invariant()
    def every_job_is_accounted_for(self) -> None:
        in_hand = {p for held in self.given.values() for p in held.values() if p in self.waiting}
        assert len(in_hand) == self.jobs.in_flight
        assert self.jobs.pending == len(self.waiting) - len(in_hand)

    @invariant()
    def credit_is_kept(self) -> None:
        for key, held in self.given.items():
            peer = self.jobs.find_worker(key)
            assert peer is not None and len(peer.held) == len(held) <= peer.credit

    @invariant()
    def a_job_is_given_again_only_after_a_death_or_a_silence(self) -> None:
        for payload, times in self.times_given.items():
            assert times <= 1 + self.times_returned[payload]

    @invariant()
    def sticky_sessions_have_one_worker(self) -> None:
        if self.sticky:
            for session in SESSIONS:
                homes = {
                    key
                    for key, held in self.given.items()
                    if any(self.waiting.get(p) == session for p in held.values())
                }
                assert len(homes) <= 1

    def teardown(self) -> None:
        """A worker that lives and acknowledges gets everything in the end."""
        if not hasattr(self, "jobs"):
            return
        for key in list(self.given):
            self.jobs.remove_worker(key)
        self.jobs.add_worker(b"last", "stage", "last", 2, self.now)
        got = []
        while (assigned := self.jobs.assign(self.now)) is not None:
            got.append(assigned[1].payload)
            assert self.jobs.ack(b"last", assigned[1].number) is not None
        assert sorted(got) == sorted(self.waiting)


TestDispatcher = DispatcherMachine.TestCase
TestDispatcher.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)


def made(sticky: bool = False, max_pending_per_session: int | None = None) -> Dispatcher[str]:
    return Dispatcher[str](sticky=sticky, dead_after=5.0, max_pending_per_session=max_pending_per_session)


def drain(jobs: Dispatcher[str], now: float = 0.0) -> list[tuple[bytes, str]]:
    out = []
    while (assigned := jobs.assign(now)) is not None:
        out.append((assigned[0].key, assigned[1].payload))
    return out


def test_any_hop_spreads_over_the_workers_with_most_credit() -> None:
    jobs = made()
    jobs.add_worker(b"a", "s", "a", 2, 0)
    jobs.add_worker(b"b", "s", "b", 2, 0)
    for i in range(5):
        jobs.add_job("x", 0, str(i), 0)
    assert sorted(drain(jobs)) == [(b"a", "0"), (b"a", "2"), (b"b", "1"), (b"b", "3")]
    assert jobs.pending == 1


def test_sticky_sessions_spread_and_stay() -> None:
    jobs = made(sticky=True)
    jobs.add_worker(b"a", "s", "a", 8, 0)
    jobs.add_worker(b"b", "s", "b", 8, 0)
    for i in range(3):
        for session in ("x", "y", "z", "w"):
            jobs.add_job(session, 0, f"{session}{i}", 0)
    homes: dict[str, set[bytes]] = {}
    for key, payload in drain(jobs):
        homes.setdefault(payload[0], set()).add(key)
    assert all(len(keys) == 1 for keys in homes.values())
    assert Counter(next(iter(keys)) for keys in homes.values()) == {b"a": 2, b"b": 2}


def test_a_dead_workers_session_moves_in_order() -> None:
    jobs = made(sticky=True)
    jobs.add_worker(b"a", "s", "a", 2, 0)
    for i in range(4):
        jobs.add_job("x", 0, str(i), 0)
    assert drain(jobs) == [(b"a", "0"), (b"a", "1")]
    jobs.add_worker(b"b", "s", "b", 8, 0)
    assert drain(jobs) == []
    assert jobs.remove_worker(b"a") == 2
    assert drain(jobs) == [(b"b", "0"), (b"b", "1"), (b"b", "2"), (b"b", "3")]


def test_the_bound_pushes_out_the_oldest_waiting_job() -> None:
    jobs = made(max_pending_per_session=2)
    jobs.add_worker(b"a", "s", "a", 1, 0)
    assert jobs.add_job("x", 0, "0", 0) == []
    drain(jobs)
    assert [jobs.add_job("x", 0, str(i), 0) for i in range(1, 5)] == [[], [], ["1"], ["2"]]
    assert jobs.add_job("y", 0, "other", 0) == []
    assert jobs.pending_of("x") == 2 and jobs.pending == 3


def test_a_quiet_worker_gets_nothing_new_and_a_silent_one_is_named() -> None:
    jobs = made()
    jobs.add_worker(b"a", "s", "a", 2, 0)
    jobs.add_job("x", 0, "0", 0)
    assert jobs.assign(1.5) is None
    assert jobs.silent_workers(4.9, jobs.dead_after) == []
    jobs.note_alive(b"a", 4.9)
    assert jobs.assign(5.0) is not None
    assert [peer.key for peer in jobs.silent_workers(10.0, jobs.dead_after)] == [b"a"]
    jobs.forgive_silence(10.0)
    assert jobs.silent_workers(10.0, jobs.dead_after) == []


def test_a_resting_worker_may_be_silent_for_longer_until_it_gets_a_job() -> None:
    jobs = made()
    jobs.add_worker(b"a", "s", "a", 1, 0)
    assert jobs.note_alive(b"a", 0.0, rests=True)
    assert jobs.silent_workers(1.0, 0.5) == []
    jobs.add_job("x", 0, "0", 1.2)
    jobs.add_worker(b"b", "s", "b", 1, 1.2)
    jobs.note_alive(b"b", 1.2)
    jobs.add_job("x", 0, "1", 1.2)
    assert sorted(drain(jobs, 1.2)) == [(b"a", "0"), (b"b", "1")]
    assert [peer.key for peer in jobs.silent_workers(1.3, 0.5)] == [b"a"]
    # It stands still, so another one gets its job as soon as that of any other.
    (number,) = jobs.find_worker(b"b").held  # type: ignore[union-attr]
    jobs.ack(b"b", number)
    jobs.note_alive(b"b", 1.45)
    assert drain(jobs, 1.45) == []
    assert drain(jobs, 1.2 + 1.1 * SILENT_AFTER) == [(b"b", "0")]


def test_a_resting_worker_that_stands_still_gets_nothing_after_a_while() -> None:
    jobs = made(sticky=True)
    jobs.add_worker(b"a", "s", "a", 1, 0)
    jobs.note_alive(b"a", 0.0, rests=True)
    jobs.add_job("x", 0, "0", 0)
    assert jobs.assign(1.01 * RESTING_SILENT_AFTER) is None
    jobs.note_alive(b"a", 5.0)  # it does not rest any more
    jobs.add_job("x", 0, "1", 5.0)
    assert jobs.assign(5.0 + 1.01 * QUIET_AFTER) is None
    assert jobs.assign(5.0 + 0.99 * QUIET_AFTER) is not None


def silent_with_jobs() -> Dispatcher[str]:
    """Worker a holds the jobs 0 and 1 and is silent since 0.0. Worker b comes at 1.0."""
    jobs = made()
    jobs.add_worker(b"a", "s", "a", 2, 0)
    for i in range(2):
        jobs.add_job("x", 0, str(i), 0)
    drain(jobs)
    return jobs


def test_the_jobs_of_a_silent_worker_go_to_another_as_well_and_the_first_answer_counts() -> None:
    jobs = silent_with_jobs()
    assert drain(jobs, SILENT_AFTER) == []
    jobs.add_worker(b"b", "s", "b", 2, 0.35)
    assert drain(jobs, 0.35) == [(b"b", "0"), (b"b", "1")]
    assert drain(jobs, 0.6) == []  # not a third time
    assert jobs.in_flight == 2 and jobs.handed_over == 2
    first, second = sorted(jobs.find_worker(b"b").held)  # type: ignore[union-attr]
    assert jobs.ack(b"b", first) is not None
    assert jobs.ack(b"a", first) is None
    assert jobs.ack(b"a", second) is not None
    assert jobs.ack(b"b", second) is None
    assert jobs.in_flight == 0


def test_a_silent_workers_death_brings_back_only_jobs_that_nobody_else_has() -> None:
    jobs = silent_with_jobs()
    jobs.add_worker(b"b", "s", "b", 1, 0.4)
    assert drain(jobs, 0.4) == [(b"b", "0")]
    assert jobs.remove_worker(b"a") == 1
    assert jobs.remove_worker(b"b") == 1
    jobs.add_worker(b"c", "s", "c", 2, 0.5)
    assert drain(jobs, 0.5) == [(b"c", "0"), (b"c", "1")]


def test_a_job_whose_second_worker_falls_silent_too_goes_to_a_third() -> None:
    jobs = silent_with_jobs()
    jobs.add_worker(b"b", "s", "b", 2, 0.4)
    drain(jobs, 0.4)
    jobs.add_worker(b"c", "s", "c", 2, 0.8)
    assert drain(jobs, 0.8) == [(b"c", "0"), (b"c", "1")]
    assert jobs.in_flight == 2


def test_a_server_that_was_away_hands_nothing_over_for_that_time() -> None:
    jobs = silent_with_jobs()
    jobs.add_worker(b"b", "s", "b", 2, 0.5)
    jobs.note_pause(0.5)
    assert drain(jobs, 0.5) == []
    jobs.note_alive(b"b", 0.9)
    assert drain(jobs, 0.9) == [(b"b", "0"), (b"b", "1")]


def test_a_sessions_state_is_not_split_over_two_workers() -> None:
    jobs = made(sticky=True)
    jobs.add_worker(b"a", "s", "a", 2, 0)
    jobs.add_job("x", 0, "0", 0)
    drain(jobs)
    jobs.add_worker(b"b", "s", "b", 2, 0.5)
    assert drain(jobs, 0.5) == []


def test_a_job_that_its_worker_does_not_know_of_is_noticed() -> None:
    jobs = made()
    jobs.add_worker(b"a", "s", "a", 2, 0)
    jobs.add_job("x", 0, "0", 0)
    assigned = jobs.assign(0)
    assert assigned is not None
    assert jobs.check_held(b"a", (), 4.0)  # it may be on its way
    assert jobs.check_held(b"a", (assigned[1].number,), 6.0)
    assert not jobs.check_held(b"a", (), 6.0)


def test_a_cancelled_job_keeps_its_credit_until_its_worker_says_otherwise() -> None:
    jobs = made(sticky=True)
    jobs.add_worker(b"a", "s", "a", 1, 0)
    jobs.add_job("x", 0, "old", 0)
    assigned = jobs.assign(0)
    assert assigned is not None
    assert jobs.cancel("x", 0) == 1
    jobs.add_job("x", 1, "new", 0)
    assert jobs.assign(0) is None and jobs.in_flight == 0
    assert jobs.check_held(b"a", (), 6.0)  # it never arrived: the credit is free again
    jobs.note_alive(b"a", 6.0)
    assert drain(jobs, 6.0) == [(b"a", "new")]


def test_closing_an_epoch_leaves_the_next_one() -> None:
    jobs = made(sticky=True)
    jobs.add_job("x", 0, "old", 0)
    jobs.add_job("x", 1, "new", 0)
    assert jobs.cancel("x", 0) == 1
    jobs.add_worker(b"a", "s", "a", 2, 0)
    assert drain(jobs) == [(b"a", "new")]


def test_homes_of_sessions_long_gone_are_forgotten() -> None:
    jobs = made(sticky=True)
    jobs.add_worker(b"a", "s", "a", 1, 0)
    for i in range(MAX_HOMES + 50):
        jobs.add_job(f"s{i}", 0, "x", 0)
        assigned = jobs.assign(0)
        assert assigned is not None
        jobs.ack(b"a", assigned[1].number)
    assert len(jobs._homes) <= MAX_HOMES


def test_a_bound_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        made(max_pending_per_session=0)
