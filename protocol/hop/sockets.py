"""Makes the ZeroMQ sockets between stages: who may connect, how much may arrive, how much is queued."""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
from pathlib import Path

import zmq

from protocol.hop.endpoints import EndpointError, check_endpoint, prepare_run_dir
from protocol.hop.keys import RunKey

#: Messages that a peer's queue holds. Credit keeps real queues far below.
QUEUED = 1000
#: Milliseconds between two tries to connect.
RECONNECT_MS = 100
#: Most messages that one call reads. A flood then cannot keep the caller from its other work.
DRAIN = 256

Context = zmq.Context[zmq.Socket[bytes]]


class BoundRouter:
    """A ROUTER bound at `endpoint`, and for ipc the lock that keeps a second process from taking it over.

    libzmq removes a socket file that stands in its way. Without the lock a second server would cut the first
    off from new workers, and neither would notice.

    Args:
        ctx: makes the socket.
        endpoint: address to bind.
        max_part_bytes: largest part of a message.
        key: the run's, needed for TCP.

    Raises:
        EndpointError: the address is not allowed, is in use, has no key, or its folder is open to others.
    """

    def __init__(
        self, ctx: Context, endpoint: str, *, max_part_bytes: int, key: RunKey | None = None
    ) -> None:
        path = _checked(endpoint, key)
        self._lock = -1 if path is None else _lock(path, endpoint)
        self.socket = _socket(ctx, zmq.ROUTER, max_part_bytes)
        # without it a ROUTER drops a message to a peer that left, and says nothing
        self.socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        if key is not None:
            key.protect_server(self.socket)
        try:
            self.socket.bind(endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise EndpointError(f"{endpoint}: {error.strerror}; is another run using it?") from error

    def close(self) -> None:
        self.socket.close(linger=200)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _checked(endpoint: str, key: RunKey | None) -> Path | None:
    """`check_endpoint`, and a TCP address must have a key, since every local user can connect to it."""
    path = check_endpoint(endpoint)
    if path is None and key is None:
        raise EndpointError(f"{endpoint}: TCP between stages needs the run's key")
    return path


def _lock(path: Path, endpoint: str) -> int:
    prepare_run_dir(path.parent)
    fd = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise EndpointError(
            f"{endpoint} is in use by another process; stop it, or choose another --run-dir or --worker-index"
        ) from None
    if _is_no_socket(path):  # somebody's file, which libzmq would remove
        os.close(fd)
        raise EndpointError(f"{path} is in the way and is no socket; choose another --run-dir")
    return fd


def _is_no_socket(path: Path) -> bool:
    try:
        return not stat.S_ISSOCK(path.lstat().st_mode)
    except FileNotFoundError:
        return False


def dealer(
    ctx: Context, endpoint: str, *, name: str, max_part_bytes: int, key: RunKey | None = None
) -> zmq.Socket[bytes]:
    """A DEALER connected to `endpoint`, now or as soon as somebody binds there.

    Its identity is drawn anew for each process, so a restarted worker is never taken for the one before it.

    Raises:
        EndpointError: the address is not allowed, has no key, or its folder is open to others.
    """
    path = _checked(endpoint, key)
    if path is not None:
        prepare_run_dir(path.parent)
    socket = _socket(ctx, zmq.DEALER, max_part_bytes)
    socket.setsockopt(zmq.IDENTITY, f"{name}.{secrets.token_hex(6)}".encode())
    # without it libzmq queues messages for a server that is not there, and nobody learns of it
    socket.setsockopt(zmq.IMMEDIATE, 1)
    socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
    if key is not None:
        key.protect_client(socket)
    socket.connect(endpoint)
    return socket


def _socket(ctx: Context, kind: int, max_part_bytes: int) -> zmq.Socket[bytes]:
    socket = ctx.socket(kind)
    socket.setsockopt(zmq.MAXMSGSIZE, max_part_bytes)  # of one part, so `receive` counts the parts
    socket.setsockopt(zmq.SNDHWM, QUEUED)
    socket.setsockopt(zmq.RCVHWM, QUEUED)
    socket.setsockopt(zmq.LINGER, 200)
    return socket


def receive(socket: zmq.Socket[bytes], max_parts: int) -> list[bytes] | None:
    """The parts of one message without waiting, or None if there is no message.

    Of a longer message `max_parts` + 1 parts are kept, so that it still shows as too long.
    """
    try:
        parts = [socket.recv(zmq.NOBLOCK)]
    except zmq.Again:
        return None
    while socket.getsockopt(zmq.RCVMORE):
        part = socket.recv(zmq.NOBLOCK)
        if len(parts) <= max_parts:
            parts.append(part)
    return parts


def send(socket: zmq.Socket[bytes], parts: list[bytes | memoryview]) -> bool:
    """Send without waiting. Returns False if the peer is gone, is not there yet, or has a full queue."""
    try:
        # copied: the caller may write to the buffers again
        socket.send_multipart(parts, zmq.NOBLOCK, copy=True)
    except zmq.Again:
        return False
    except zmq.ZMQError as error:
        if error.errno == zmq.EHOSTUNREACH:
            return False
        raise
    return True
