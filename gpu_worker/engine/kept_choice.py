"""Which library and arithmetic denoise on this CPU, as an earlier start found by timing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gpu_worker.kept_features import model_key
from protocol.model.config import ModelConfig
from protocol.model.hardware.threads import thread_count
from protocol.model.kept_folder import kept_folder
from protocol.model.kept_record import read_record, write_record
from protocol.process.settings import Settings

Library = Literal["openvino", "torch"]


@dataclass(frozen=True)
class Choice:
    """A library and its arithmetic."""

    serves: Library
    dtype: str


class KeptChoice:
    """The record of a model under some settings.

    Args:
        settings: of this worker.
        config: the model.
        dtypes: the kinds of arithmetic that the settings leave open.
    """

    def __init__(self, settings: Settings, config: ModelConfig, dtypes: Sequence[str]) -> None:
        self._folder: Path = kept_folder(settings, "openvino")
        self._dtypes = list(dtypes)
        facts = (settings.cpu_engine, thread_count(settings), settings.steps, settings.cfg)
        clip = (settings.fps, settings.frames_a_clip, settings.audio_margin)
        key = model_key(config, list(dtypes), facts, clip, config.picture_size(settings))
        self._name = None if key is None else f"denoiser-{key}"

    def load(self) -> Choice | None:
        """The choice, or None where it is to be made."""
        record = None if self._name is None else read_record(self._folder, self._name)
        if record is None:
            return None
        serves, dtype = record.get("serves"), str(record.get("dtype"))
        if serves not in ("openvino", "torch") or dtype not in self._dtypes:
            return None
        return Choice(serves, dtype)

    def store(self, serves: Library, dtype: str) -> None:
        """Keeps the choice for the next start."""
        if self._name is not None:
            write_record(self._folder, self._name, {"serves": serves, "dtype": dtype})
