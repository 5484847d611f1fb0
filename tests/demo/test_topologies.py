"""The shipped topologies against torch's networks, and the way they are written."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from demo.factory.topologies import (
    UnknownConstantError,
    check_topology,
    largest_error,
    write_topology,
)
from demo.factory.traced_networks import TracedNetwork, state_of, traced_networks
from protocol.model.config import ModelConfig
from protocol.model.topology import FOLDER, Topology, TopologyError
from protocol.process.settings import Settings

pytest.importorskip("openvino", reason="OpenVINO is not installed here")


@cache
def bundled() -> dict[str, TracedNetwork]:
    """The bundled model's networks. Tests give them random weights."""
    return {network.name: network for network in traced_networks(ModelConfig.load(Settings().config))}


def shipped(name: str) -> Topology:
    return Topology.read(Path(Settings().config).parent / FOLDER / f"{name}.zip")


NAMES = sorted(file.stem for file in (Path(Settings().config).parent / FOLDER).glob("*.zip"))


def test_every_network_is_shipped() -> None:
    assert sorted(bundled()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_network_is_torchs_with_any_weights(name: str) -> None:
    """Fails where a network's code or numbers changed: run `python -m demo.factory.topologies`."""
    check_topology(bundled()[name], shipped(name))


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_a_network_that_is_traced_anew_is_the_shipped_one(name: str, tmp_path: Path) -> None:
    network = bundled()[name]
    made = Topology.read(write_topology(network, tmp_path))
    kept = shipped(name)
    assert (made.shapes, made.facts, made.notes) == (kept.shapes, kept.facts, kept.notes)
    # Sines of positions differ in their last bits between processors.
    own, theirs = (np.frombuffer(one.rest, np.float32) for one in (made, kept))
    np.testing.assert_allclose(own, theirs, rtol=1e-4)
    assert [one.name for one in made.constants] == [one.name for one in kept.constants]


# ------------------------------------------------------------------ a small network


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(9, 16)
        self.second = nn.Linear(16, 9)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = 3 * self.second(torch.relu(self.first(x + torch.arange(9.0).sin()))) + x.shape[0]
        return made


def small(module: nn.Module | None = None) -> TracedNetwork:
    own = module or Small()
    return TracedNetwork(
        "small",
        own.eval(),
        (torch.randn(4, 9),),
        lambda: [(torch.randn(2, 9),)],
        lambda: state_of(own),
        {"heads": 4},
    )


@pytest.fixture
def written(tmp_path: Path) -> Iterator[tuple[TracedNetwork, Topology]]:
    network = small()
    yield network, Topology.read(write_topology(network, tmp_path))


def test_constants_are_the_models_weights(written: tuple[TracedNetwork, Topology]) -> None:
    network, topology = written
    scales = {one.name: one.scale for one in topology.constants}
    assert set(scales) == {"first.weight", "first.bias", "second.weight", "second.bias"}
    assert scales["second.bias"] == pytest.approx(3), "the factor was folded into it"
    assert check_topology(network, topology) < 1e-6


def test_a_topology_of_other_numbers_or_tensors_is_not_used(written: tuple[TracedNetwork, Topology]) -> None:
    network, topology = written
    weights = dict(network.weights())
    topology.check(weights, {"heads": 4})
    with pytest.raises(TopologyError, match="other numbers"):
        topology.check(weights, {"heads": 5})
    with pytest.raises(TopologyError, match="other tensors, as for third"):
        topology.check({**weights, "third": weights["first.bias"]}, {"heads": 4})
    weights["first.bias"] = weights["first.bias"][:3]
    with pytest.raises(TopologyError, match=r"other tensors, as for first\.bias"):
        topology.check(weights, {"heads": 4})


class Baked(nn.Module):
    """Its weights reach the network in a way that no scale undoes."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(9, 9)

    def forward(self, x: Tensor) -> Tensor:
        return x @ torch.from_numpy(self.layer.weight.detach().exp().numpy())


def test_a_weight_that_would_lie_in_the_file_is_noticed(tmp_path: Path) -> None:
    network = small(Baked())
    topology = Topology.read(write_topology(network, tmp_path))
    with pytest.raises(UnknownConstantError, match="relative error"):
        check_topology(network, topology)


def test_a_damaged_topology_is_told(written: tuple[TracedNetwork, Topology]) -> None:
    _, topology = written
    content = topology.file.read_bytes()
    for damaged in (
        b"",
        b"PK",
        content[:200],
        content[:-30],
        content.replace(b"network.json", b"network.jsom"),
    ):
        topology.file.write_bytes(damaged)
        with pytest.raises(TopologyError, match="not a topology"):
            Topology.read(topology.file)
    with pytest.raises(FileNotFoundError):
        Topology.read(topology.file.with_name("none.zip"))


def test_random_weights_do_change_the_network(written: tuple[TracedNetwork, Topology]) -> None:
    network, topology = written
    network.randomise(seed=3)
    before = dict(network.weights())
    kept = {name: x.copy() for name, x in before.items()}
    network.randomise(seed=4)
    stale = TracedNetwork(
        network.name, network.module, network.example, network.others, lambda: kept, network.facts
    )
    assert largest_error(stale, topology) > 0.1
