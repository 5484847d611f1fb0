"""The record by which a worker's next start knows which library computes, and finds the kept network."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from protocol.model.cpu_graph import CpuEngine, CpuGraph, GraphUnavailable, kept_graph, serves_untimed
from protocol.model.hardware.drivers import only_a_cpu
from protocol.model.kept_record import Record, read_record, write_record
from protocol.process.logs import first_line

F = TypeVar("F")

logger = logging.getLogger(__name__)


class GraphRecord(Generic[F]):
    """Which library computes a model on this CPU, as an earlier start found by timing.

    Args:
        engine: how OpenVINO may be used, or None where it may not.
        name: of the record, or None where nothing is recorded.
        facts: the dataclass of the network's numbers. It has a field `dtype`.
        model: the model's name, for the log.
        devices: that the settings name for this worker.
    """

    def __init__(
        self,
        engine: CpuEngine | None,
        name: str | None,
        facts: type[F],
        model: str,
        devices: Sequence[str],
    ) -> None:
        self.engine = engine
        self._name = name
        self._facts = facts
        self._model = model
        self._devices = devices

    def load_graph(self) -> tuple[CpuGraph, F] | None:
        """The network that is to serve, or None where torch is needed to say, or is the faster one."""
        record = self._read()
        if self.engine is None or record is None or record.get("serves") != "openvino":
            return None
        try:
            numbers: Mapping[str, object] = record["facts"]
            facts = self._facts(**numbers)
            file = self.engine.folder / Path(record["file"]).name
            graph = kept_graph(file, str(numbers["dtype"]), self.engine.threads)
        except (KeyError, TypeError, ValueError) as error:
            logger.warning("a record of the model %s is damaged: %s", self._model, first_line(error))
            return None
        except GraphUnavailable as error:
            logger.warning("the kept network of the model %s cannot serve: %s", self._model, error)
            return None
        return None if graph is None else (graph, facts)

    def torch_serves(self) -> bool:
        """Whether torch was the faster one."""
        record = self._read()
        return record is not None and record.get("serves") == "torch"

    @property
    def needs_no_torch(self) -> bool:
        """Whether OpenVINO is to serve although no start has timed it: see `serves_untimed`."""
        engine = self.engine
        return engine is not None and serves_untimed(engine, self._devices) and not self.torch_serves()

    @property
    def chosen_without_torch(self) -> bool:
        """Whether this process can leave torch out until the choice is made: see `timed_apart`.

        It cannot where torch was the faster one, where a GPU may compute, and where nothing is recorded.
        """
        if self.needs_no_torch:
            return True
        recorded = self.engine is not None and self._name is not None
        return recorded and only_a_cpu(self._devices) and not self.torch_serves()

    def store_torch(self) -> None:
        """Keeps the choice of torch."""
        self._write({"serves": "torch"})

    def store_graph(self, file: Path, facts: Mapping[str, object]) -> None:
        """Keeps the choice of a network: its file in the folder of kept networks, its numbers by name."""
        self._write({"serves": "openvino", "file": file.name, "facts": dict(facts)})

    def _read(self) -> Record | None:
        if self.engine is None or self._name is None:
            return None
        return read_record(self.engine.folder, self._name)

    def _write(self, record: Record) -> None:
        if self.engine is not None and self._name is not None:
            write_record(self.engine.folder, self._name, record)
