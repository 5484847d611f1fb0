from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import pytest
import zmq

from protocol.hop.results import PROBE_AFTER, ResultClient, ResultServer
from protocol.wire.codec import encode
from protocol.wire.messages import Failed, Frame, Heartbeat, Ready, Received, Status
from tests.protocol.samples import one_frame, one_latents

Context = zmq.Context[zmq.Socket[bytes]]


def client_of(ctx: Context, endpoint: str, resend_after: float = 2.0) -> ResultClient:
    return ResultClient(ctx, endpoint, stage="encoder_worker", worker="0", resend_after=resend_after)


def until(
    ready: Callable[[], Iterable[object]], *clients: ResultClient, seconds: float = 3.0
) -> list[object]:
    """Poll `ready` until it gives something, with the clients' own work going on."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for client in clients:
            client.flush()
        if got := list(ready()):
            return got
        time.sleep(0.005)
    pytest.fail("nothing arrived")


def receive(server: ResultServer, n: int, *clients: ResultClient) -> list[tuple[bytes, object]]:
    got: list[tuple[bytes, object]] = []

    def more() -> bool:
        got.extend(server.recv())
        return len(got) >= n

    end = time.monotonic() + 3
    while not more():
        assert time.monotonic() < end, got
        for client in clients:
            client.confirmed()
        time.sleep(0.005)
    return got


def test_frames_of_two_workers_are_confirmed_to_each(ctx: Context, endpoint: str) -> None:
    server = ResultServer(ctx, endpoint)
    clients = [client_of(ctx, endpoint) for _ in range(2)]
    for client, session in zip(clients, "ab", strict=True):
        for index in range(3):
            client.send(one_frame(session, 7, index, 3))
    for sender, message in receive(server, 6, *clients):
        assert isinstance(message, Frame)
        if message.index == message.count - 1:
            server.confirm_clip(sender, message.session, message.epoch, message.seq)
    assert until(clients[0].confirmed) == [("a", 0, 7)]
    assert until(clients[1].confirmed) == [("b", 0, 7)]
    assert not clients[0]._clips and not clients[1]._clips


def test_what_is_sent_before_the_gateway_is_there_arrives(ctx: Context, endpoint: str) -> None:
    client = client_of(ctx, endpoint)
    for fps in (1, 2, 3):
        client.send(Status("encoder_worker", "0", True, {"fps": fps}, {}))
    client.send(one_frame())
    client.send(Failed("s", 0, 4, "encoder_worker", "why", False))
    time.sleep(0.1)
    server = ResultServer(ctx, endpoint)
    got = [message for _, message in receive(server, 3, client)]
    assert [type(m) for m in got] == [Frame, Failed, Status]
    assert isinstance(got[2], Status) and got[2].info == {"fps": 3}  # of status only the newest
    server.close()


def test_unconfirmed_clips_are_sent_again_to_a_restarted_gateway(ctx: Context, endpoint: str) -> None:
    server = ResultServer(ctx, endpoint)
    client = client_of(ctx, endpoint, resend_after=0.3)
    for index in range(3):
        client.send(one_frame("s", 1, index, 3))
    receive(server, 3, client)
    server.close()
    time.sleep(0.1)
    server = ResultServer(ctx, endpoint)
    again = receive(server, 3, client)
    assert [message.index for _, message in again if isinstance(message, Frame)] == [0, 1, 2]
    server.confirm_clip(again[0][0], "s", 0, 1)
    assert until(client.confirmed) == [("s", 0, 1)]
    server.close()


def test_resending_backs_off_and_waits_for_whole_clips(ctx: Context, endpoint: str) -> None:
    now = [0.0]
    server = ResultServer(ctx, endpoint)
    client = ResultClient(ctx, endpoint, stage="e", worker="0", resend_after=2.0, clock=lambda: now[0])
    client.send(one_frame("whole", 0, 0, 1))
    client.send(one_frame("half", 0, 0, 2))
    receive(server, 2, client)
    times = 0
    for _ in range(600):
        now[0] += 0.1
        client.confirmed()
        times += sum(isinstance(m, Frame) and m.session == "whole" for _, m in server.recv())
    time.sleep(0.05)
    times += len(server.recv())
    assert 5 <= times <= 8  # after 2, 4, 8, 10, 10, … seconds
    client.forget("whole", 0, 0)
    assert len(client._clips) == 1
    server.close()


def test_garbage_and_wrong_kinds_are_ignored(ctx: Context, endpoint: str) -> None:
    server = ResultServer(ctx, endpoint)
    stranger = ctx.socket(zmq.DEALER)
    stranger.connect(endpoint)
    for frames in (
        [b"x"],
        [b""] * 3000,
        [b"\x91" * 60000],
        encode(Ready("a", "b", 1)),
        encode(one_latents()),
    ):
        stranger.send_multipart(frames)
    stranger.send_multipart(encode(one_frame()))
    ((_, message),) = receive(server, 1)
    assert isinstance(message, Frame) and server.malformed == 5
    server.close()


def test_a_confirmation_for_a_worker_that_left_is_dropped(ctx: Context, endpoint: str) -> None:
    server = ResultServer(ctx, endpoint)
    server.confirm_clip(b"nobody", "s", 0, 0)
    server.close()


def test_an_answer_that_is_garbage_is_ignored(ctx: Context, endpoint: str) -> None:
    router = ctx.socket(zmq.ROUTER)
    router.bind(endpoint)
    client = client_of(ctx, endpoint)
    client.send(one_frame())
    until(lambda: [1] if router.poll(0) else [], client)
    key = router.recv_multipart()[0]
    for frames in ([b"x"], [b""] * 10, encode(Ready("a", "b", 1)), encode(Received("s", 0, 5))):
        router.send_multipart([key, *frames])
    router.send_multipart([key, *encode(Received("s", 0, 0))])
    assert until(client.confirmed) == [("s", 0, 0)]


def test_a_worker_whose_connection_ends_is_lost_and_one_that_is_quiet_is_not(
    ctx: Context, endpoint: str
) -> None:
    now = 100.0
    server = ResultServer(ctx, endpoint, clock=lambda: now)
    ends, stays = (ResultClient(ctx, endpoint, stage="gpu_worker", worker=name) for name in "ab")
    for name, client in (("a", ends), ("b", stays)):
        client.send(Status("gpu_worker", name, True, {}, {}))
    receive(server, 2, ends, stays)
    now += 2 * PROBE_AFTER
    assert server.lost_workers() == []
    now += 0.5 * PROBE_AFTER
    assert server.lost_workers() == []  # it does not wake the workers again so soon
    assert stays.socket.poll(2000)
    assert stays.socket.recv_multipart() == [bytes(part) for part in encode(Heartbeat())]
    assert not stays.socket.poll(100)
    now += PROBE_AFTER
    assert server.lost_workers() == []
    assert stays.confirmed() == []  # the probe says nothing to a worker
    ends.close()

    def look() -> list[tuple[str, str]]:
        nonlocal now
        now += 2 * PROBE_AFTER
        return server.lost_workers()

    assert until(look) == [("gpu_worker", "a")]
    now += 60
    assert server.lost_workers() == []
    stays.send(Failed("s", 0, 1, "gpu_worker", "why", False))
    assert len(receive(server, 1, stays)) == 1
