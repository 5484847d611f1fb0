"""A GPU draws without waiting for the host. Most of that is checked without a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from demo.factory.figure import face, hands
from demo.factory.figure.captured import CapturedRenderer
from demo.factory.figure.renderer import Renderer
from demo.factory.figure.rest import HAND_LENGTH, rest_hands
from demo.factory.figure.state import FigureState
from tests.helpers.figure import write_stand_in

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("figure") / "identities.npz"
    write_stand_in(path)
    return path


class _OnlyMeta(TorchDispatchMode):
    """Fails at any operation that touches memory of the host."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for leaf in tree_leaves((args, kwargs or {})):
            if isinstance(leaf, torch.Tensor):
                assert leaf.device.type == "meta", f"{func} reads a tensor of the host"
        return func(*args, **(kwargs or {}))


def _random_state(batch: int) -> FigureState:
    generator = torch.Generator().manual_seed(5)
    state = FigureState.neutral(batch)
    changes = {
        name: torch.rand(getattr(state, name).shape, generator=generator)
        for name in ("mouth_open", "mouth_width", "mouth_round", "teeth", "tongue", "eyelid", "brow")
    }
    return state.replace(**changes)


def test_drawing_touches_nothing_but_the_device(assets: Path) -> None:
    # On the meta device a value that is read back is an error of its own.
    renderer = Renderer(assets, device="meta")
    state = FigureState.neutral(2).to("meta")
    FigureState.neutral(2, "meta")  # the hands at rest are copied once for each device
    identity = torch.zeros(2, dtype=torch.long, device="meta")
    with _OnlyMeta():  # type: ignore[no-untyped-call]  # torch does not annotate its modes' `__init__`
        assert renderer.render(identity, state).shape == (2, 3, 256, 256)
        assert renderer.reference(identity).shape == (2, 3, 256, 256)


def test_drawing_hair_behind_those_who_have_none_changes_no_bit(
    assets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    renderer = Renderer(assets)
    identity, state = torch.tensor([1, 2, 1, 2]), _random_state(4)
    spared = renderer.render(identity, state)
    monkeypatch.setattr(renderer, "_hair_behind", lambda rows: True)
    assert torch.equal(renderer.render(identity, state), spared)


def test_what_is_kept_on_the_device_is_what_was_written(assets: Path) -> None:
    palette = Renderer(assets).palette
    assert torch.equal(palette.teeth, torch.tensor(face.TEETH))
    assert torch.equal(FigureState.neutral(1).hands[0], torch.from_numpy(rest_hands()))
    points = torch.rand(3, 21, 2) * 256
    palm = (points[:, [5, 9, 13, 17]] - points[:, :1]).norm(dim=2).amax(1)
    nominal = HAND_LENGTH * 256
    expected = (0.55 * nominal + 0.45 * (palm / 0.51)).clamp(0.6 * nominal, 1.8 * nominal)
    assert torch.equal(hands.hand_length(points, 256), expected)


def test_states_that_share_the_kept_hands_stay_apart() -> None:
    first, second = FigureState.neutral(1), FigureState.neutral(1)
    first.hands.zero_()
    assert torch.equal(second.hands[0], torch.from_numpy(rest_hands()))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_recording_draws_the_same_bits(assets: Path) -> None:
    renderer = Renderer(assets, device="cuda")
    captured = CapturedRenderer(renderer, 4)
    identity, state = torch.tensor([0, 1, 2, 0], device="cuda"), _random_state(4).to("cuda")
    for turned in (state, state.replace(mouth_open=1 - state.mouth_open)):
        assert torch.equal(captured.render(identity, turned), renderer.render(identity, turned))
    with pytest.raises(ValueError, match="a batch of 2"):
        captured.render(identity[:2], state[:2])


def test_a_recording_needs_a_gpu(assets: Path) -> None:
    with pytest.raises(ValueError, match="CUDA"):
        CapturedRenderer(Renderer(assets), 4)
