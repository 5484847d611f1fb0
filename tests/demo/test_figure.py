"""The drawn figure: determinism, shapes, the effect of each parameter, and the mouth's meter.

The identities are a build product. Without them a small stand-in with the same layout is drawn.
"""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch

from demo.factory.figure.layers import VIEW, VIEW_Y, hair_behind, premultiplied_average, split_layers
from demo.factory.figure.make_identities import SPLIT_FILE
from demo.factory.figure.measure import MouthMeter, crop_mouth, mouth_box, true_opening
from demo.factory.figure.people import BUNDLED, all_people, split
from demo.factory.figure.raster import read_svgs, write_svgs
from demo.factory.figure.renderer import DEFAULT_ASSETS, Renderer
from demo.factory.figure.rest import rest_hands
from demo.factory.figure.state import FigureState
from demo.factory.motion.visemes import CHANNELS, blended
from tests.helpers.figure import with_mouth_shut, write_stand_in

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def renderer(tmp_path_factory: pytest.TempPathFactory) -> Renderer:
    torch.set_num_threads(1)
    if DEFAULT_ASSETS.is_file():
        return Renderer(identities=[person.name for person in BUNDLED])
    path = tmp_path_factory.mktemp("figure") / "identities.npz"
    write_stand_in(path)
    return Renderer(path)


@pytest.fixture(scope="module")
def meter(renderer: Renderer) -> MouthMeter:
    """One for all: it draws each identity many times when it is first asked for it."""
    return MouthMeter(renderer)


def _state(batch: int, **values: float | list[float]) -> FigureState:
    state = FigureState.neutral(batch)
    changes = {
        name: torch.as_tensor(value, dtype=torch.float32).expand(getattr(state, name).shape).clone()
        for name, value in values.items()
    }
    return state.replace(**changes)


def _changed(a: torch.Tensor, b: torch.Tensor, over: float = 0.02) -> torch.Tensor:
    return (a - b).abs().amax(1) > over


def test_pictures_have_the_asked_size_and_range(renderer: Renderer) -> None:
    pictures = renderer.reference(torch.arange(3))
    assert pictures.shape == (3, 3, 256, 256)
    assert pictures.dtype == torch.float32
    assert pictures.min() >= 0 and pictures.max() <= 1
    assert not torch.equal(pictures[0], pictures[1])


def test_drawing_is_deterministic_and_independent_of_the_batch(renderer: Renderer) -> None:
    state = _state(3, mouth_open=[0.1, 0.5, 1.0], eyelid=[0.0, 0.4, 1.0])
    together = renderer.render(torch.arange(3), state)
    assert torch.equal(together, renderer.render(torch.arange(3), state))
    for i in range(3):
        alone = renderer.render(torch.tensor([i]), state[i : i + 1])
        assert torch.allclose(alone[0], together[i], atol=1e-5)


@pytest.mark.parametrize(
    "shape", [{}, {"mouth_open": 1.0}, {"teeth": 1.0}, {"mouth_round": 1.0, "mouth_open": 0.5}]
)
def test_the_mouth_moves_nothing_above_the_nose_and_below_the_neck(
    renderer: Renderer, shape: dict[str, float]
) -> None:
    rest = renderer.reference(torch.arange(3))
    pictures = renderer.render(torch.arange(3), _state(3, lips_pressed=0.0, **shape))
    rows = torch.nonzero(_changed(rest, pictures).any(0).any(1)).flatten()
    if shape:
        assert len(rows) > 3
        assert rows.min() > (130 - VIEW_Y) / VIEW * 256
        assert rows.max() < (222 - VIEW_Y) / VIEW * 256
    else:
        assert len(rows) == 0


def test_hands_move_only_where_hands_and_arms_are(renderer: Renderer) -> None:
    rest = renderer.reference(torch.arange(3))
    state = _state(3)
    state.hands[:, 0] += torch.tensor([0.04, -0.08])
    pictures = renderer.render(torch.arange(3), state)
    changed = _changed(rest, pictures)
    assert changed.flatten(1).sum(1).min() > 500
    assert not changed[:, :150].any(), "moving a hand changed the head"
    assert not changed[:, :, :118].any(), "moving the left hand changed the right side"


def test_hidden_hands_leave_no_trace(renderer: Renderer) -> None:
    hidden = _state(2, hands_visible=0.0)
    elsewhere = hidden.replace(hands=hidden.hands - 0.2)
    assert torch.equal(renderer.render(torch.arange(2), hidden), renderer.render(torch.arange(2), elsewhere))


def test_hands_outside_the_picture_are_no_error(renderer: Renderer) -> None:
    state = _state(2)
    state = state.replace(hands=state.hands + torch.tensor([3.0, -2.0]))
    assert renderer.render(torch.arange(2), state).isfinite().all()


def test_a_larger_opening_measures_larger(renderer: Renderer, meter: MouthMeter) -> None:
    steps = torch.linspace(0, 1, 11)
    for identity in range(len(renderer)):
        who = torch.full((11,), identity)
        for width, round_ in ((0.0, 0.0), (0.8, 0.0), (0.0, 0.8)):
            state = _state(11, mouth_width=width, mouth_round=round_).replace(mouth_open=steps)
            opening = meter.opening(renderer.render(who, state), who, state.head)
            assert opening[0] < 0.02
            assert opening[-1] > 0.12
            assert (opening[1:] - opening[:-1]).min() > -0.004, opening


