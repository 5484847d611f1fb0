"""A network that is put aside comes back with the same weights, and only where there is another memory."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gpu_worker.denoiser import spare as spare_module
from gpu_worker.denoiser.spare import SpareWeights, weights_of


class Elsewhere:
    """A device of another kind than the host, whose memory is the host's here."""

    type = "elsewhere"


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    made = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval().requires_grad_(False)
    return made.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers in each tensor that was copied to `Elsewhere`."""
    numbers: list[int] = []
    to = torch.Tensor.to

    def copied(self: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
        if args and isinstance(args[0], Elsewhere):
            numbers.append(self.numel())
            return self.clone()
        return to(self, *args, **kwargs)  # type: ignore[call-overload,no-any-return]

    monkeypatch.setattr(torch.Tensor, "to", copied)
    return numbers


def test_the_weights_come_back_and_leave_again(network: nn.Module, fetched: list[int]) -> None:
    spare = SpareWeights(weights_of(network), Elsewhere())  # type: ignore[arg-type]
    x = torch.randn(1, 3, 8, 8)
    before, own = network(x), network[0].weight.data_ptr()  # type: ignore[index]
    with spare.on_device():
        assert not fetched, "it lies there"
    spare.put_aside()
    assert spare.aside and network[0].weight.data_ptr() != own  # type: ignore[index]
    for _ in range(2):
        with torch.inference_mode(), spare.on_device():
            assert not spare.aside
            torch.testing.assert_close(network(x), before, rtol=0, atol=0)
        assert spare.aside
    assert sum(fetched) == 2 * sum(t.numel() for t in (*network.parameters(), *network.buffers()))
    assert network[0].weight.is_contiguous(memory_format=torch.channels_last)  # type: ignore[index]


def test_on_a_cpu_it_stays(network: nn.Module) -> None:
    spare = SpareWeights(weights_of(network), torch.device("cpu"))
    own = network[0].weight.data_ptr()  # type: ignore[index]
    spare.put_aside()
    with spare.on_device():
        assert network[0].weight.data_ptr() == own  # type: ignore[index]
    assert not spare.aside


def test_a_block_goes_at_a_time(
    network: nn.Module, fetched: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights that are half aside serve. Afterwards they lie as before, in little more than their size."""
    taken: list[int] = []
    empty = torch.empty

    def pinned(size: int) -> torch.Tensor:
        taken.append(size)
        return empty(size, dtype=torch.uint8)

    monkeypatch.setattr(spare_module, "_pinned", pinned)
    monkeypatch.setattr(spare_module, "BLOCK_BYTES", 1024)
    weights = weights_of(network)
    spare = SpareWeights(weights, Elsewhere())  # type: ignore[arg-type]
    x = torch.randn(1, 3, 8, 8)
    before = network(x)
    assert spare.put_some() and taken == [1024]
    with torch.inference_mode(), spare.on_device():
        torch.testing.assert_close(network(x), before, rtol=0, atol=0)
    assert spare.aside and sum(fetched) == weights[0].numel() + weights[1].numel()
    spare.put_aside()
    assert not spare.put_some()
    assert sum(taken) == 512 * len(weights) and max(taken) == 1024
    torch.testing.assert_close(network(x), before, rtol=0, atol=0)
