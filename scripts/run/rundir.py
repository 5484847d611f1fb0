"""The folder of one run: claimed by one supervisor at a time, empty and gone afterwards."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import socket
import stat
from pathlib import Path

LOCK = "run.lock"
POSES = "poses"
# What the stages put beside it: their sockets, the sockets' locks, compiled code where there is no home.
_OURS = re.compile(r"(pcm|results|(clips|latents)\.\d+)(\.lock)?")
_FOLDERS = (POSES, "compiled")


class RunDirError(RuntimeError):
    """The run cannot have its folder or its port; the text says why and what to do."""


class RunDir:
    """Holds ``path`` (mode 0700) for this process, as a context manager.

    The claim is a lock of the kernel's, so a supervisor that was killed leaves nothing to clear by hand: the
    next one takes the lock and removes the sockets that were left.
    """

    def __init__(self, path: Path, port: int) -> None:
        self.path = path
        self._port = port
        self._fd = -1

    def __enter__(self) -> RunDir:
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            info = self.path.lstat()
        except OSError as error:
            raise RunDirError(
                f"run folder {self.path}: {error.strerror}; choose another with --run-dir"
            ) from error
        if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid():
            raise RunDirError(
                f"run folder {self.path} is not a folder of this user's; choose another with --run-dir"
            )
        self.path.chmod(0o700)
        self._fd = self._lock()
        self._clear(keep_lock=True)
        return self

    def __exit__(self, *_exc: object) -> None:
        self._clear(keep_lock=False)
        os.close(self._fd)

    def _lock(self) -> int:
        file = self.path / LOCK
        while True:
            fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                owner = os.read(fd, 32).decode("ascii", "replace").strip() or "unknown"
                os.close(fd)
                raise RunDirError(
                    f"a run for port {self._port} is up already (process {owner}, folder {self.path});"
                    " stop it with Ctrl-C or choose another --port"
                ) from None
            try:  # the owner before us may have removed the file between our open and our lock
                same = os.stat(file).st_ino == os.fstat(fd).st_ino
            except FileNotFoundError:
                same = False
            if same:
                os.ftruncate(fd, 0)
                os.write(fd, f"{os.getpid()}\n".encode())
                return fd
            os.close(fd)

    def _clear(self, *, keep_lock: bool) -> None:
        """Remove what a run puts here, and nothing else: the folder may be one the user named."""
        for name in _FOLDERS:
            shutil.rmtree(self.path / name, ignore_errors=True)
        for entry in list(self.path.iterdir()):
            if _OURS.fullmatch(entry.name):
                entry.unlink(missing_ok=True)
        if not keep_lock:
            (self.path / LOCK).unlink(missing_ok=True)
            try:
                self.path.rmdir()
            except OSError:
                pass


def check_port_free(host: str, port: int) -> None:
    """Raise `RunDirError` naming ``port`` when another program listens there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise RunDirError(
                    f"port {port} is in use on {host}: is echomimic-live running already?"
                    " Stop it with Ctrl-C, or choose another port with --port"
                ) from error
            raise RunDirError(
                f"cannot listen on {host}:{port}: {error.strerror}; choose --host and --port"
            ) from error
