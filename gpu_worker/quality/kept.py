"""The quality that an earlier start picked on this card, so that the next start times nothing else."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path

from gpu_worker.quality.options import Quality
from protocol.model.kept_folder import kept_folder
from protocol.model.kept_record import read_record, write_record
from protocol.process.settings import Settings


@dataclass(frozen=True)
class KnownQuality:
    """A quality and the times by which it was picked.

    Attributes:
        quality: that the card holds.
        clip_seconds: that a clip among others takes the card.
        alone_seconds: of denoising a clip that follows no other.
    """

    quality: Quality
    clip_seconds: float
    alone_seconds: float


class KeptQuality:
    """The record of one card, model and size, and of the flags that are given.

    Args:
        settings: of this worker.
        device: the card's name with its index, since cards of one name may differ in load.
        choices: the qualities that are open. Another list, as of a later version, has another record.
    """

    def __init__(self, settings: Settings, device: str, choices: list[Quality]) -> None:
        self._folder: Path = kept_folder(settings, "quality")
        self._choices = choices
        self._facts = {
            "device": device,
            "config": str(settings.config),
            "size": [settings.width, settings.height],
            "steps": settings.steps,
            "dtype": settings.dtype,
            "encoders": [settings.encoders, *settings.encoder_devices],
            "choices": [str(one) for one in choices],
        }
        self._name = f"quality-{settings.worker_index}"

    def load(self) -> KnownQuality | None:
        """The quality, or None where it is to be found. Times that are not known are 0."""
        record = read_record(self._folder, self._name)
        if record is None or {key: record.get(key) for key in self._facts} != self._facts:
            return None
        told = {field.name: record.get(field.name) for field in fields(Quality)}
        quality = next((one for one in self._choices if asdict(one) == told), None)
        times = [record.get(name) for name in ("clip_seconds", "alone_seconds")]
        clip, alone = (float(each) if isinstance(each, (int, float)) else 0.0 for each in times)
        return None if quality is None else KnownQuality(quality, clip, alone)

    def store(self, known: KnownQuality) -> None:
        """Keeps the quality for the next start."""
        times = {"clip_seconds": known.clip_seconds, "alone_seconds": known.alone_seconds}
        write_record(self._folder, self._name, self._facts | asdict(known.quality) | times)

    def forget(self) -> None:
        """The card does not hold it any more."""
        (self._folder / f"{self._name}.json").unlink(missing_ok=True)
