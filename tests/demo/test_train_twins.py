"""Twins: pairs of clips that differ in their hands alone, and their part of the loss."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from demo.factory.evaluate.scores import REACH, differing, rest_of
from demo.factory.train import data
from demo.factory.train.both_sizes import SAME, BothSizes, unlike
from demo.factory.train.compare import shared_normal
from demo.factory.train.data import Material, Poses
from demo.factory.train.replay import Replay
from demo.factory.train.sharp import train_sharp

pytestmark = pytest.mark.slow

SAMPLE = Path(__file__).resolve().parents[2] / "demo/factory/evaluate/sample"
CPU = torch.device("cpu")


def material(*, twins: bool = True) -> Material:
    return Material(
        SAMPLE / "identities.npz", SAMPLE / "speech.npz", CPU, seed=3, tracks=2,
        unknown_people=True, unknown_voices=True, fine=True, twins=twins,
    )  # fmt: skip


@pytest.fixture
def all_twins(monkeypatch: pytest.MonkeyPatch) -> Material:
    monkeypatch.setattr(data, "TWINS", 1.0)
    return material()


def rest(there: Tensor, here: Tensor) -> Tensor:
    """Greatest difference of two pictures (n, 3, h, w) away from those that are plain."""
    return ((there - here).abs() * rest_of(differing(there, here))).amax()


def test_twin_clips_have_other_hands_and_nothing_else(all_twins: Material) -> None:
    clips = all_twins.clips(2, frames=2)
    assert clips.twin.all()
    for same in (clips.pcm, clips.mouth, clips.identity, clips.frame, clips.reference):
        assert torch.equal(same[0], same[1])
    assert clips.track.tolist() in ([0, 1], [1, 0])
    first, second = clips.pictures
    assert differing(first, second).mean() > 0.01
    assert rest_of(differing(first, second)).mean() > 0.3
    assert rest(first, second) < 0.02


def test_twin_pictures_have_other_hands_and_nothing_else(all_twins: Material) -> None:
    drawn, moments = all_twins.drawings(2)
    assert moments.twin.all()
    assert torch.equal(moments.head[0], moments.head[1])
    assert moments.pressed[0] == moments.pressed[1]
    assert not torch.equal(moments.hands[0], moments.hands[1])
    assert rest(drawn[:1], drawn[1:]) < 0.02


def test_pairs_that_are_no_twins_have_conditions_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "TWINS", 0.0)
    clips = material().clips(2, frames=2)
    assert not clips.twin.any()
    assert not torch.equal(clips.pcm[0], clips.pcm[1])


def test_material_without_twins_has_none() -> None:
    clips = material(twins=False).clips(3, frames=2)
    assert clips.twin.shape == (3,)
    assert not clips.twin.any()


def test_what_differs_away_from_the_hands_is_what_counts() -> None:
    truth = torch.full((4, 3, 64, 64), 0.5)  # two clips of two frames
    truth[2:, :, :8, :8] = 0.9  # the hand of the second
    twin = torch.ones(4, dtype=torch.bool)
    assert unlike(truth, truth, twin, 2) == pytest.approx(torch.tensor(SAME).log10())
    wrong_hand, wrong_rest = truth.clone(), truth.clone()
    wrong_hand[2:, :, : 8 + REACH, : 8 + REACH] += 0.1
    wrong_rest[2:, :, 40:] += 0.1
    assert unlike(wrong_hand, truth, twin, 2) == unlike(truth, truth, twin, 2)
    assert unlike(wrong_rest, truth, twin, 2) > unlike(truth, truth, twin, 2) + 2
    assert unlike(wrong_rest, truth, ~twin, 2) == unlike(truth, truth, twin, 2)  # no twins
    both = wrong_rest.clone()
    both[:2, :, 40:] += 0.1  # both are wrong by as much
    assert unlike(both, truth, twin, 2) == pytest.approx(float(unlike(truth, truth, twin, 2)), abs=1e-3)


def test_the_loss_counts_what_differs_between_twins(all_twins: Material) -> None:
    drawn, moments = all_twins.drawings(2)
    small = data.halved(drawn)
    spoilt = small.clone()
    spoilt[1] += 0.05
    sizes, plain = BothSizes(all_twins), BothSizes(material(twins=False))
    right, wrong = (float(sizes.loss(p, drawn, drawn, moments)) for p in (small, spoilt))
    assert wrong - right > 0.05 + sum(
        sign * float(plain.loss(p, drawn, drawn, moments)) for sign, p in ((1, spoilt), (-1, small))
    )


def test_a_batch_that_cannot_be_pairs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--batch 6: choose a multiple of 4"):
        train_sharp(
            material(), tmp_path, tmp_path, minutes=1, batch=6, peak=1e-3, final=1e-4, memory=8
        )  # fmt: skip
    assert not list(tmp_path.iterdir())


def test_an_odd_number_of_tracks_is_refused() -> None:
    with pytest.raises(ValueError, match="--tracks 3: choose an even number"):
        Poses.draw(3, CPU, twins=True)


def test_neighbours_are_remembered_and_drawn_together() -> None:
    replay = Replay(8, CPU, together=2)
    for first in range(0, 12, 4):  # more than it holds
        replay.add({"number": torch.arange(first, first + 4)})
    into = replay.blank(6)
    replay.draw(into, torch.Generator().manual_seed(0))
    pairs = into["number"].view(-1, 2)
    assert (pairs[:, 0] % 2 == 0).all()
    assert torch.equal(pairs[:, 0] + 1, pairs[:, 1])
    assert pairs.min() >= 4


def test_neighbours_have_the_same_noise() -> None:
    noise = shared_normal(torch.zeros(4, 3), 2)
    assert torch.equal(noise[0], noise[1])
    assert torch.equal(noise[2], noise[3])
    assert not torch.equal(noise[0], noise[2])
