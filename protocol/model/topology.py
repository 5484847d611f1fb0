"""Networks that a model ships for OpenVINO, so that serving it needs no torch.

A topology is a zip file in the folder `openvino` beside the model's configuration:

- `network.xml`: the network in OpenVINO's format. Its constants are named by their place in a second file.
- `network.json`: which of them are weights of the model, by name, and the numbers of the model.
- `rest.bin`: all other constants, such as tables of positions. They do not depend on the weights.

So no weight lies there a second time, and weights of the same shapes may be trained anew. Every dimension
that the network leaves open is open. `demo.factory.topologies` writes the files from torch's networks.
"""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from protocol.model.cpu_graph import CpuEngine, CpuGraph, compile_model, import_openvino
from protocol.model.file_damage import damage_error
from protocol.model.hardware.cpu_features import cpu_features
from protocol.model.safe_arrays import SafeFileError, map_arrays
from protocol.process.logs import first_line
from protocol.process.settings import SettingsError

logger = logging.getLogger(__name__)

#: The folder of topologies, beside the model's configuration.
FOLDER = "openvino"

#: The files in a topology.
XML, TABLE, REST = "network.xml", "network.json", "rest.bin"

#: The format's version. Files of another one are not read.
VERSION = 1

#: Most bytes of a file in a topology, so that a damaged one cannot fill the memory.
MOST_BYTES = 64 * 2**20

#: Tensors by name.
Weights = Mapping[str, NDArray[Any]]

#: A dimension: its size, or the least and the greatest that it may have.
DimensionSize = int | tuple[int, int]


class TopologyError(ValueError):
    """A topology is damaged, or does not belong to the model. The text names the file."""


def read_tensors(file: Path) -> Weights:
    """The tensors of a safetensors file, mapped.

    Raises:
        TopologyError: it is of another format, which torch may read.
        SettingsError: it is damaged. The text names it.
    """
    if file.suffix != ".safetensors":
        raise TopologyError(f"{file}: not a .safetensors file")
    damage = damage_error(file)
    if damage is not None:
        raise SettingsError(damage)
    try:
        return map_arrays(file)
    except (OSError, SafeFileError) as error:
        raise SettingsError(f"{file}: cannot be read: {first_line(error)}") from error


class NetworkEnd(NamedTuple):
    """What is added to a network before it is compiled.

    Attributes:
        name: of it, for the key of the compiled network. Another one where `add` adds something else.
        add: takes an `openvino.Model` and returns another one.
    """

    name: str
    add: Callable[[Any], Any]


class Constant(NamedTuple):
    """A constant that is a weight.

    Attributes:
        offset: its place among the constants, in bytes.
        name: of the weight.
        dtype: numpy's name of its type in the network.
        scale: the network's constant is the weight times this.
    """

    offset: int
    name: str
    dtype: str
    scale: float


@dataclass(frozen=True)
class Topology:
    """A network without its weights.

    Attributes:
        file: where it lies.
        xml: the network in OpenVINO's format.
        constants: those that are weights.
        rest: the other constants, which come first.
        size: bytes of all constants together.
        shapes: of the model's tensors that belong to the network, by name.
        facts: further numbers that the network was made for, such as the attentions' heads.
        notes: numbers of the network that its readers need.
    """

    file: Path
    xml: bytes
    constants: Sequence[Constant]
    rest: bytes
    size: int
    shapes: Mapping[str, Sequence[int]]
    facts: Mapping[str, Any]
    notes: Mapping[str, Any]

    @classmethod
    def read(cls, file: Path) -> Topology:
        """Reads a topology.

        Raises:
            FileNotFoundError: there is none.
            TopologyError: it is damaged, or of another version.
        """
        try:
            with zipfile.ZipFile(file) as archive:
                if any(member.file_size > MOST_BYTES for member in archive.infolist()):
                    raise ValueError("a part of it is too large")
                table = json.loads(archive.read(TABLE))
                if table["version"] != VERSION:
                    raise ValueError(f"version {table['version']}, not {VERSION}")
                constants = [Constant(*entry) for entry in table["constants"]]
                parts = archive.read(XML), constants, archive.read(REST), int(table["size"])
            return cls(file, *parts, dict(table["shapes"]), dict(table["facts"]), dict(table["notes"]))
        except FileNotFoundError:
            raise
        except Exception as error:  # a damaged archive raises anything
            raise TopologyError(f"{file}: not a topology: {first_line(error)}") from error

    def check(self, weights: Weights, facts: Mapping[str, Any]) -> None:
        """Raises TopologyError where a model's tensors or numbers are not those that it was made for."""
        if json.loads(json.dumps(facts)) != self.facts:
            raise TopologyError(f"{self.file}: made for a model of other numbers")
        given = {name: list(array.shape) for name, array in weights.items()}
        differing = [name for name, shape in self.shapes.items() if given.get(name) != shape]
        differing += [name for name in given if name not in self.shapes]
        if differing:
            raise TopologyError(f"{self.file}: made for other tensors, as for {differing[0]}")

    def model(self, weights: Weights) -> Any:
        """The network with these weights, an `openvino.Model` in float32.

        Raises:
            GraphUnavailable: OpenVINO cannot be imported.
            TopologyError: OpenVINO does not read it, or a weight is missing.
        """
        openvino = import_openvino()
        try:
            content = np.zeros(self.size, np.uint8)
            content[: len(self.rest)] = np.frombuffer(self.rest, np.uint8)
            for offset, name, dtype, scale in self.constants:
                array = np.ascontiguousarray(weights[name], dtype)
                if scale != 1:
                    array = array * array.dtype.type(scale)
                content[offset : offset + array.nbytes] = array.reshape(-1).view(np.uint8)
            return openvino.Core().read_model(self.xml, openvino.Tensor(content))
        except Exception as error:  # OpenVINO raises anything
            raise TopologyError(f"{self.file}: cannot be used: {first_line(error)}") from error


