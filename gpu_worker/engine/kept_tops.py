"""The largest values that enter the float8 layers of the fast tier, as an earlier start found them.

To find them takes a clip in plain torch, some 2 s of a start.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path

from gpu_worker.kept_features import model_files
from protocol.model.assets import avatar_paths, pose_paths
from protocol.model.config import ModelConfig
from protocol.model.kept_folder import kept_folder
from protocol.model.kept_record import read_record, write_record
from protocol.process.settings import Settings


class KeptTops:
    """The record of a model and of whatever else decides on the first clip.

    The contents of a large model's files would take longer to read than the record saves. So they are known
    by their sizes and times.

    Args:
        settings: of this worker.
        config: the model.
    """

    def __init__(self, settings: Settings, config: ModelConfig) -> None:
        self._folder: Path = kept_folder(settings, "quality")
        paths = [*model_files(config), *avatar_paths(settings), *pose_paths(settings)]
        numbers = (config.picture_size(settings), settings.steps, settings.dtype, settings.audio_margin)
        code = sorted((Path(__file__).parents[1] / "fast").glob("*.py"))
        facts = [str(config.path), repr(numbers), *map(_stamp, [*paths, *code])]
        key = hashlib.sha256("\n".join(facts).encode()).hexdigest()[:24]
        self._name = f"tops-{key}"

    def load(self, count: int) -> Sequence[float] | None:
        """The values of `count` layers in their order, or None where they are to be found."""
        record = read_record(self._folder, self._name)
        tops = None if record is None else record.get("tops")
        if not isinstance(tops, list) or len(tops) != count:
            return None
        known = all(isinstance(top, float) and math.isfinite(top) and top >= 0 for top in tops)
        return tops if known else None

    def store(self, tops: Sequence[float]) -> None:
        """Keeps the values for the next start."""
        if all(map(math.isfinite, tops)):
            write_record(self._folder, self._name, {"tops": [float(top) for top in tops]})


def _stamp(path: Path) -> str:
    """A file, or the files of a folder, with their sizes and times."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    stats = [(str(file), file.stat()) for file in files if file.is_file()]
    return repr([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats])
