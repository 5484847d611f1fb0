"""The hop with real worker processes that are killed, stopped, hung, joined and sent away."""

from __future__ import annotations

import functools
import itertools
import logging
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
import zmq

from protocol.hop.keys import RunKey, load_key
from protocol.hop.server import Acked, HopEvent, HopServer, WorkerJoined, WorkerLost
from protocol.wire.messages import Close, Work
from tests.protocol.conftest import Start, drive
from tests.protocol.samples import one_latents, one_pcm

pytestmark = [pytest.mark.process, pytest.mark.timing]

Context = zmq.Context[zmq.Socket[bytes]]


def acked(events: list[HopEvent]) -> list[Work]:
    return [event.msg for event in events if isinstance(event, Acked)]


def lost(events: list[HopEvent]) -> list[WorkerLost]:
    return [event for event in events if isinstance(event, WorkerLost)]


def by_worker(events: list[HopEvent]) -> Counter[str]:
    return Counter(event.worker for event in events if isinstance(event, Acked))


def joined(server: HopServer, n: int) -> None:
    drive(server, lambda _: server.workers == n)


def make(
    ctx: Context, endpoint: str, *, sticky: bool = False, dead_after: float = 1.5, key: RunKey | None = None
) -> HopServer:
    return HopServer(ctx, endpoint, sticky=sticky, dead_after=dead_after, name="hop", key=key)


def test_kill_of_one_of_two_workers_loses_nothing(
    ctx: Context, any_endpoint: str, run_dir: Path, start: Start
) -> None:
    server = make(ctx, any_endpoint, dead_after=5.0, key=load_key(run_dir))
    a = start(any_endpoint, "--run-dir", run_dir, "--name", "a", "--credit", "8", "--work", "0.004")
    start(any_endpoint, "--run-dir", run_dir, "--name", "b", "--credit", "8", "--work", "0.004")
    joined(server, 2)
    for i in range(200):
        server.dispatch(one_latents("s", i))
    events, _ = drive(server, lambda events: by_worker(events)["a"] >= 20)
    a.send_signal(signal.SIGKILL)
    killed = time.monotonic()
    # the other one may have done all before the loss is told, since a silent worker's clips go to it as well
    more, _ = drive(
        server, lambda more: server.pending + server.in_flight == 0 and bool(lost([*events, *more]))
    )
    events += more
    assert sorted(msg.seq for msg in acked(events)) == list(range(200))
    assert [event.worker for event in lost(events)] == ["a"]
    # given back by its death, or to the other one before that, because of its silence
    assert lost(events)[0].redispatched + server.stats()["hop_handed_over_total"] >= 1
    # found by its connection, long before the five seconds of silence
    assert time.monotonic() - killed < 4.0
    server.close()


def test_a_stopped_worker_is_found_and_comes_back(ctx: Context, endpoint: str, start: Start) -> None:
    server = make(ctx, endpoint)
    a = start(endpoint, "--name", "a")
    joined(server, 1)
    a.send_signal(signal.SIGSTOP)
    time.sleep(0.2)
    for i in range(4):
        server.dispatch(one_latents("s", i))
    assert server.in_flight == 2
    events, took = drive(server, lambda events: bool(lost(events)))
    assert took < 3.0 and "silent" in lost(events)[0].why and lost(events)[0].redispatched == 2
    assert server.pending == 4
    a.send_signal(signal.SIGCONT)
    events, took = drive(server, lambda _: server.pending + server.in_flight == 0)
    assert took < 1.5 and any(isinstance(event, WorkerJoined) for event in events)
    # what it had in hand when it was given up is void: nothing is done twice
    assert sorted(msg.seq for msg in acked(events)) == [0, 1, 2, 3]
    server.close()


