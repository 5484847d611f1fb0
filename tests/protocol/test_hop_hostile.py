"""Peers that send garbage, and ends of a hop that lose messages: nothing dies and nothing is lost."""

from __future__ import annotations

import functools
import os
import random
import socket
import time
from collections.abc import Callable

import msgpack
import pytest
import zmq

from protocol.hop import sockets
from protocol.hop.client import HopClient, Job
from protocol.hop.server import Acked, HopEvent, HopServer
from protocol.wire.codec import decode, encode
from protocol.wire.messages import Ack, Bye, Close, Heartbeat, Hello, Ready
from tests.protocol.conftest import client_of, drive
from tests.protocol.samples import EXAMPLES, one_latents, one_pcm

Context = zmq.Context[zmq.Socket[bytes]]


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def work(server: HopServer, client: HopClient, seconds: float = 3.0) -> list[int]:
    """Run both ends until the server has nothing left; the sequence numbers acknowledged."""
    done: list[int] = []
    end = time.monotonic() + seconds
    while server.pending + server.in_flight:
        assert time.monotonic() < end, server.stats()
        client.heartbeat()
        for job in client.recv():
            client.ack(job)
        server.socket.poll(5)
        done += [event.msg.seq for event in server.tick() if isinstance(event, Acked)]
    return done


def garbage(rng: random.Random) -> list[bytes]:
    kind = rng.randrange(6)
    if kind == 0:
        return [rng.randbytes(rng.randrange(200)) for _ in range(rng.randrange(1, 5))]
    if kind == 1:
        return [b""] * rng.randrange(1, 2000)
    if kind == 2:
        parts = [bytearray(bytes(part)) for part in encode(rng.choice(EXAMPLES)) if len(part) < 4000]
        parts[0][rng.randrange(len(parts[0]))] ^= 1 << rng.randrange(8)
        return [bytes(part) for part in parts]
    if kind == 3:
        return [b"\x91" * 4000]
    if kind == 4:
        return [bytes(f) for f in encode(Ack(rng.randrange(1, 2**64)))]
    return [bytes(f) for f in encode(rng.choice(EXAMPLES)) if len(f) < 4000]


def test_garbage_from_peers_does_no_harm(ctx: Context, endpoint: str) -> None:
    server = HopServer(ctx, endpoint, sticky=False, dead_after=2)
    client = client_of(ctx, endpoint)
    rng = random.Random(1)
    strangers = [ctx.socket(zmq.DEALER) for _ in range(3)]
    for stranger in strangers:
        stranger.connect(endpoint)
    for i in range(40):
        server.dispatch(one_latents("s", i))
    done: list[int] = []
    end = time.monotonic() + 10
    while len(done) < 40 or server.stats()["hop_malformed_total"] < 100:
        assert time.monotonic() < end, server.stats()
        for stranger in strangers:
            stranger.send_multipart(garbage(rng))
            while stranger.poll(0):
                stranger.recv_multipart()
        client.heartbeat()
        for job in client.recv():
            client.ack(job)
        done += [event.msg.seq for event in server.tick() if isinstance(event, Acked)]
    # a stranger's READY makes it a worker, so work it took may be waiting for its silence; none is lost
    assert set(done) == set(range(40))
    server.close()


def test_parts_too_large_end_the_connection_only(ctx: Context, endpoint: str) -> None:
    server = HopServer(ctx, endpoint, sticky=False, dead_after=5)
    client = client_of(ctx, endpoint)
    stranger = ctx.socket(zmq.DEALER)
    stranger.connect(endpoint)
    for _ in range(3):
        stranger.send(bytes(5 * 2**20))
    server.dispatch(one_latents())
    assert work(server, client) == [0]
    assert server.workers == 1
    server.close()


def test_raw_bytes_on_the_socket_do_no_harm(ctx: Context, endpoint: str) -> None:
    server = HopServer(ctx, endpoint, sticky=False, dead_after=5)
    for data in (b"GET / HTTP/1.0\r\n\r\n", os.urandom(5000), b"\xff" + bytes(8) + b"\x7f\x03" + bytes(53)):
        with socket.socket(socket.AF_UNIX) as raw:
            raw.connect(endpoint.removeprefix("ipc://"))
            raw.sendall(data)
            server.tick()
    server.dispatch(one_latents())
    assert work(server, client_of(ctx, endpoint)) == [0]
    server.close()


def test_a_flood_does_not_keep_the_caller(ctx: Context, endpoint: str) -> None:
    server = HopServer(ctx, endpoint, sticky=False, dead_after=5)
    stranger = ctx.socket(zmq.DEALER)
    stranger.connect(endpoint)
    for _ in range(900):
        stranger.send(b"x")
    drive(server, lambda _: server.stats()["hop_malformed_total"] > 0)
    before = server.stats()["hop_malformed_total"]
    server.on_readable()
    assert server.stats()["hop_malformed_total"] - before <= sockets.DRAIN
    server.close()