@dataclass(frozen=True)
class ShippedNetwork:
    """A network of a model, with its weights at hand.

    Attributes:
        topology: the network.
        weights: its tensors.
    """

    topology: Topology
    weights: Weights

    @classmethod
    def find(
        cls, config: Path, name: str, weights: Callable[[], Weights], facts: Mapping[str, Any]
    ) -> ShippedNetwork | None:
        """A network that the model ships, or None where it ships none that belongs to it.

        Args:
            config: the model's configuration file.
            name: of the network.
            weights: reads its tensors. It is called where there is a topology.
            facts: the numbers that it must belong to, of JSON's types.

        Raises:
            SettingsError: the tensors cannot be read.
        """
        topology = cls.topology_of(config, name)
        if topology is None:
            return None
        try:
            network = cls(topology, weights())
            topology.check(network.weights, facts)
        except TopologyError as error:
            logger.warning("not used: %s", error)
            return None
        return network

    @staticmethod
    def topology_of(config: Path, name: str) -> Topology | None:
        """A topology of a model, or None where it ships none that can be read. Arguments as for `find`."""
        try:
            return Topology.read(config.parent / FOLDER / f"{name}.zip")
        except FileNotFoundError:
            return None
        except TopologyError as error:
            logger.warning("not used: %s", error)
            return None

    def load(
        self,
        name: str,
        shapes: Sequence[Sequence[DimensionSize]],
        dtype: str,
        engine: CpuEngine,
        end: NetworkEnd | None = None,
    ) -> CpuGraph:
        """The network for inputs of these shapes: from the folder, or compiled now and kept there.

        Args:
            name: begins the kept file's name.
            shapes: of the inputs, in their order.
            dtype: of the arithmetic, a name of `cpu_graph.PRECISIONS`.
            engine: where networks are kept, and how many threads they use.
            end: is added to it.

        Raises:
            GraphUnavailable: OpenVINO cannot be imported, or cannot compute in `dtype`.
            TopologyError: OpenVINO does not read it.
            Exception: whatever OpenVINO raises while it compiles.
        """
        openvino = import_openvino()

        def make() -> Any:
            model = self.topology.model(self.weights)
            sides = [[openvino.Dimension(*_bounds(side)) for side in shape] for shape in shapes]
            model.reshape(
                {port: openvino.PartialShape(side) for port, side in zip(model.inputs, sides, strict=True)}
            )
            return model if end is None else end.add(model)

        begin = time.monotonic()
        file = self.kept_file(name, shapes, dtype, engine, end)
        graph, is_new = compile_model(file, dtype, engine.threads, make)
        if is_new:
            logger.info("%s compiled by OpenVINO in %.1f s (%s)", name, time.monotonic() - begin, graph.file)
        return graph

    def kept_file(
        self,
        name: str,
        shapes: Sequence[Sequence[DimensionSize]],
        dtype: str,
        engine: CpuEngine,
        end: NetworkEnd | None = None,
    ) -> Path:
        """Where `load` keeps the network. Arguments as there.

        Raises:
            GraphUnavailable: OpenVINO cannot be imported.
        """
        version = import_openvino().__version__
        facts = shapes, dtype, version, None if end is None else end.name
        machine = platform.machine(), sorted(cpu_features())
        key = hashlib.sha256(repr((facts, machine, self.digest)).encode()).hexdigest()[:24]
        return engine.folder / f"{name}-{key}.blob"

    @cached_property
    def digest(self) -> str:
        """A digest of the network and its weights."""
        topology = self.topology
        digest = hashlib.sha256(repr(topology.constants).encode())
        digest.update(topology.xml)
        digest.update(topology.rest)
        for name, array in self.weights.items():
            digest.update(f"{name} {array.shape} {array.dtype}".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()[:24]


def _bounds(side: DimensionSize) -> tuple[int, int]:
    return (side, side) if isinstance(side, int) else side
