"""The rate that an earlier GPU worker of this run was given, for the one that replaces it.

A trial takes seconds in which a session waits for pictures, and the rate follows the machine anyway.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from gpu_worker.rate.trial import RateChoice
from protocol.hop.run_folder import make_folder
from protocol.model.kept_record import read_record, write_record
from protocol.process.settings import Settings


class KeptRate:
    """The record of one place among the run's GPU workers.

    Args:
        settings: of this worker.
    """

    def __init__(self, settings: Settings) -> None:
        # The run's end removes this folder, since it is marked.
        self._folder: Path = settings.run_dir / "compiled"
        self._name = f"rate-{settings.worker_index}"
        self._facts = {
            # Another run, or a worker that was started by hand, has another parent.
            "parent": os.getppid(),
            "config": str(settings.config),
            "fps": settings.fps,
            "clip_frames": settings.frames_a_clip,
            "size": [settings.width, settings.height],
        }

    def load(self) -> RateChoice | None:
        """The rate of the worker before, or None for the first one."""
        record = read_record(self._folder, self._name)
        if record is None or {key: record.get(key) for key in self._facts} != self._facts:
            return None
        fps, seconds, notice = (record.get(key) for key in ("rate", "clip_seconds", "notice"))
        frames, fine = record.get("length"), record.get("fine")
        if not (isinstance(fps, int) and isinstance(seconds, float) and isinstance(notice, str)):
            return None
        if not (isinstance(frames, int) and isinstance(fine, bool)):
            return None
        return RateChoice(fps, seconds, notice, frames, fine)

    def store(self, choice: RateChoice) -> None:
        """Keeps a rate for the worker that may come after this one."""
        if not self._folder.parent.is_dir():  # a worker without a run
            return
        with suppress(OSError):
            make_folder(self._folder)
        told = {
            "rate": choice.fps,
            "length": choice.clip_frames,
            "fine": choice.fine,
            "clip_seconds": float(choice.clip_seconds),
            "notice": choice.notice,
        }
        write_record(self._folder, self._name, self._facts | told)
