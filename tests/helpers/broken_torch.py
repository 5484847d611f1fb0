"""Pythons whose torch is installed, and fails when it is imported."""

from __future__ import annotations

from pathlib import Path

#: Torch ends as the kernel ends a process that takes too much memory, or its libraries do not load.
KILLED = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n"
UNLOADABLE = "raise OSError('libtorch_cpu.so: cannot allocate memory in static TLS block')\n"


def break_torch(folder: Path, program: str) -> Path:
    """Writes a folder that replaces torch in every Python which has it on PYTHONPATH. Returns it.

    Args:
        folder: to be written.
        program: of the module `torch`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "torch.py").write_text(program, encoding="utf-8")
    return folder
