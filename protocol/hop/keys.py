"""The key of a run whose stages talk over TCP.

Every user of a machine can connect to a TCP port on loopback. So each TCP socket is encrypted with CURVE
(https://rfc.zeromq.org/spec/26/), and the server's key pair lies in a file of the run folder that only this
user can read. The public half is kept as secret as the other: a client cannot begin without it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import zmq

from protocol.hop.endpoints import KEY_FILE, MAX_KEY_BYTES, EndpointError, prepare_run_dir
from protocol.hop.private_file import PrivateFileError, read_or_make

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
        text = read_or_make(path, lambda: b"\n".join(zmq.curve_keypair()), MAX_KEY_BYTES)
    except PrivateFileError as error:
        raise EndpointError(str(error)) from error
    except OSError as error:
        raise EndpointError(f"{path}: {error.strerror}; choose another folder with --run-dir") from error
    public, _, secret = text.partition(b"\n")
    try:
        if len(secret) == _HALF_BYTES and zmq.curve_public(secret) == public:
            return RunKey(public, secret)
    except (zmq.ZMQError, ValueError):
        pass
    raise EndpointError(f"{path} holds no key of a run; remove it and start the run again")
