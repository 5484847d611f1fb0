"""Hops over TCP: without the key, another user of the machine joins nothing, hears nothing, says nothing."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import zmq

from protocol.hop.client import HopClient
from protocol.hop.endpoints import KEY_FILE, EndpointError
from protocol.hop.keys import RunKey, load_key
from protocol.hop.results import ResultClient, ResultServer
from protocol.hop.server import HopServer
from protocol.process.settings import ROOT, Settings
from protocol.wire.codec import encode
from protocol.wire.messages import Close, Pcm, Ready, Status
from tests.protocol.samples import one_pcm

Context = zmq.Context[zmq.Socket[bytes]]


@pytest.fixture
def url() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{probe.getsockname()[1]}"


def stranger(ctx: Context, url: str, server_key: bytes | None) -> zmq.Socket[bytes]:
    """Another user's socket: in the clear, or with a key of their own making."""
    sock = ctx.socket(zmq.DEALER)
    sock.setsockopt(zmq.LINGER, 0)
    if server_key is not None:
        public, secret = zmq.curve_keypair()
        sock.setsockopt(zmq.CURVE_SERVERKEY, server_key)
        sock.setsockopt(zmq.CURVE_PUBLICKEY, public)
        sock.setsockopt(zmq.CURVE_SECRETKEY, secret)
    sock.connect(url)
    return sock


@pytest.mark.parametrize("guess", [None, zmq.curve_keypair()[0]], ids=["no key", "another key"])
def test_a_stranger_gets_no_sound_and_ends_nothing(
    ctx: Context, url: str, run_dir: Path, guess: bytes | None
) -> None:
    key = load_key(run_dir)
    server = HopServer(ctx, url, sticky=True, dead_after=5, key=key)
    own = HopClient(ctx, [url], stage="audio_worker", worker="0", credit=2, heartbeat_every=0.02, key=key)
    intruder = stranger(ctx, url, guess)
    intruder.send_multipart(encode(Ready("audio_worker", "thief", 64)))
    intruder.send_multipart(encode(Close("s", 0)))
    heard = 0
    for number in range(50):
        own.heartbeat()
        for job in own.recv():
            heard += isinstance(job.msg, Pcm)
            own.ack(job)
        if server.workers and number % 5 == 0 and heard < 3:
            server.dispatch(one_pcm("s", number))
        server.tick()
        assert server.workers <= 1
        assert not intruder.poll(20)
    assert heard >= 3
    server.close()
    own.close()


@pytest.mark.parametrize("guess", [None, zmq.curve_keypair()[0]], ids=["no key", "another key"])
def test_a_strangers_status_is_not_heard(ctx: Context, url: str, run_dir: Path, guess: bytes | None) -> None:
    key = load_key(run_dir)
    server = ResultServer(ctx, url, key=key)
    intruder = stranger(ctx, url, guess)
    intruder.send_multipart(encode(Status("gpu_worker", "forged", True, {"fps": 1}, {})))
    own = ResultClient(ctx, url, stage="gpu_worker", worker="0", key=key)
    heard: list[object] = []
    end = time.monotonic() + 5
    while not heard and time.monotonic() < end:
        own.send(Status("gpu_worker", "0", True, {"fps": 24}, {}))
        server.socket.poll(50)
        heard += [message for _, message in server.recv()]
    server.socket.poll(200)
    heard += [message for _, message in server.recv()]
    assert heard
    assert {message.worker for message in heard if isinstance(message, Status)} == {"0"}
    server.close()


def test_a_worker_gives_nothing_to_a_server_that_took_the_port_first(
    ctx: Context, url: str, run_dir: Path
) -> None:
    thief = ctx.socket(zmq.ROUTER)
    thief.bind(url)
    own = HopClient(
        ctx,
        [url],
        stage="audio_worker",
        worker="0",
        credit=2,
        heartbeat_every=0.02,
        key=load_key(run_dir),
    )
    for _ in range(15):
        own.heartbeat()
        assert not thief.poll(20)
    own.close()


def test_tcp_without_a_key_is_refused(ctx: Context, url: str) -> None:
    with pytest.raises(EndpointError, match="needs the run's key"):
        HopServer(ctx, url, sticky=True, dead_after=5)
    with pytest.raises(EndpointError, match="needs the run's key"):
        HopClient(ctx, [url], stage="audio_worker", worker="0", credit=2)


def test_the_key_is_this_users_alone_and_the_same_for_all(run_dir: Path) -> None:
    key = load_key(run_dir)
    assert (run_dir / KEY_FILE).stat().st_mode & 0o777 == 0o600
    assert load_key(run_dir) == key
    assert key.secret.decode() not in repr(key)
    assert os.listdir(run_dir) == [KEY_FILE]


def test_processes_that_start_together_agree_on_one_key(run_dir: Path) -> None:
    code = "import sys; from pathlib import Path; from protocol.hop.keys import load_key; "
    code += "print(load_key(Path(sys.argv[1])).public.decode())"
    command = [sys.executable, "-c", code, str(run_dir)]
    started = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    printed = {process.communicate(timeout=60)[0] for process in started}
    assert printed == {f"{load_key(run_dir).public.decode()}\n"}


@pytest.mark.parametrize(
    ("content", "mode", "why"),
    [
        (b"", 0o600, "no key"),
        (b"x" * 81, 0o600, "no key"),
        (b"\n".join(zmq.curve_keypair()[:1] * 2), 0o600, "no key"),
        (b"\n".join(zmq.curve_keypair()), 0o640, "only this user"),
    ],
    ids=["empty", "other bytes", "no pair", "readable by others"],
)
def test_a_file_that_is_no_key_is_told(run_dir: Path, content: bytes, mode: int, why: str) -> None:
    (run_dir / KEY_FILE).write_bytes(content)
    (run_dir / KEY_FILE).chmod(mode)
    with pytest.raises(EndpointError, match=why):
        load_key(run_dir)


def test_a_link_is_not_followed(run_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"\n".join(zmq.curve_keypair()))
    (tmp_path / "key").chmod(0o600)
    (run_dir / KEY_FILE).symlink_to(tmp_path / "key")
    with pytest.raises(EndpointError, match=KEY_FILE):
        load_key(run_dir)


def test_settings_give_a_key_with_tcp_alone(run_dir: Path) -> None:
    assert Settings(run_dir=run_dir).hop_key() is None
    assert isinstance(Settings(run_dir=run_dir, transport="tcp").hop_key(), RunKey)
