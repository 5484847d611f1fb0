"""Floods of a gateway beside a client that speaks: their cost for this client, and the memory they leave."""

from __future__ import annotations

import base64
import resource
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress

import numpy as np
import psutil

from protocol.wire.messages import Samples
from scripts.run.managed import ROOT, ManagedRun
from scripts.torture.faults import Figure, Viewing, worker_pids

#: Seconds of a flood, and of the quiet before and after it.
FLOOD = 10.0
QUIET = 6.0


def upgrade_request(port: int) -> bytes:
    """A websocket's opening handshake."""
    key = base64.b64encode(b"sixteen bytes :)").decode()
    lines = [
        "GET /ws HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key}",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Protocol: echomimic-live.v2",
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def upgrades(port: int, until: float) -> float:
    """Open 500 websockets a second and leave each at once. Returns how many there were a second."""
    request, began, count = upgrade_request(port), time.monotonic(), 0
    while (now := time.monotonic()) < until:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=2) as client:
            client.sendall(request)
        count += 1
        time.sleep(max(0.0, began + count / 500 - now))
    return count / (time.monotonic() - began)


def pings(port: int, until: float) -> float:
    """Write pings as fast as they go, on a new websocket when one is closed. Returns pings a second."""
    frame = b"\x89\x84\0\0\0\0ping"  # a masked ping of four bytes
    began, sent = time.monotonic(), 0
    while time.monotonic() < until:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=2) as client:
            client.sendall(upgrade_request(port))
            client.settimeout(0.5)
            client.recv(4096)
            while time.monotonic() < until:
                sent += client.send(frame * 4096) // len(frame)
    return sent / (time.monotonic() - began)


def silent_connections(port: int, until: float) -> float:
    """Open connections that say nothing, as many as descriptors allow. Returns the most that were open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    most, open_ones = 0, 0
    with ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        while time.monotonic() < until:
            if open_ones < soft - 200:
                with suppress(OSError):
                    client = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=1))
                    client.setblocking(False)
                    selector.register(client, selectors.EVENT_READ)
                    open_ones += 1
            for key, _ in selector.select(0):  # the server has closed it
                selector.unregister(key.fileobj)
                open_ones -= 1
            most = max(most, open_ones)
            time.sleep(0.002)
    return float(most)


#: The floods by name: each does its worst until a time of `time.monotonic` and returns a figure.
FLOODS: dict[str, Callable[[int, float], float]] = {
    "upgrades": upgrades,
    "pings": pings,
    "connections": silent_connections,
}


def in_own_process(name: str, port: int, seconds: float) -> float:
    """Run a flood where it takes no time from the client that watches. Returns its figure."""
    command = [sys.executable, "-m", "scripts.torture.floods", name, str(port), str(seconds)]
    return float(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)


def flood(name: str, unit: str, voice: Samples, *flags: str) -> list[Figure]:
    """A client speaks, the flood comes and goes. The figures compare during and before."""
    with ManagedRun(*flags) as run:
        gateway = worker_pids(run, "gateway")[0]
        with Viewing(run.url, voice) as viewing:
            time.sleep(QUIET)
            before = resident_mb(gateway)
            began = time.monotonic()
            rate = in_own_process(name, run.port, FLOOD)
            ended = time.monotonic()
            time.sleep(QUIET)
            after = resident_mb(gateway)
    stream = viewing.stream
    quiet = lateness(stream.arrivals, began - QUIET + 1.5, began)
    flooded = lateness(stream.arrivals, began, ended)
    return [
        Figure(unit, rate, None, "n"),
        Figure("p99 of the frames' delay, more than before", flooded - quiet, 0.05),
        Figure("frames passed over as too late", stream.passed_over, None, "n"),
        Figure("samples of sound lost", stream.sent - len(stream.heard), 0, "n"),
        Figure("megabytes that the gateway keeps afterwards", after - before, 5.0, "n"),
    ]


def lateness(arrivals: list[tuple[float, float]], since: float, until: float) -> float:
    """99th percentile of the delays from a clip's last sample to its frames' arrival, in seconds."""
    delays = [delay for at, delay in arrivals if since <= at < until]
    return float(np.percentile(delays, 99)) if delays else float("inf")


def resident_mb(pid: int) -> float:
    """Resident memory of a process in megabytes."""
    return float(psutil.Process(pid).memory_info().rss) / 1e6


def flood_of_upgrades(voice: Samples, *flags: str) -> list[Figure]:
    """500 websockets a second are opened and left."""
    return flood("upgrades", "upgrades a second", voice, *flags)


def flood_of_pings(voice: Samples, *flags: str) -> list[Figure]:
    """A client sends nothing but pings."""
    return flood("pings", "pings written a second", voice, *flags)


def flood_of_connections(voice: Samples, *flags: str) -> list[Figure]:
    """Connections that say nothing, as many as there are descriptors."""
    return flood("connections", "connections open at once", voice, *flags)


if __name__ == "__main__":
    print(FLOODS[sys.argv[1]](int(sys.argv[2]), time.monotonic() + float(sys.argv[3])))
