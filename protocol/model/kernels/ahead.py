"""Has a helper process compile a worker's Triton kernels while the worker loads, at the first start alone.

Importing this module imports neither torch nor Triton.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from protocol.model.config import ModelConfig
from protocol.model.hardware.drivers import driver_is_there
from protocol.model.kept_folder import kept_folder
from protocol.model.kept_record import content_key, read_record, write_record
from protocol.model.kernels.lines import END, FAILED, FOLDER, read_part
from protocol.model.vae_folder import VaeFolder
from protocol.process.settings import ROOT, Settings, SettingsError

logger = logging.getLogger(__name__)

#: Fewest processors with which a helper is quicker than its worker.
LEAST_PROCESSORS = 4

#: Seconds after the helper's start until which a worker waits for it. Then it compiles what is missing.
MOST_WAIT = 60.0

#: Variables that change what Triton compiles, with which no helper runs.
CHANGES_CODE = ("TRITON_OVERRIDE_ARCH", "TRITON_INTERPRET")

#: Variables that name folders of compiled code.
FOLDERS = ("TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")

#: Settings that decide which kernels a worker may need.
GIVEN = (
    "width",
    "height",
    "dtype",
    "tier",
    "decoder",
    "clip_frames",
    "audio_margin",
    "quality",
    "gpu_devices",
)


class KernelsAhead:
    """A helper process, and which parts of its kernels are there.

    Args:
        module: to run as the helper, with this process's flags.
        record: where to keep that all is compiled: a folder, and a name in it.
    """

    def __init__(self, module: str, record: tuple[Path, str]) -> None:
        self._record = record
        self._parts: set[str] = set()
        self._ended = False
        self._until = time.monotonic() + MOST_WAIT
        self._folder = ""
        #: Guards the attributes above. Notified when one of them changes.
        self._changed = threading.Condition()
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *sys.argv[1:]],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        threading.Thread(target=self._read, name="kernels-ahead", daemon=True).start()

    def wait(self, part: str) -> None:
        """Waits until a part's kernels are compiled, or the helper can do no more for it."""
        begin = time.monotonic()
        with self._changed:
            left = max(0.0, self._until - begin)
            self._changed.wait_for(lambda: self._ended or part in self._parts, left)
        waited = time.monotonic() - begin
        if waited > 0.1:
            logger.info("kernels of %s: waited %.1f s for the helper that compiles them", part, waited)

    def _read(self) -> None:
        begin = time.monotonic()
        assert self._process.stdout is not None
        for line in map(str.strip, self._process.stdout):
            self._hear(line, time.monotonic() - begin)
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._process.wait()

    def _hear(self, line: str, seconds: float) -> None:
        part = read_part(line)
        if part is not None:
            logger.info(
                "kernels compiled ahead: %d more of %s after %.1f s", part.kernels, part.name, seconds
            )
            with self._changed:
                self._parts.add(part.name)
                self._changed.notify_all()
        elif line.startswith(FAILED):
            logger.info("kernels are compiled when they are needed: %s", line.removeprefix(FAILED))
        elif line.startswith(FOLDER):
            self._folder = line.removeprefix(FOLDER)
        elif line == END:
            folder, name = self._record
            write_record(folder, name, {"folder": self._folder})


#: The helper of this process, where there is one.
_helpers: list[KernelsAhead] = []


def start_helper(module: str, settings: Settings, devices: Sequence[str]) -> None:
    """Starts the helper, unless it has nothing to do here. For the main thread, before anything heavy.

    Args:
        module: of the helper. All modules of its stage count as the kernels' source.
        settings: of this worker.
        devices: that this worker may compute on, as the settings name them.
    """
    if not _may_help(devices):
        return
    record = _record_of(module, settings)
    if record is None or _is_done(record):
        return
    try:
        _helpers.append(KernelsAhead(module, record))
    except OSError as error:
        logger.debug("no helper compiles kernels: %s", error)


def wait_for_kernels(part: str) -> None:
    """Waits for a part that the helper of this process compiles. Without one, it returns at once."""
    for helper in _helpers:
        helper.wait(part)


def _may_help(devices: Sequence[str]) -> bool:
    if sys.platform != "linux" or any(os.environ.get(name) for name in CHANGES_CODE):
        return False
    on_gpu = set(devices) != {"cpu"} and driver_is_there()
    return on_gpu and len(os.sched_getaffinity(0)) >= LEAST_PROCESSORS and find_spec("triton") is not None


def _record_of(module: str, settings: Settings) -> tuple[Path, str] | None:
    """Where it is kept that these kernels are compiled, or None where that cannot be said."""
    package = find_spec(module.partition(".")[0])
    if package is None or package.origin is None:
        return None
    try:
        config = ModelConfig.load(settings.config)
        model = [config.base_unet_config(), config.inference_config, VaeFolder.of(config).config]
    except SettingsError:
        return None  # the worker tells what is wrong
    given = [getattr(settings, name) for name in GIVEN]
    folders = [os.environ.get(name) for name in FOLDERS]
    key = content_key([], [Path(package.origin).parent], module, model, given, folders)
    return None if key is None else (kept_folder(settings, "kernels"), f"kernels-{key}")


def _is_done(record: tuple[Path, str]) -> bool:
    """Whether an earlier start has compiled them all, and their folder is still there."""
    known = read_record(*record)
    return known is not None and Path(str(known.get("folder"))).is_dir()
