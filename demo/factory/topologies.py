"""Write a model's topologies for OpenVINO: `python -m demo.factory.topologies`.

Each network is traced with torch and converted. Random weights stand in for the model's: so each constant
tells which tensor it is, and no weight can lie in a file by chance. The files are checked with other random
weights against torch's networks before they replace the old ones.

They have to be written again where a network's code or its numbers change, and not where weights do.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import torch
from numpy.typing import NDArray

from demo.factory.traced_networks import TracedNetwork, traced_networks
from protocol.model.config import ModelConfig
from protocol.model.cpu_convert import converted
from protocol.model.cpu_graph import import_openvino
from protocol.model.kept_folder import write_whole
from protocol.model.topology import FOLDER, REST, TABLE, VERSION, XML, Constant, Topology, Weights
from protocol.process.settings import Settings

#: Constants of fewer values are the network's own, such as shapes and numbers of heads.
LEAST_VALUES = 8

#: Largest relative error of a network against torch's, in float32.
MOST_ERROR = 1e-5

#: The same of the decoders with eight bits: a value next to the border of two levels falls to either side.
MOST_ERROR_EIGHT_BITS = 0.02

#: Date of the files in an archive, so that the same network makes the same file.
DATE = (2026, 1, 1, 0, 0, 0)


class UnknownConstantError(ValueError):
    """A network holds a constant that is made of weights in an unknown way."""


def write_topology(network: TracedNetwork, folder: Path) -> Path:
    """Writes a network's topology. Its weights are random from then on.

    Raises:
        GraphUnavailable: the network does not use all of its inputs.
        UnknownConstantError: a constant is made of weights in an unknown way.
    """
    network.randomise(seed=1)
    weights = network.weights()
    openvino = import_openvino()
    with tempfile.TemporaryDirectory() as scratch:
        whole = Path(scratch) / XML
        openvino.serialize(converted(network.module, network.example), whole)
        tree = ElementTree.parse(whole)
        content = whole.with_suffix(".bin").read_bytes()
    root = tree.getroot()
    for info in root.findall("rt_info"):  # versions and paths of the conversion
        root.remove(info)
    constants, rest, size = _placed(root, content, weights)
    table = {
        "version": VERSION,
        "made_by": {"openvino": openvino.__version__, "torch": torch.__version__},
        "size": size,
        "facts": network.facts,
        "notes": network.notes,
        "shapes": {name: list(array.shape) for name, array in sorted(weights.items())},
        "constants": constants,
    }
    xml = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    file = folder / f"{network.name}.zip"
    parts = {XML: xml, TABLE: json.dumps(table, indent=1).encode(), REST: rest}
    _write_archive(file, parts)
    return file


def _write_archive(file: Path, parts: Mapping[str, bytes]) -> None:
    with tempfile.TemporaryFile() as stream:
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            for name, content in parts.items():
                entry = zipfile.ZipInfo(name, DATE)
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, content)
        stream.seek(0)
        write_whole(file, stream.read())
    file.chmod(0o644)


def _placed(root: ElementTree.Element, content: bytes, weights: Weights) -> tuple[list[Constant], bytes, int]:
    """Moves the network's own constants to the front, and gives the weights' constants their names.

    Returns:
        The weights' places, the network's own constants, and the size of both together.
    """
    places: dict[tuple[int, int], tuple[str, list[ElementTree.Element]]] = {}
    for data in root.iterfind("./layers/layer[@type='Const']/data"):
        place = int(data.attrib["offset"]), int(data.attrib["size"])
        places.setdefault(place, (data.attrib["element_type"], []))[1].append(data)
    known = {
        place: _origin(content[place[0] : sum(place)], kind, weights) for place, (kind, _) in places.items()
    }
    rest, constants, end = bytearray(), list[Constant](), 0
    for is_weight in (False, True):
        for place, (_, elements) in places.items():
            origin = known[place]
            if (origin is not None) is not is_weight:
                continue
            begin = -(-end // 64) * 64  # aligned as OpenVINO likes it
            end = begin + place[1]
            if origin is None:
                rest += bytes(begin - len(rest)) + content[place[0] : sum(place)]
            else:
                constants.append(Constant(begin, *origin))
            for data in elements:
                data.set("offset", str(begin))
    return constants, bytes(rest), end


def _origin(content: bytes, kind: str, weights: Weights) -> tuple[str, str, float] | None:
    """Name, type and scale of the weight that a constant is, or None for the network's own."""
    dtype = {"f32": "float32", "i8": "int8"}.get(kind)
    if dtype is None:
        return None
    values = np.frombuffer(content, dtype)
    same_size = {name: x for name, x in weights.items() if x.size == values.size and x.size > 0}
    for name, array in same_size.items():
        if array.dtype.name == dtype and np.array_equal(array.reshape(-1), values):
            return name, dtype, 1.0
    if values.size < LEAST_VALUES or dtype != "float32":
        return None
    for name, array in same_size.items():
        scale = _scale(array.reshape(-1), values)
        if scale is not None:
            return name, dtype, scale
    return None


