"""Which library decodes for each head of a VAE, timed in one process for all of them."""

from __future__ import annotations

from collections.abc import Sequence

from protocol.model.timed_apart import LibraryChoice, time_apart
from protocol.process.apart import ApartError
from protocol.process.settings import Settings


class HeadChoices:
    """The choices of a worker's heads. They are made when the first one is asked for.

    Args:
        settings: of the worker.
        stage: the worker's.
        heads: that are made at its start, by whether each is the finer one.
    """

    def __init__(self, settings: Settings, stage: str, heads: Sequence[bool]) -> None:
        self._settings = settings
        self._stage = stage
        self._heads = list(heads)
        self._choices: dict[bool, LibraryChoice] = {}
        self._failure: ApartError | None = None

    def get(self, fine: bool) -> LibraryChoice:
        """A head's choice. Raises ApartError where it cannot be timed."""
        if self._failure is not None:  # as for the head before, and the same reason
            raise self._failure
        if fine not in self._choices:
            heads = self._heads if fine in self._heads else [fine]
            try:
                made = self._time(heads)
            except ApartError as error:
                self._failure = error
                raise
            self._choices |= zip(heads, made, strict=True)
        return self._choices[fine]

    def _time(self, heads: Sequence[bool]) -> list[LibraryChoice]:
        function, facts = "encoder_worker.load:time_decoders", {"heads": list(heads)}
        return time_apart(function, self._settings, facts, stage=self._stage, count=len(heads))