def test_the_meter_reads_the_opening_that_was_drawn(renderer: Renderer, meter: MouthMeter) -> None:
    mouths = torch.from_numpy(blended(40, seed=9))  # not those it was fitted to
    for identity in range(2):
        who = torch.full((len(mouths),), identity)
        state = _state(len(mouths)).replace(**{name: mouths[:, i] for i, name in enumerate(CHANNELS)})
        read = meter.opening(renderer.render(who, state), who, state.head)
        true = true_opening(renderer, who, state)
        assert torch.corrcoef(torch.stack((read, true)))[0, 1] > 0.99
        assert (read - true).abs().max() < 0.05


def test_the_meter_follows_the_head_and_bears_noise_and_blur(renderer: Renderer, meter: MouthMeter) -> None:
    generator = torch.Generator().manual_seed(3)
    count = 24
    who = torch.arange(count) % len(renderer)
    state = _state(count).replace(
        mouth_open=torch.rand(count, generator=generator),
        head=(torch.rand(count, 3, generator=generator) - 0.5) * torch.tensor([0.04, 0.04, 0.12]),
    )
    pictures = renderer.render(who, state)
    true = meter.opening(pictures, who, state.head)
    still = meter.opening(
        renderer.render(who, state.replace(head=torch.zeros(count, 3))), who, torch.zeros(count, 3)
    )
    assert (true - still).abs().max() < 0.02
    blurred = torch.nn.functional.avg_pool2d(pictures, 3, 1, 1)
    noisy = blurred + 0.02 * torch.randn(pictures.shape, generator=generator)
    measured = meter.opening(noisy, who, state.head)
    assert torch.corrcoef(torch.stack((true, measured)))[0, 1] > 0.98


def test_pressed_lips_close_any_mouth(renderer: Renderer, meter: MouthMeter) -> None:
    who = torch.arange(3)
    state = _state(3, mouth_open=0.8, teeth=0.6, lips_pressed=1.0)
    assert meter.opening(renderer.render(who, state), who, state.head).max() < 0.02


def test_mouth_boxes_hold_the_mouth_and_follow_the_head(renderer: Renderer) -> None:
    state = _state(2, mouth_open=1.0)
    state.head[1] = torch.tensor([0.03, -0.02, 0.05])
    boxes = mouth_box(renderer, state)
    pictures = renderer.render(torch.ones(2, dtype=torch.long), state)
    shut = renderer.render(torch.ones(2, dtype=torch.long), with_mouth_shut(state))
    changed = _changed(pictures, shut, over=0.25)  # the chin's shadow changes less
    for picture, (x0, y0, x1, y1) in zip(changed, boxes.tolist(), strict=True):
        assert picture[y0:y1, x0:x1].sum() > 0.9 * picture.sum()
    assert boxes[1, 0] > boxes[0, 0] and boxes[1, 1] < boxes[0, 1]
    assert crop_mouth(pictures, boxes).shape[0] == 2


def test_another_size_draws_the_same_picture(renderer: Renderer, tmp_path: Path) -> None:
    if DEFAULT_ASSETS.is_file():
        large = Renderer(size=512, identities=[BUNDLED[0].name])
    else:
        write_stand_in(tmp_path / "identities.npz")
        large = Renderer(tmp_path / "identities.npz", size=512)
    state = _state(1, mouth_open=0.7)
    small = renderer.render(torch.tensor([0]), state)
    shrunk = torch.nn.functional.avg_pool2d(large.render(torch.tensor([0]), state), 2)
    assert (small - shrunk).square().mean() < 1e-3


def test_states_stack_and_pick() -> None:
    state = FigureState.cat([_state(2, brow=0.5), FigureState.neutral(1)])
    assert state.batch == 3
    for field in fields(FigureState):
        assert getattr(state[1:], field.name).shape[0] == 2
    assert np.allclose(state.hands[2].numpy(), rest_hands())


def test_the_written_split_is_the_code_s() -> None:
    written = json.loads(SPLIT_FILE.read_text())
    assert written == split()
    assert len(written["held_out"]) >= 40 and len(written["train"]) >= 400
    assert not set(written["held_out"]) & (set(written["train"]) | set(written["bundled"]))
    assert all_people() == all_people()


def test_layers_are_cut_from_a_known_structure_only() -> None:
    with pytest.raises(ValueError, match="structure"):
        split_layers(
            '<svg xmlns="http://www.w3.org/2000/svg"><g transform="translate(8)"><path/></g></svg>', "ffffff"
        )


def test_shrinking_averages_premultiplied_colours() -> None:
    rgba = np.zeros((2, 2, 4), np.uint8)
    rgba[0, 0] = [200, 100, 0, 255]
    rgba[0, 1, :3] = 255  # transparent: its colour must not bleed
    assert premultiplied_average(rgba, 2)[0, 0].tolist() == [50, 25, 0, 64]


def test_hair_behind_fills_between_strands() -> None:
    hair = np.zeros((336, 336, 4), np.uint8)
    hair[150:220, 90:100] = hair[150:220, 230:240] = [100, 50, 0, 255]
    behind = hair_behind(hair)
    assert behind[200, 160, 3] == 255
    assert behind[140, 160, 3] == 0


def test_svgs_of_a_file_are_those_written(tmp_path: Path) -> None:
    write_svgs(["<svg/>", "<svg>é</svg>"], tmp_path / "people.json.xz")
    assert read_svgs(tmp_path / "people.json.xz") == ["<svg/>", "<svg>é</svg>"]