def _scale(weight: NDArray[Any], values: NDArray[Any]) -> float | None:
    """What a weight was multiplied by, or None where the values are no multiple of it."""
    if not weight.all():
        return None
    scale = float(np.median(values / weight))
    simple = next((x for x in (round(scale), 1 / (round(1 / scale) or 1) if scale else 0) if x), 0.0)
    for candidate in (float(simple), scale):
        if candidate and np.array_equal(weight * np.float32(candidate), values):
            return candidate
    return None


def largest_error(network: TracedNetwork, topology: Topology) -> float:
    """The greatest relative error of a topology's outputs against torch's network, at other shapes.

    Raises:
        UnknownConstantError: it has another number of outputs.
    """
    model = topology.model(network.weights())
    compiled = import_openvino().Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    errors = []
    for inputs in network.others():
        made = compiled([x.numpy() for x in inputs])
        with torch.no_grad():
            wanted = network.module(*inputs)
        outputs = wanted if isinstance(wanted, tuple) else (wanted,)
        if len(outputs) != len(made):
            raise UnknownConstantError(f"{network.name}: {len(made)} outputs, torch's has {len(outputs)}")
        for index, exact in enumerate(outputs):
            errors.append(np.linalg.norm(made[index] - exact.numpy()) / np.linalg.norm(exact.numpy()))
    return float(max(errors))


def check_topology(network: TracedNetwork, topology: Topology) -> float:
    """The largest error of a topology with new random weights.

    Raises:
        UnknownConstantError: it is too large.
        TopologyError: the topology is made for other tensors or numbers.
    """
    network.randomise(seed=2)
    topology.check(network.weights(), network.facts)
    error = largest_error(network, topology)
    most = MOST_ERROR_EIGHT_BITS if network.eight_bit else MOST_ERROR
    if not error <= most:
        raise UnknownConstantError(f"{network.name}: relative error {error:.2g}, at most {most:.0e}")
    return error


def main(argv: Sequence[str] | None = None) -> None:
    """Writes all topologies of a model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--config", default=Settings().config, help="the model's configuration")
    parser.add_argument("names", nargs="*", help="of the networks to write; none: all")
    args = parser.parse_args(argv)
    config = ModelConfig.load(args.config)
    folder = config.path.parent / FOLDER
    folder.mkdir(exist_ok=True)
    for network in traced_networks(config):
        if args.names and network.name not in args.names:
            continue
        with tempfile.TemporaryDirectory() as scratch:
            made = write_topology(network, Path(scratch))
            error = check_topology(network, Topology.read(made))
            write_whole(folder / made.name, made.read_bytes())
        (folder / made.name).chmod(0o644)
        size = (folder / made.name).stat().st_size
        print(f"{network.name}: {size / 1000:.1f} kB, error against torch {error:.1e}", flush=True)


if __name__ == "__main__":
    main()
