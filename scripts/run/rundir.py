"""The folder of one run: claimed by one supervisor at a time, empty and gone afterwards.

The rule for `--run-dir`, which keeps everybody's own files safe:

* A folder that does not exist is made with mode 0700 and marked (`protocol.hop.run_folder`).
* A folder with the mark is used again. The rest of a killed run in it is removed.
* An empty folder of this user's that is closed to others is taken and marked. It stays when the run ends.
* A folder without the mark that holds nothing but dead sockets and locks of a run is treated the same way.
  Versions before the mark left such folders when they were killed. The default place is removed at the end.
* Any other folder is refused, and nothing in it changes.

Files that nobody knows in a marked folder are kept, and the folder with them.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
import stat
import time
from pathlib import Path

from protocol.hop.endpoints import KEY_FILE, MAX_KEY_BYTES, RESUME_KEY_FILE
from protocol.hop.run_folder import MARK, Origin, make_folder, open_folder, read_mark, write_mark
from protocol.process.addresses import bind_socket, bracketed
from protocol.process.settings import default_run_dir
from protocol.process.voices import VOICE_WANTED_FILE

LOCK = "run.lock"
POSES = "poses"
_SOCKET = re.compile(r"pcm|results|sentences|(clips|latents)\.\d+")
# The lock of a socket, or the file that asks for a worker that is started on demand.
_SOCKET_LOCK = re.compile(rf"({_SOCKET.pattern})\.lock|{re.escape(VOICE_WANTED_FILE)}")
# Keys of a run, and half-written keys of a process that was killed.
_KEY = re.compile(rf"({re.escape(KEY_FILE)}|{re.escape(RESUME_KEY_FILE)})(\.[0-9a-f]{{8}})?")
# Converted poses, and compiled code where there is no home.
_SUBFOLDER = re.compile(rf"({POSES}|compiled)(-\d+)?")
_MAX_PID_BYTES = 32
_CLAIM_TRIES = 5
_LOCK_PATIENCE = 0.5
_ADVICE = "choose another with --run-dir"


class RunDirError(RuntimeError):
    """The run cannot have its folder or its port. The text says why and gives a remedy."""


class RunDir:
    """Holds `path` (mode 0700) for this process, as a context manager.

    The claim is a lock of the kernel's, so a supervisor that was killed leaves nothing to clear by hand: the
    next one takes the lock and removes the sockets that were left.

    Raises:
        RunDirError: another run has the folder, or the module's rule refuses it.
    """

    def __init__(self, path: Path, port: int) -> None:
        self.path = path
        self._port = port
        self._fd = -1
        self._dir = -1
        self._origin = Origin.TAKEN

    def __enter__(self) -> RunDir:
        try:
            for left in reversed(range(_CLAIM_TRIES)):
                try:
                    self._claim()
                    return self
                except FileNotFoundError:  # the run before removed the folder after we opened it
                    if not left:
                        raise
        except OSError as error:
            raise RunDirError(f"run folder {self.path}: {error.strerror}; {_ADVICE}") from error
        raise AssertionError("the last try returns or raises")

    def __exit__(self, *_exc: object) -> None:
        try:
            self._clear()
            self._let_go()
        except OSError:  # the user removed or closed the folder during the run: nothing is left to do
            pass
        finally:
            os.close(self._fd)
            os.close(self._dir)

    def _claim(self) -> None:
        """Open, check, lock, mark and clear the folder: nothing in it changes before the check has passed."""
        make_folder(self.path)
        self._dir = self._open()
        try:
            origin = self._check()
            self._fd = self._lock()
            mark = read_mark(self._dir)
            if mark is None:
                self._remove(MARK)  # an empty one: its run was killed while writing
                write_mark(self._dir, origin)
            self._origin = mark or origin
            if self._origin is Origin.MADE:
                os.fchmod(self._dir, 0o700)
            self._clear()
        except BaseException:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1
            os.close(self._dir)
            raise

    def _open(self) -> int:
        try:
            return open_folder(self.path)
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                raise self._refused("is not a folder (a link is not followed)", _ADVICE) from error
            raise

    def _check(self) -> Origin:
        """The folder's owner by the module's rule. Raises RunDirError if it is somebody else's."""
        info = os.fstat(self._dir)
        if info.st_uid != os.getuid():
            raise self._refused("belongs to another user", _ADVICE)
        mark = read_mark(self._dir)
        if mark is Origin.MADE:
            return mark
        names = os.listdir(self._dir)
        if mark is None and not all(self._left_by_a_run(name, names) for name in names):
            raise self._refused(
                "holds files that no run made, and nothing in it was changed",
                "--run-dir takes a folder that does not exist yet, or an empty one",
            )
        if stat.S_IMODE(info.st_mode) & 0o077:
            raise self._refused("is open to other users", f"run chmod 700 on it, or {_ADVICE}")
        return Origin.MADE if mark is None and names and self._is_default else Origin.TAKEN

    @property
    def _is_default(self) -> bool:
        return self.path == default_run_dir(self._port)

    def _refused(self, why: str, advice: str) -> RunDirError:
        return RunDirError(f"run folder {self.path} {why}; {advice}")

    def _left_by_a_run(self, name: str, names: list[str]) -> bool:
        """Whether an entry of a folder without a mark can only be a run's, because of its name and kind."""
        if self._is_socket_or_lock(name):
            return True
        info = self._info(name)
        if info is None:
            return True
        if name == MARK:
            return stat.S_ISREG(info.st_mode) and info.st_size == 0
        if name == LOCK:
            return stat.S_ISREG(info.st_mode) and info.st_size <= _MAX_PID_BYTES
        # versions before the mark left these in the default place; they are kept: nothing says whose they are
        return self._is_default and LOCK in names and bool(_SUBFOLDER.fullmatch(name))

    def _is_socket_or_lock(self, name: str) -> bool:
        info = self._info(name)
        if info is None:
            return False
        if _SOCKET.fullmatch(name):
            return stat.S_ISSOCK(info.st_mode)
        return bool(_SOCKET_LOCK.fullmatch(name)) and stat.S_ISREG(info.st_mode) and info.st_size == 0

    def _is_key(self, name: str) -> bool:
        info = self._info(name)
        small = info is not None and stat.S_ISREG(info.st_mode) and info.st_size <= MAX_KEY_BYTES
        return small and bool(_KEY.fullmatch(name))

    def _info(self, name: str) -> os.stat_result | None:
        try:
            return os.stat(name, dir_fd=self._dir, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def _lock(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        # A run that ends, or the guard of one that was killed, lets go in a moment.
        patience = time.monotonic() + _LOCK_PATIENCE
        while True:
            fd = os.open(LOCK, flags, 0o600, dir_fd=self._dir)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() < patience:
                    os.close(fd)
                    time.sleep(0.05)
                    continue
                owner = os.read(fd, _MAX_PID_BYTES).decode("ascii", "replace").strip() or "unknown"
                os.close(fd)
                raise RunDirError(
                    f"a run for port {self._port} is up already (process {owner}, folder {self.path});"
                    " stop it with Ctrl-C or choose another --port"
                ) from None
            # the owner before us may have removed the file between our open and our lock
            info = self._info(LOCK)
            if info is not None and os.path.samestat(info, os.fstat(fd)):
                os.ftruncate(fd, 0)
                os.write(fd, f"{os.getpid()}\n".encode())
                return fd
            os.close(fd)

    def _clear(self) -> None:
        """Remove sockets, locks, keys and marked subfolders, which runs put here, and nothing else."""
        for name in os.listdir(self._dir):
            if self._is_socket_or_lock(name) or self._is_key(name):
                self._remove(name)
            elif _SUBFOLDER.fullmatch(name):
                _remove_if_marked(self.path / name)

    def _let_go(self) -> None:
        """Remove the lock, and where nothing else is left the mark, and the folder if a run made it."""
        rest = set(os.listdir(self._dir)) - {LOCK, MARK}
        self._remove(LOCK)
        if rest:
            return
        self._remove(MARK)
        if self._origin is Origin.TAKEN or not os.path.samestat(self.path.lstat(), os.fstat(self._dir)):
            return
        try:
            self.path.rmdir()
        except OSError:  # a worker that was started by hand put something here just now
            write_mark(self._dir, Origin.MADE)

    def _remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._dir)


def make_subfolder(run_dir: Path, name: str) -> Path:
    """Make and mark a folder in the run folder: `name`, or `name-1` and so on where that is taken.

    Raises:
        OSError: the folder cannot be made.
    """
    path, number = run_dir / name, 0
    while not make_folder(path):
        number += 1
        path = run_dir / f"{name}-{number}"
    return path


def _remove_if_marked(path: Path) -> None:
    """Remove the folder with all that is in it if a run made it. Symbolic links are removed, not followed."""
    try:
        folder = open_folder(path)
    except OSError:
        return
    try:
        made = read_mark(folder) is Origin.MADE
    finally:
        os.close(folder)
    if not made:
        return
    for entry in list(os.scandir(path)):  # the mark goes last: a killed removal can go on later
        if entry.name == MARK:
            continue
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, ignore_errors=True)
        else:
            Path(entry.path).unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)


def check_port_free(host: str, port: int) -> None:
    """Raise `RunDirError` naming `port` when another program listens there, or the address cannot be had."""
    try:
        bind_socket(host, port).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise RunDirError(
                f"port {port} is in use on {host}: is echomimic-live running already?"
                " Stop it with Ctrl-C, or choose another port with --port"
            ) from error
        raise RunDirError(
            f"cannot listen on {bracketed(host)}:{port}: {error.strerror}; choose --host and --port"
        ) from error