def test_a_stopped_worker_holds_nobody_up(ctx: Context, endpoint: str, start: Start) -> None:
    """It is stopped for a time shorter than `dead_after`, so only its silence tells."""
    server = make(ctx, endpoint, dead_after=6.0)
    a = start(endpoint, "--name", "a", "--work", "0.02")
    start(endpoint, "--name", "b", "--work", "0.02")
    joined(server, 2)
    done: set[int] = set()
    complete, since, longest = 0, time.monotonic(), 0.0
    for number in range(100):
        server.dispatch(one_latents("s", number))
        if number == 40:
            a.send_signal(signal.SIGSTOP)
        until = time.monotonic() + 0.03
        while (left := until - time.monotonic()) > 0:
            server.socket.poll(int(left * 1000))
            for msg in acked(server.tick()):
                assert msg.seq not in done
                done.add(msg.seq)
            if complete in done:  # the next one in order, for which a viewer would wait
                longest = max(longest, time.monotonic() - since)
                since = time.monotonic()
            while complete in done:
                complete += 1
    print(f"a worker stopped for 1.8 s: the longest wait for the next job is {longest:.2f} s")
    a.send_signal(signal.SIGCONT)
    events, _ = drive(server, lambda _: server.pending + server.in_flight == 0)
    assert sorted([*done, *(msg.seq for msg in acked(events))]) == list(range(100))
    assert not lost(events) and longest < 1.2
    server.close()


def test_a_worker_that_hangs_in_python_is_found(ctx: Context, endpoint: str, start: Start) -> None:
    server = make(ctx, endpoint)
    start(endpoint, "--name", "a", "--hang-at", "5")
    start(endpoint, "--name", "b", "--work", "0.02")
    joined(server, 2)
    for i in range(60):
        server.dispatch(one_latents("s", i))
    events, took = drive(server, lambda _: server.pending + server.in_flight == 0)
    assert sorted(msg.seq for msg in acked(events)) == list(range(60))
    assert by_worker(events) == {"a": 4, "b": 56}
    # its jobs went to the other one long before it was given up
    assert took < 6.0 and server.stats()["hop_handed_over_total"] == 2
    events += drive(server, lambda events: bool(lost(events)))[0]
    assert [event.worker for event in lost(events)] == ["a"] and took < 6.0
    server.close()


def test_a_worker_that_joins_takes_work_within_a_second(ctx: Context, endpoint: str, start: Start) -> None:
    server = make(ctx, endpoint)
    start(endpoint, "--name", "a", "--work", "0.05")
    joined(server, 1)
    for i in range(400):
        server.dispatch(one_latents("s", i))
    start(endpoint, "--name", "b", "--work", "0.05")
    drive(server, lambda events: any(isinstance(event, WorkerJoined) for event in events))
    _, took = drive(server, lambda events: by_worker(events)["b"] >= 1)
    assert took < 1.0
    server.close()


def test_goodbye_loses_nothing(ctx: Context, endpoint: str, start: Start) -> None:
    server = make(ctx, endpoint, dead_after=30.0)
    a = start(endpoint, "--name", "a", "--credit", "8", "--work", "0.01")
    start(endpoint, "--name", "b", "--credit", "8", "--work", "0.01")
    joined(server, 2)
    for i in range(100):
        server.dispatch(one_latents("s", i))
    events, _ = drive(server, lambda events: by_worker(events)["a"] >= 10)
    a.send_signal(signal.SIGTERM)
    more, took = drive(server, lambda events: bool(lost(events)))
    assert took < 1.0 and lost(more)[0].why == "it left" and a.wait(2) == 0
    events += more + drive(server, lambda _: server.pending + server.in_flight == 0)[0]
    assert sorted(msg.seq for msg in acked(events)) == list(range(100))
    server.close()


