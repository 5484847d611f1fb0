from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import hypothesis
import pytest
import zmq

from protocol.hop.client import HopClient
from protocol.hop.server import HopEvent, HopServer
from protocol.process.settings import ROOT

# how long an example takes says more about what else the machine does than about the code
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")


@pytest.fixture
def ctx() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    context.setsockopt(zmq.LINGER, 0)  # for the sockets tests make themselves
    yield context
    context.destroy(linger=0)


@pytest.fixture
def run_dir() -> Iterator[Path]:
    """A short path, as socket paths must be, open to this user only."""
    with TemporaryDirectory(prefix="em-") as folder:
        yield Path(folder)


@pytest.fixture
def endpoint(run_dir: Path) -> str:
    return f"ipc://{run_dir}/hop"


@pytest.fixture(params=["ipc", "tcp"])
def any_endpoint(request: pytest.FixtureRequest, endpoint: str) -> str:
    if request.param == "ipc":
        return endpoint
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{probe.getsockname()[1]}"


Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts worker processes and ends those that are left."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(*args: object, module: str = "tests.protocol.hop_worker") -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", module, *map(str, args)]
        started.append(subprocess.Popen(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}))
        return started[-1]

    yield begin
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait()


def drive(
    server: HopServer, until: Callable[[list[HopEvent]], bool], *, seconds: float = 10.0
) -> tuple[list[HopEvent], float]:
    """Run a server until its events satisfy `until`; gives the events and how long it took."""
    events: list[HopEvent] = []
    begin = time.monotonic()
    while not until(events):
        if time.monotonic() - begin > seconds:
            pytest.fail(f"not within {seconds} s; the last events: {events[-5:]}; {server.stats()}")
        server.socket.poll(20)
        events += server.tick()
    return events, time.monotonic() - begin


def client_of(ctx: zmq.Context[zmq.Socket[bytes]], endpoint: str, **options: object) -> HopClient:
    options = {"stage": "worker", "worker": "0", "credit": 2, "heartbeat_every": 0.02} | options
    return HopClient(ctx, [endpoint], **options)  # type: ignore[arg-type]