def test_too_many_workers_are_refused(ctx: Context, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("protocol.hop.server.MAX_PEERS", 2)
    server = HopServer(ctx, endpoint, sticky=False, dead_after=5)
    clients = [client_of(ctx, endpoint, worker=str(i)) for i in range(3)]
    end = time.monotonic() + 3
    while server.stats()["hop_malformed_total"] == 0 and time.monotonic() < end:
        for client in clients:
            client.heartbeat()
        server.tick()
    assert server.workers == 2
    server.close()


# ------------------------------------------------------------------ the worker's side


class FakeServer:
    """A ROUTER that sends the messages of a test."""

    def __init__(self, ctx: Context, endpoint: str, client: HopClient) -> None:
        self.socket = ctx.socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self.socket.bind(endpoint)
        self.client = client
        self.key = b""
        self.expect(Ready)

    def expect(self, kind: type) -> object:
        end = time.monotonic() + 3
        while time.monotonic() < end:
            self.client.heartbeat()
            if self.socket.poll(10):
                self.key, *parts = self.socket.recv_multipart()
                message = decode(parts)
                if isinstance(message, kind):
                    return message
        pytest.fail(f"no {kind.__name__}")

    def send(self, number: int, parts: list[bytes]) -> None:
        self.socket.send_multipart([self.key, number.to_bytes(8, "big"), *parts])

    def jobs(self) -> list[Job]:
        end = time.monotonic() + 3
        while time.monotonic() < end:
            if jobs := self.client.recv():
                return jobs
            time.sleep(0.01)
        return []


@pytest.fixture
def pair(ctx: Context, endpoint: str) -> FakeServer:
    return FakeServer(ctx, endpoint, client_of(ctx, endpoint))


def parts_of(message: object) -> list[bytes]:
    return [bytes(part) for part in encode(message)]  # type: ignore[arg-type]


def test_a_malformed_job_is_skipped_and_acknowledged(pair: FakeServer) -> None:
    header, buffer = parts_of(one_pcm())
    broken = [
        [header, buffer[:-1]],
        [header],
        [b"\x91" * 60000],
        [msgpack.packb(msgpack.unpackb(header) | {"pts": -1}), buffer],
        parts_of(Ready("a", "b", 1)),
        [b""] * 1000,
    ]
    for number, parts in enumerate(broken, start=1):
        pair.send(number, parts)
    pair.send(99, parts_of(one_pcm("good")))
    assert [job.msg.session for job in pair.jobs()] == ["good"]
    assert [pair.expect(Ack) for _ in broken] == [Ack(n) for n in range(1, len(broken) + 1)]
    assert pair.client.malformed == len(broken) and pair.client.held == 1


def test_what_is_not_even_an_envelope_is_ignored(pair: FakeServer) -> None:
    for parts in ([b""], [b"short", *parts_of(one_pcm())], [b"x" * 8], [b""] * 5):
        pair.socket.send_multipart([pair.key, *parts])
    pair.send(7, parts_of(one_pcm("good")))
    assert [job.msg.session for job in pair.jobs()] == ["good"]


def test_a_job_sent_twice_is_one_job(pair: FakeServer) -> None:
    for _ in range(3):
        pair.send(5, parts_of(one_pcm()))
    jobs = pair.jobs()
    time.sleep(0.05)
    jobs += pair.client.recv()
    assert len(jobs) == 1
    assert pair.expect(Heartbeat) is not None
    pair.client.ack(jobs[0])
    pair.client.ack(jobs[0])
    assert pair.expect(Ack) == Ack(5)


def test_hello_voids_what_is_in_hand(pair: FakeServer) -> None:
    resets: list[int] = []
    pair.client.on_reset = resets.append
    pair.send(5, parts_of(one_pcm("old")))
    (old,) = pair.jobs()
    pair.send(6, parts_of(one_pcm("unread")))
    pair.send(0, parts_of(Hello(3)))
    pair.send(6, parts_of(one_pcm("new")))
    time.sleep(0.2)  # all three are there: read before the hello comes, the unread one would be a job
    assert [job.msg.session for job in pair.jobs()] == ["new"]
    assert resets == [0]
    assert pair.expect(Ready) is not None
    pair.client.ack(old)  # void: must not be taken for the new job
    assert pair.client.held == 1
    end = time.monotonic() + 3
    while pair.expect(Heartbeat) != Heartbeat((6,)):
        assert time.monotonic() < end


def test_close_comes_as_a_job_that_needs_no_ack(pair: FakeServer) -> None:
    pair.send(0, parts_of(Close("s", 4)))
    (job,) = pair.jobs()
    assert job.msg == Close("s", 4)
    pair.client.ack(job)
    assert pair.client.held == 0


# ------------------------------------------------------------------ lost messages


def raw_worker(ctx: Context, endpoint: str, server: HopServer) -> zmq.Socket[bytes]:
    worker = ctx.socket(zmq.DEALER)
    worker.connect(endpoint)
    worker.send_multipart(parts_of(Ready("worker", "raw", 2)))
    drive(server, lambda _: server.workers == 1)
    return worker


def test_a_job_that_was_lost_on_the_way_is_given_again(ctx: Context, endpoint: str) -> None:
    clock = Clock()
    server = HopServer(ctx, endpoint, sticky=False, dead_after=2, clock=clock)
    worker = raw_worker(ctx, endpoint, server)
    server.dispatch(one_latents())
    assert server.in_flight == 1
    said: list[object] = []

    def beat(until: Callable[[], bool]) -> None:
        for _ in range(200):
            clock.now += 0.1
            worker.send_multipart(parts_of(Heartbeat()))
            server.tick()
            while worker.poll(20):
                said.append(decode(worker.recv_multipart()[1:]))
            if until():
                return

    beat(lambda: server.workers == 0)
    assert server.workers == 0 and server.pending == 1
    # a machine under load may bring the beat before this late, so it beats until it is asked who it is
    beat(lambda: bool(said) and isinstance(said[-1], Hello))
    assert isinstance(said[-1], Hello)
    assert work(server, client_of(ctx, endpoint)) == [0]
    server.close()


def test_an_upstream_that_was_away_blames_nobody(ctx: Context, endpoint: str) -> None:
    clock = Clock()
    server = HopServer(ctx, endpoint, sticky=False, dead_after=2, clock=clock)
    raw_worker(ctx, endpoint, server)
    clock.now += 60
    assert server.tick() == [] and server.workers == 1
    for _ in range(25):
        clock.now += 0.1
        server.tick()
    assert server.workers == 0
    server.close()


def test_a_stranger_is_asked_who_it_is(ctx: Context, endpoint: str) -> None:
    server = HopServer(ctx, endpoint, sticky=False, dead_after=2)
    stranger = ctx.socket(zmq.DEALER)
    stranger.connect(endpoint)
    for _ in range(20):
        stranger.send_multipart(parts_of(Heartbeat()))
    drive(server, lambda _: stranger.poll(0) != 0)
    assert isinstance(decode(stranger.recv_multipart()[1:]), Hello)
    assert stranger.poll(50) == 0  # once, not twenty times
    stranger.send_multipart(parts_of(Bye()))
    time.sleep(0.02)
    assert server.tick() == []
    server.close()


def in_flight_is(server: HopServer, count: int, _events: list[HopEvent]) -> bool:
    return server.in_flight == count


def test_an_ack_of_an_earlier_servers_job_is_not_taken_for_this_ones(ctx: Context, endpoint: str) -> None:
    numbers = []
    for _ in range(2):
        server = HopServer(ctx, endpoint, sticky=False, dead_after=2)
        worker = raw_worker(ctx, endpoint, server)
        server.dispatch(one_latents())
        assert worker.poll(1000)
        numbers.append(int.from_bytes(worker.recv_multipart()[0], "big"))
        worker.send_multipart(parts_of(Ack(numbers[0])))
        drive(server, functools.partial(in_flight_is, server, len(numbers) - 1))
        worker.close()
        server.close()
    assert numbers[0] != numbers[1]


def test_acknowledgements_wait_for_a_heartbeat_while_most_of_the_credit_is_free(
    ctx: Context, endpoint: str
) -> None:
    server = HopServer(ctx, endpoint, sticky=False, dead_after=5)
    clock = Clock()
    client = client_of(ctx, endpoint, credit=4, clock=clock, acks_may_wait=True)
    jobs: list[Job] = []

    def acked(wanted: int, seconds: float) -> int:
        """How many jobs were acknowledged once it were `wanted`, or the time was over."""
        end = time.monotonic() + seconds
        found = 0
        while found < wanted and time.monotonic() < end:
            server.socket.poll(5)
            found += sum(isinstance(event, Acked) for event in server.tick())
            jobs.extend(client.recv())
        return found

    end = time.monotonic() + 5
    while not server.workers and time.monotonic() < end:  # the first may come before the connection
        clock.now += 1
        client.heartbeat()
        acked(1, 0.05)
    for seq in range(4):
        server.dispatch(one_latents("s", seq))
    end = time.monotonic() + 5
    while len(jobs) < 4 and time.monotonic() < end:
        acked(1, 0.01)
    for job in jobs[:2]:  # two are held beside them, so none of these waits
        client.ack(job)
    assert acked(2, 5) == 2
    for job in jobs[2:]:
        client.ack(job)
    assert acked(2, 0.1) == 0 and client.held == 0
    clock.now += 1
    client.heartbeat()
    assert acked(2, 5) == 2
    server.close()
