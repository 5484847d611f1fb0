"""Clears a run's folder when its launcher is killed with a signal that nobody can answer.

    python scripts/run/start.py scripts.run.guard RUN_DIR PORT     its input is a pipe

The process sleeps until the pipe ends. A byte in it says that the launcher clears up itself. Without one the
launcher is gone, the kernel has killed its stages, and what is left of the run in its folder is removed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from scripts.run.start import command_of


@contextmanager
def guarded(run_dir: Path, port: int) -> Iterator[None]:
    """Have the folder cleared if this process is killed in the `with` block."""
    try:
        guard = subprocess.Popen(
            command_of(sys.executable, "scripts.run.guard", str(run_dir), str(port)),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # whoever kills the launcher's group leaves it alive
            cwd="/",
        )
    except OSError:  # no process is left for it, and the next run clears the folder anyway
        yield
        return
    guard.wait()  # its child goes on alone, so the launcher has no children but stages
    assert guard.stdin is not None
    try:
        yield
    finally:
        with suppress(OSError):
            guard.stdin.write(b".")
            guard.stdin.close()


def main() -> int:
    """Wait for the launcher's end. Returns the exit status."""
    if os.fork():
        os._exit(0)
    if os.read(0, 1):
        return 0
    from scripts.run.rundir import RunDir, RunDirError  # only now: until here it takes no memory

    # Another run may have taken the folder by now, and then it is that run's.
    with suppress(RunDirError), RunDir(Path(sys.argv[1]), int(sys.argv[2])):
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