def test_goodbye_with_nothing_in_hand_is_no_warning(
    ctx: Context, endpoint: str, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server = make(ctx, endpoint, dead_after=30.0)
    a = start(endpoint, "--name", "a")
    joined(server, 1)
    a.send_signal(signal.SIGTERM)
    events, _ = drive(server, lambda events: bool(lost(events)))
    assert [(event.why, event.redispatched) for event in lost(events)] == [("it left", 0)]
    assert [record.levelname for record in caplog.records if "is gone" in record.message] == ["INFO"]
    server.close()


def test_sticky_sessions_stay_and_move_when_their_worker_dies(
    ctx: Context, endpoint: str, start: Start
) -> None:
    server = make(ctx, endpoint, sticky=True)
    workers = {name: start(endpoint, "--name", name, "--work", "0.002") for name in "ab"}
    joined(server, 2)
    sessions = ["s0", "s1", "s2", "s3"]

    def send(seqs: range) -> list[HopEvent]:
        for seq, session in itertools.product(seqs, sessions):
            server.dispatch(one_pcm(session, seq))
        return drive(server, lambda _: server.pending + server.in_flight == 0)[0]

    events = send(range(20))
    homes = {s: {e.worker for e in events if isinstance(e, Acked) and e.msg.session == s} for s in sessions}
    assert all(len(names) == 1 for names in homes.values())
    assert Counter(name for names in homes.values() for name in names) == {"a": 2, "b": 2}
    workers["a"].send_signal(signal.SIGKILL)
    events = send(range(20, 40))
    for session in sessions:
        mine = [event for event in events if isinstance(event, Acked) and event.msg.session == session]
        assert [event.msg.seq for event in mine] == list(range(20, 40))
        assert {event.worker for event in mine} == {"b"}
    server.close()


def test_workers_come_back_to_a_restarted_upstream(
    ctx: Context, any_endpoint: str, run_dir: Path, start: Start
) -> None:
    key = load_key(run_dir)
    server = make(ctx, any_endpoint, key=key)
    for name in "ab":
        start(any_endpoint, "--run-dir", run_dir, "--name", name, "--work", "0.2")
    joined(server, 2)
    for i in range(10):
        server.dispatch(one_latents("old", i))
    server.close()
    time.sleep(0.3)
    server = make(ctx, any_endpoint, key=key)
    for i in range(8):
        server.dispatch(one_latents("new", i))
    events, took = drive(server, lambda _: server.workers == 2)
    assert took < 2.0
    events += drive(server, lambda _: server.pending + server.in_flight == 0)[0]
    # acknowledgements of the old server's jobs are not taken for the new one's
    assert sorted((msg.session, msg.seq) for msg in acked(events)) == [("new", i) for i in range(8)]
    server.close()


def nothing_left(server: HopServer, _events: list[HopEvent]) -> bool:
    return server.pending + server.in_flight == 0


def test_one_worker_serves_two_upstreams(ctx: Context, run_dir: object, start: Start) -> None:
    urls = [f"ipc://{run_dir}/clips.{i}" for i in range(2)]
    servers = [make(ctx, url) for url in urls]
    start(*urls, "--work", "0.001")
    for server in servers:
        joined(server, 1)
        for i in range(20):
            server.dispatch(one_latents("s", i))
    for server in servers:
        drive(server, functools.partial(nothing_left, server))
        server.close()


def test_a_slow_worker_leaves_a_bounded_queue(ctx: Context, endpoint: str, start: Start) -> None:
    server = HopServer(ctx, endpoint, sticky=True, dead_after=5, max_pending_per_session=3)
    start(endpoint, "--work", "0.2")
    joined(server, 1)
    pushed_out: list[Work] = []
    events: list[HopEvent] = []
    for i in range(100):
        pushed_out += server.dispatch(one_pcm("s", i))
        assert server.pending <= 3 and server.in_flight <= 2
        events += server.tick()
    events += drive(server, lambda _: server.pending + server.in_flight == 0)[0]
    seqs = [msg.seq for msg in acked(events)]
    assert seqs == sorted(seqs) and seqs[-3:] == [97, 98, 99]
    assert sorted([*seqs, *(msg.seq for msg in pushed_out)]) == list(range(100))
    server.close()


def test_close_reaches_every_worker_and_frees_the_queue(ctx: Context, endpoint: str, start: Start) -> None:
    server = make(ctx, endpoint, sticky=True)
    start(endpoint, "--work", "0.1")
    joined(server, 1)
    for i in range(10):
        server.dispatch(one_pcm("gone", i))
        server.dispatch(one_pcm("stays", i))
    server.broadcast(Close("gone", 0))
    assert server.pending <= 10
    events, _ = drive(server, lambda _: server.pending + server.in_flight == 0)
    assert [msg.seq for msg in acked(events) if msg.session == "stays"] == list(range(10))
    assert not [msg for msg in acked(events) if msg.session == "gone" and msg.seq > 1]
    server.close()


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGTERM])
def test_work_waits_when_there_is_no_worker(
    ctx: Context, endpoint: str, start: Start, signal_number: signal.Signals
) -> None:
    server = make(ctx, endpoint)
    a = start(endpoint, "--work", "0.5")
    joined(server, 1)
    for i in range(5):
        server.dispatch(one_pcm("s", i))
    a.send_signal(signal_number)
    drive(server, lambda events: bool(lost(events)))
    assert server.pending + server.in_flight >= 4
    start(endpoint)
    drive(server, lambda _: server.pending + server.in_flight == 0)
    server.close()
