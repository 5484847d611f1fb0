"""Weights files of every kind, and errors that name file and key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from protocol.model.checkpoint import (
    CheckpointError,
    find_weights,
    load_into,
    modern_vae_keys,
    read_state_dict,
)
from protocol.model.config import ConfigError, read_json, read_yaml
from protocol.process.settings import SettingsError

LFS_POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 3400035733\n"


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 3)
        self.second = nn.Sequential(nn.Linear(3, 1, bias=False))
        self.register_buffer("table", torch.arange(3.0, device="cpu"))


@pytest.fixture
def state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return Net().state_dict()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt", ".bin"])
def test_every_kind_of_file(tmp_path: Path, state: dict[str, Tensor], suffix: str) -> None:
    path = tmp_path / f"w{suffix}"
    if suffix == ".safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=suffix != ".bin")
    read = read_state_dict(path)
    assert set(read) == set(state)
    assert all(torch.equal(read[key], value) for key, value in state.items())


def test_wrappings_are_taken_off(tmp_path: Path, state: dict[str, Tensor]) -> None:
    path = tmp_path / "w.pth"
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}, "epoch": 3}, path)
    assert set(read_state_dict(path)) == set(state)


@pytest.mark.parametrize("wrapper", ["state_dict", "model_state_dict"])
def test_either_wrapper_is_taken_off(tmp_path: Path, state: dict[str, Tensor], wrapper: str) -> None:
    torch.save({"dims": {"n_mels": 80}, wrapper: state}, tmp_path / "w.pt")
    assert set(read_state_dict(tmp_path / "w.pt")) == set(state)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "tiny.pt", "w.bin"])
def test_an_lfs_pointer_is_told_as_one(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text(LFS_POINTER)
    with pytest.raises(CheckpointError, match=f"{name}: is a Git LFS pointer: run git lfs pull"):
        read_state_dict(path)


@pytest.mark.parametrize("read", [read_json, read_yaml])
def test_a_configuration_that_is_an_lfs_pointer(tmp_path: Path, read: Callable[[Path], Any]) -> None:
    path = tmp_path / "config.json"
    path.write_text(LFS_POINTER)
    with pytest.raises(ConfigError, match=r"config\.json: is a Git LFS pointer: run git lfs pull"):
        read(path)


def test_weights_are_found_in_a_folder(tmp_path: Path) -> None:
    names = ("a.safetensors", "b.bin")
    with pytest.raises(CheckpointError, match=r"holds none of a\.safetensors, b\.bin"):
        find_weights(tmp_path, names)
    (tmp_path / "b.bin").touch()
    assert find_weights(tmp_path, names) == tmp_path / "b.bin"
    (tmp_path / "a.safetensors").touch()
    assert find_weights(tmp_path, names) == tmp_path / "a.safetensors"


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("executed",))


def test_pickled_code_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "w.pth"
    torch.save({"a": Harmful()}, path)
    with pytest.raises(CheckpointError, match=r"w\.pth: is damaged, or holds more than weights"):
        read_state_dict(path)
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 torn", b"\xff" * 100])
def test_damaged_file_is_named(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        read_state_dict(path)
    assert str(path) in str(caught.value)


def test_other_content_is_named(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({"steps": 3}, path)
    with pytest.raises(CheckpointError, match="steps is int, not a tensor"):
        read_state_dict(path)
    torch.save({}, path)
    with pytest.raises(CheckpointError, match="holds no weights"):
        read_state_dict(path)
    with pytest.raises(SettingsError, match=r"none\.pth: no such weights file"):
        read_state_dict(tmp_path / "none.pth")


def test_missing_key(state: dict[str, Tensor]) -> None:
    del state["second.0.weight"]
    with pytest.raises(CheckpointError, match=r"w\.pth: missing key second\.0\.weight$"):
        load_into(Net(), state, file="w.pth")
    load_into(Net(), state, file="w.pth", allow_missing=["second.*"])


def test_unexpected_key(state: dict[str, Tensor]) -> None:
    for index in range(5):
        state[f"third.{index}"] = torch.zeros(1)
    with pytest.raises(CheckpointError, match=r"unexpected keys third\.0, third\.1, third\.2 and 2 more"):
        load_into(Net(), state, file="w.pth")


def test_wrong_shape_leaves_the_module_alone(state: dict[str, Tensor]) -> None:
    state["second.0.weight"] = torch.zeros(4, 1)
    net = Net()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    words = r"w\.pth: second\.0\.weight has shape \(4, 1\), the model needs \(1, 3\)"
    with pytest.raises(CheckpointError, match=words):
        load_into(net, state, file="w.pth")
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_module_on_meta_comes_to_the_cpu(state: dict[str, Tensor]) -> None:
    with torch.device("meta"):
        net = Net()
    del state["table"]
    load_into(net, state, file="w.pth", allow_missing=["table"], dtype=torch.bfloat16)
    assert net.first.weight.dtype == torch.bfloat16
    assert net.first.weight.requires_grad
    assert net.first.weight.data_ptr() != state["first.weight"].data_ptr()
    assert torch.equal(net.get_buffer("table"), torch.arange(3.0))
    assert torch.equal(net.first.bias, state["first.bias"].bfloat16())


def test_part_of_a_module(state: dict[str, Tensor]) -> None:
    net = Net()
    before = net.first.weight.clone()
    part = {key: value for key, value in state.items() if key.startswith("second")}
    load_into(net, part, file="w.pth", only=lambda key: key.startswith("second"))
    assert torch.equal(net.first.weight, before)
    assert torch.equal(net.get_parameter("second.0.weight"), state["second.0.weight"])


def test_old_names_of_vae_attention() -> None:
    old = {
        "encoder.mid_block.attentions.0.query.weight": torch.zeros(4, 4, 1, 1),
        "encoder.mid_block.attentions.0.proj_attn.bias": torch.zeros(4),
        "encoder.key.weight": torch.zeros(2, 2),
    }
    new = modern_vae_keys(old)
    assert {key: tuple(value.shape) for key, value in new.items()} == {
        "encoder.mid_block.attentions.0.to_q.weight": (4, 4),
        "encoder.mid_block.attentions.0.to_out.0.bias": (4,),
        "encoder.key.weight": (2, 2),
    }
