"""Addresses of sockets: the allowed ones, and the folder of their files. No ZeroMQ."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from urllib.parse import urlsplit

from protocol.hop.run_folder import make_folder

#: Names of this machine's own address, the only one that TCP sockets may use.
LOOPBACK = ("127.0.0.1", "::1", "localhost")
#: Longest path of an ipc socket, in bytes: `sun_path` of `sockaddr_un`, less its closing NUL.
IPC_PATH_BYTES = 107

#: Name of the file in the run folder that holds the key of a run over TCP.
KEY_FILE = "hop.key"
#: Bytes of that file: both halves as Z85 text and a newline.
MAX_KEY_BYTES = 81
#: Name of the file in the run folder with the key that signs the gateway's resume tokens, and its bytes.
RESUME_KEY_FILE = "resume.key"
RESUME_KEY_BYTES = 32


class EndpointError(RuntimeError):
    """A socket cannot be had at this endpoint. The text says why and what to do."""


def prepare_run_dir(path: Path) -> None:
    """Make sure that only this user can enter the folder `path`, so that only this user reaches the sockets.

    A missing folder is made and marked. An existing one stays as it is.

    Raises:
        EndpointError: others can enter it, or it is no folder of this user's.
    """
    advice = "choose another with --run-dir"
    try:
        make_folder(path)
        info = path.lstat()
    except OSError as error:
        raise EndpointError(f"run folder {path}: {error.strerror}; {advice}") from error
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid():
        raise EndpointError(f"run folder {path} is not a folder of this user's; {advice}")
    if stat.S_IMODE(info.st_mode) & 0o077:
        raise EndpointError(f"run folder {path} is open to other users; run chmod 700 on it, or {advice}")


def check_endpoint(endpoint: str) -> Path | None:
    """Check an address.

    Returns:
        The path of the socket for ipc, None for tcp on loopback.

    Raises:
        EndpointError: it is neither, or the path is relative or too long.
    """
    if endpoint.startswith("ipc://"):
        path = Path(endpoint.removeprefix("ipc://"))
        size = len(os.fsencode(path))
        if not path.is_absolute():
            raise EndpointError(f"{endpoint}: not an absolute path")
        if size > IPC_PATH_BYTES:
            raise EndpointError(
                f"{endpoint}: the path has {size} bytes and the system takes {IPC_PATH_BYTES};"
                " choose a shorter --run-dir"
            )
        return path
    if endpoint.startswith("tcp://") and urlsplit(endpoint).hostname in LOOPBACK:
        return None
    raise EndpointError(f"{endpoint}: stages talk over ipc:// or over tcp:// on loopback only")
