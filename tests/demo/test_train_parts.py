"""The parts of training that need neither figures nor speech."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from demo.factory.train.blend import blend_states
from demo.factory.train.checkpoint import Averaged, load_training, save_training
from demo.factory.train.listen import ADAPTER
from demo.factory.train.models import channels_last
from demo.factory.train.replay import Replay
from demo.factory.train.step import Gradients, GraphedLoss, make_optimizer, warm_cosine
from demo.factory.train.variety import FASTEST, SLOWEST, color_matrices, paces, read_between, recolor


def test_replay_keeps_the_newest() -> None:
    replay = Replay(4, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    for number in range(3):
        replay.add({"x": torch.full((2, 3), float(number)), "row": torch.tensor([number, number])})
    assert len(replay) == 4
    drawn = replay.blank(64)
    replay.draw(drawn, generator)
    assert drawn["x"].shape == (64, 3)
    assert drawn["row"].dtype == torch.int64
    assert set(drawn["row"].tolist()) == {1, 2}
    assert torch.equal(drawn["x"][:, 0], drawn["row"].float())


def test_training_goes_on_with_moments_in_the_parameters_memory_order(tmp_path: Path) -> None:
    """The fused Adam takes no moments in another order, so a second call could not go on."""
    model = channels_last(nn.Conv2d(3, 4, 3), torch.device("cpu"))
    optimizer = make_optimizer(list(model.parameters()), weight_decay=0.0)
    model(torch.randn(2, 3, 8, 8)).square().mean().backward()
    optimizer.step()
    save_training(tmp_path, "part", model, Averaged(model), optimizer, 7)
    again = channels_last(nn.Conv2d(3, 4, 3), torch.device("cpu"))
    resumed = make_optimizer(list(again.parameters()), weight_decay=0.0)
    assert load_training(tmp_path, "part", again, None, resumed) == 7
    for ours, theirs in zip(again.parameters(), model.parameters(), strict=True):
        for name in ("exp_avg", "exp_avg_sq"):
            moment = resumed.state[ours][name]
            assert moment.stride() == ours.stride() and moment.dtype == torch.float32
            torch.testing.assert_close(moment, optimizer.state[theirs][name], rtol=1e-2, atol=1e-6)
    again(torch.randn(2, 3, 8, 8)).square().mean().backward()
    resumed.step()


def test_gradients_lie_in_one_tensor_and_are_clipped() -> None:
    torch.manual_seed(0)
    model = channels_last(nn.Conv2d(3, 4, 3), torch.device("cpu"))
    other = nn.Conv2d(3, 4, 3)
    other.load_state_dict(model.state_dict())
    pictures = torch.randn(2, 3, 8, 8)

    def loss_of(net: nn.Module, x: Tensor) -> Tensor:
        made: Tensor = net(x)
        return 100 * made.square().mean()

    gradients = Gradients(list(model.parameters()))
    graphed = GraphedLoss(
        lambda held: (loss_of(model, held["x"]), torch.zeros(())), {"x": pictures.clone()}, gradients
    )
    for _ in range(2):  # the second call starts from nothing again
        loss, _ = graphed()
    wanted = loss_of(other, pictures)
    wanted.backward()
    assert torch.allclose(loss, wanted.detach())
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert ours.grad is not None
        assert theirs.grad is not None
        assert torch.allclose(ours.grad, theirs.grad, atol=1e-5)
    gradients.settle(limit=1.0)
    assert abs(float(gradients.flat.norm()) - 1.0) < 1e-4


def test_learning_rate_warms_up_and_falls() -> None:
    assert warm_cosine(0, 0.0, 1.0, 0.1) < 0.01
    assert warm_cosine(500, 0.0, 1.0, 0.1) == 1.0
    assert abs(warm_cosine(500, 1.0, 1.0, 0.1) - 0.1) < 1e-9


def test_other_colours_keep_grey_and_the_unchanged() -> None:
    matrix, offset = color_matrices(256, torch.Generator().manual_seed(1))
    same = (matrix == torch.eye(3)).flatten(1).all(1)
    assert 0.4 < same.float().mean() < 0.8
    assert (offset[same] == 0).all()
    picture = torch.rand(256, 3, 4, 4)
    changed = recolor(picture, matrix, offset)
    assert torch.allclose(changed[same], picture[same], atol=1e-6)
    grey = recolor(torch.full((256, 3, 2, 2), 0.4), matrix, offset)
    assert (grey.amax(1) - grey.amin(1)).max() < 1e-4


def write_state(state: Path, value: float) -> None:
    state.mkdir()
    for part in ("vae", "networks"):
        for kind in ("weights", "average"):
            save_file({"decoder.x": torch.full((2,), value)}, state / f"{part}.{kind}.safetensors")
        (state / f"{part}.moments.safetensors").touch()
    save_file({"layers.0.down": torch.full((2,), value)}, state / ADAPTER)


def test_weights_between_two_states(tmp_path: Path) -> None:
    write_state(tmp_path / "a", 1.0)
    write_state(tmp_path / "b", 3.0)
    names = [f"{part}.{kind}.safetensors" for part in ("vae", "networks") for kind in ("weights", "average")]
    blend_states(tmp_path / "a", tmp_path / "b", 0.25)
    for name in names:
        assert load_file(tmp_path / "a" / name)["decoder.x"].tolist() == [1.5, 1.5]
    assert load_file(tmp_path / "a" / ADAPTER)["layers.0.down"].tolist() == [1.5, 1.5]
    assert not list((tmp_path / "a").glob("*.moments.safetensors"))
    blend_states(tmp_path / "a", tmp_path / "b", 0.25, whole="decoder.")
    assert load_file(tmp_path / "a" / "vae.average.safetensors")["decoder.x"].tolist() == [3.0, 3.0]
    with pytest.raises(ValueError, match="--share"):
        blend_states(tmp_path / "a", tmp_path / "b", 1.5)
    save_file({"decoder.x": torch.zeros(3)}, tmp_path / "b" / "networks.average.safetensors")
    with pytest.raises(ValueError, match="different networks"):
        blend_states(tmp_path / "a", tmp_path / "b", 0.5)
    assert load_file(tmp_path / "a" / "vae.weights.safetensors")["decoder.x"].tolist() == [3.0, 3.0]


def test_a_part_that_is_the_same_in_both_states_keeps_its_moments(tmp_path: Path) -> None:
    write_state(tmp_path / "a", 1.0)
    write_state(tmp_path / "b", 1.0)
    save_file({"decoder.x": torch.full((2,), 3.0)}, tmp_path / "b" / "vae.weights.safetensors")
    blend_states(tmp_path / "a", tmp_path / "b", 0.5)
    assert not (tmp_path / "a" / "vae.moments.safetensors").exists()
    assert (tmp_path / "a" / "networks.moments.safetensors").exists()


def test_voices_between_samples() -> None:
    ramp = torch.arange(100, dtype=torch.int16) * 7
    position = torch.tensor([3.0, 10.25, 50.5], dtype=torch.float64)
    assert torch.allclose(read_between(ramp, position), 7 * position.float())
    pace = paces(512, torch.Generator().manual_seed(2))
    assert pace.min() >= SLOWEST
    assert pace.max() <= FASTEST
    assert 0.2 < (pace == 1).float().mean() < 0.6
