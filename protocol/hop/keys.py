"""The key of a run whose stages talk over TCP.

Every user of a machine can connect to a TCP port on loopback. So each TCP socket is encrypted with CURVE
(https://rfc.zeromq.org/spec/26/), and the server's key pair lies in a file of the run folder that only this
user can read. The public half is kept as secret as the other: a client cannot begin without it.
"""

from __future__ import annotations

import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path

import zmq

from protocol.hop.endpoints import KEY_FILE, MAX_KEY_BYTES, EndpointError, prepare_run_dir

_HALF_BYTES = 40  # of one half, as Z85 text


@dataclass(frozen=True, repr=False)
class RunKey:
    """The key pair of every server of a run, each half 40 bytes of Z85 text."""

    public: bytes
    secret: bytes

    def protect_server(self, socket: zmq.Socket[bytes]) -> None:
        """Let only those connect to `socket` that have the run's key. Call it before `bind`."""
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt(zmq.CURVE_PUBLICKEY, self.public)
        socket.setsockopt(zmq.CURVE_SECRETKEY, self.secret)

    def protect_client(self, socket: zmq.Socket[bytes]) -> None:
        """Let `socket` talk to the run's servers alone. Call it before `connect`."""
        own_public, own_secret = zmq.curve_keypair()
        socket.setsockopt(zmq.CURVE_SERVERKEY, self.public)
        socket.setsockopt(zmq.CURVE_PUBLICKEY, own_public)
        socket.setsockopt(zmq.CURVE_SECRETKEY, own_secret)


def load_key(run_dir: Path) -> RunKey:
    """The key of the run in `run_dir`. The first process that asks makes it.

    Raises:
        EndpointError: others can enter the folder or read the key, or its file holds something else.
    """
    prepare_run_dir(run_dir)
    path = run_dir / KEY_FILE
    try:
        if not path.exists():
            _make_key(path)
        return _read_key(path)
    except OSError as error:
        raise EndpointError(f"{path}: {error.strerror}; choose another folder with --run-dir") from error


def _make_key(path: Path) -> None:
    """Write a new key. One that another process wrote first stays, and nobody ever sees half a key."""
    new = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(b"\n".join(zmq.curve_keypair()))
        os.link(new, path)
    except FileExistsError:
        pass
    finally:
        new.unlink()


def _read_key(path: Path) -> RunKey:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        info = os.fstat(fd)
        if info.st_uid != os.getuid() or not stat.S_ISREG(info.st_mode) or info.st_mode & 0o077:
            raise EndpointError(
                f"{path} is not a file that only this user can read; remove it and start the run again"
            )
        text = file.read(MAX_KEY_BYTES + 1)
    public, _, secret = text.partition(b"\n")
    try:
        if len(secret) == _HALF_BYTES and zmq.curve_public(secret) == public:
            return RunKey(public, secret)
    except (zmq.ZMQError, ValueError):
        pass
    raise EndpointError(f"{path} holds no key of a run; remove it and start the run again")
