"""Training of the VAE's decoder: the loss of pictures, and the last stage as a whole."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from demo.factory.figure.measure import mouth_box
from demo.factory.figure.state import FigureState
from demo.factory.train.both_sizes import HAND_MARGIN, HAND_WEIGHT, BothSizes, hand_weights, mouth_places
from demo.factory.train.data import RARE, Material, Poses, rarity
from demo.factory.train.decoder import train_decoder
from demo.factory.train.from_export import MODEL, start
from demo.factory.train.sharp import train_sharp
from demo.factory.train.vae import local_contrast, picture_loss, strength_loss

pytestmark = pytest.mark.slow

SAMPLE = Path(__file__).resolve().parents[2] / "demo/factory/evaluate/sample"


def test_outlines_have_contrast_and_plain_colour_has_none() -> None:
    pictures = torch.full((2, 3, 32, 32), 0.7)
    pictures[1, :, :, 16:] = 0.1
    contrast = local_contrast(pictures)
    assert contrast.shape == (2, 1, 32, 32)
    assert not contrast[0].any()
    assert (contrast[1, 0, 4:-4, 14:18] == 1).all()
    assert not contrast[1, 0, :, :12].any()
    assert not contrast[1, 0, :, 20:].any()


def test_an_error_at_an_outline_costs_more() -> None:
    truth = torch.full((1, 3, 32, 32), 0.7)
    truth[..., 16:] = 0.1
    weights = torch.ones(1, 1, 32, 32)
    plain, outline = truth.clone(), truth.clone()
    plain[..., 8:20, 5] += 0.2
    outline[..., 8:20, 15] += 0.2
    assert picture_loss(truth, truth, weights) == 0
    assert picture_loss(outline, truth, weights) > 4 * picture_loss(plain, truth, weights)


def test_a_weak_outline_costs_more_than_one_in_another_place() -> None:
    """To the strength; of the pictures' difference pixel by pixel the opposite is true."""
    truth = torch.full((1, 3, 32, 32), 0.7)
    truth[..., 16:] = 0.1
    weights = torch.ones(1, 1, 32, 32)
    moved = truth.roll(1, 3)
    moved[..., 0] = 0.7
    weak = truth.clone()
    weak[..., 14:18] = torch.tensor([0.6, 0.45, 0.3, 0.2])
    assert strength_loss(truth, truth, weights) == 0
    assert strength_loss(weak, truth, weights) > 1.5 * strength_loss(moved, truth, weights)
    assert picture_loss(weak, truth, weights) < picture_loss(moved, truth, weights)


def test_hands_count_twice_where_they_are() -> None:
    hands = torch.full((2, 2, 21, 2), 0.25)
    hands[0, 1] = torch.tensor([0.75, 0.5])  # x, y
    weights = hand_weights(hands, 64)
    assert weights.shape == (2, 1, 64, 64)
    assert weights[0, 0, 16, 16] == weights[0, 0, 32, 48] == HAND_WEIGHT
    assert weights[1, 0, 32, 48] == weights[0, 0, 48, 32] == 1
    share = (weights == HAND_WEIGHT).float().flatten(1).mean(1)
    assert torch.allclose(share, torch.tensor([2.0, 1.0]) * (2 * HAND_MARGIN) ** 2, rtol=0.2)


def test_rare_hands_are_drawn_more_often() -> None:
    generator = torch.Generator().manual_seed(0)
    hands = torch.rand(2, 40, 2, 21, 2, generator=generator) * 0.01
    hands[1, :4] += 5.0  # raised, in 4 of 80 moments
    weights = rarity(hands)
    assert weights.shape == (2, 40)
    assert (weights[1, :4] == RARE[1]).all()
    assert weights[0].max() < 1.2
    assert rarity(torch.zeros(1, 8, 2, 21, 2)).eq(RARE[0]).all()  # hands that never move


@pytest.fixture
def material() -> Material:
    cpu = torch.device("cpu")
    return Material(
        SAMPLE / "identities.npz", SAMPLE / "speech.npz", cpu, seed=3, poses=Poses.draw(1, cpu),
        unknown_people=True, unknown_voices=True, fine=True,
    )  # fmt: skip


def test_mouths_and_hands_far_from_the_goals_cost_more(material: Material) -> None:
    drawn, moments = material.drawings(1)
    soft = F.avg_pool2d(F.pad(drawn, (3, 3, 3, 3), mode="replicate"), 7, stride=1)
    hard = drawn + 2 * (drawn - soft)
    small = F.avg_pool2d(drawn, 2)
    plain, more = BothSizes(material), BothSizes(material, goals=1.0)
    right, smeared, strong = (
        float(more.loss(small, p, drawn, moments) - plain.loss(small, p, drawn, moments))
        for p in (drawn, soft, hard)
    )
    assert smeared > right + 1.0  # outlines are lost and the mouth is wrong
    assert strong > right + 1.0


def test_the_mouth_that_is_weighed_is_the_one_that_is_judged(material: Material) -> None:
    state = FigureState.neutral(2).replace(head=torch.tensor([[0.0, 0.0, 0.0], [0.02, 0.01, 0.05]]))
    boxes = mouth_box(material.renderer, state)
    for places, (x0, y0, x1, y1) in zip(
        mouth_places(material.renderer, state.head, 512), boxes.tolist(), strict=True
    ):
        assert places[y0:y1, x0:x1].all()
        assert 1 <= places.sum() / ((y1 - y0) * (x1 - x0)) < 1.3


@pytest.mark.long
@pytest.mark.timeout(900)  # 40 s on two quiet cores with bfloat16, 270 s as if with AVX2 alone
def test_the_sharp_stage_changes_both_parts(material: Material, tmp_path: Path) -> None:
    torch.set_num_threads(2)
    start(MODEL, tmp_path)
    before = load_file(tmp_path / "vae.average.safetensors")
    networks = load_file(tmp_path / "networks.average.safetensors")
    train_sharp(
        material, tmp_path, MODEL / "whisper", minutes=0.02, batch=1, peak=1e-3, final=1e-4, memory=8,
        export=tmp_path / "model",
    )  # fmt: skip
    after = load_file(tmp_path / "vae.average.safetensors")
    for half in ("encoder.", "decoder."):
        assert any(not torch.equal(after[key], before[key]) for key in before if key.startswith(half))
    trained = load_file(tmp_path / "networks.average.safetensors")
    assert any(not torch.equal(trained[key], networks[key]) for key in networks)
    assert (tmp_path / "model/denoising_unet.safetensors").is_file()


def test_the_last_stage_changes_the_decoder_alone(material: Material, tmp_path: Path) -> None:
    """The sample in the repository is of the held-out split, so the weights learned here are thrown away."""
    torch.set_num_threads(2)
    start(MODEL, tmp_path)
    names = ("vae.average", "vae.weights", "networks.average", "networks.weights")
    before = {name: load_file(tmp_path / f"{name}.safetensors") for name in names}
    train_decoder(
        material, tmp_path, MODEL / "whisper", minutes=0.02, batch=6, peak=1e-3, final=1e-4, memory=64,
    )  # fmt: skip
    for name, old in before.items():
        new = load_file(tmp_path / f"{name}.safetensors")
        for key, value in old.items():
            changed = not torch.equal(new[key], value)
            assert changed == (name.startswith("vae") and key.startswith("decoder.")), (name, key)
