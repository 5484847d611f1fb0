"""The folder of files that a start makes and the next one uses, such as compiled code."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from protocol.hop.run_folder import make_folder
from protocol.process.settings import Settings


def kept_folder(settings: Settings, name: str) -> Path:
    """The folder `name` in the user's cache or, where that cannot be written, in the run's folder.

    The folder is made if it does not exist. If that fails, writing to it fails later.
    """
    try:
        folder = Path.home() / ".cache" / "echomimic-live" / name
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError
    except (OSError, RuntimeError):  # RuntimeError: the user has no home
        folder = settings.run_dir / "compiled"
        with suppress(OSError):
            make_folder(settings.run_dir)
            make_folder(folder)  # marked, so that the run's end removes it
    return folder


def write_whole(file: Path, content: bytes) -> None:
    """Writes a file under its name at once, so that no other process reads half of it.

    Raises:
        OSError: it cannot be written, as on a full disk. Nothing is left.
    """
    with tempfile.NamedTemporaryFile(dir=file.parent, prefix=".", delete=False) as new:
        try:
            new.write(content)
            new.flush()
            os.replace(new.name, file)
        except OSError:
            Path(new.name).unlink(missing_ok=True)
            raise
