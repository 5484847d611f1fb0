"""GPUs that torch cannot use, and those whose half precision is poor: each with the reason and the remedy.

Stand-ins give torch.cuda's answers, as the machines of public bug reports gave them.
"""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from gpu_worker.engine.device import device_name
from protocol.model.hardware import gpu_fitness
from protocol.model.hardware.devices import decoder_device, denoiser_device, device_named, whisper_device
from protocol.model.hardware.drivers import driver_is_there, only_a_cpu
from protocol.model.hardware.dtypes import dtypes_to_try
from protocol.model.hardware.gpu_fitness import (
    has_poor_float16,
    usable_gpus,
    why_cpu,
    why_no_gpu,
)
from protocol.process.settings import SettingsError, load_settings

#: The code in PyTorch's wheel for CUDA 12.8.
WHEEL = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]

Card = tuple[str, tuple[int, int]]
PASCAL: Card = ("NVIDIA GeForce GTX 1080", (6, 1))
SIXTEEN: Card = ("NVIDIA GeForce GTX 1660 SUPER", (7, 5))
TWENTY: Card = ("NVIDIA GeForce RTX 2070", (7, 5))
ADA: Card = ("NVIDIA GeForce RTX 4090", (8, 9))


def _number(device: int | torch.device) -> int:
    return device if isinstance(device, int) else device.index or 0


class Machine:
    """Sets torch.cuda's answers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch = monkeypatch
        monkeypatch.setattr(gpu_fitness, "driver_is_there", lambda: True)
        monkeypatch.setattr(torch.version, "cuda", "12.8")
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def has(self, *cards: Card, wheel: list[str] | None = None) -> None:
        """The machine's cards, and the code in torch's wheel."""
        codes = WHEEL if wheel is None else wheel
        self._patch.setattr(torch.cuda, "is_available", lambda: bool(cards))
        self._patch.setattr(torch.cuda, "device_count", lambda: len(cards))
        self._patch.setattr(torch.cuda, "get_arch_list", lambda: codes)
        self._patch.setattr(torch.cuda, "get_device_capability", lambda device: cards[_number(device)][1])
        self._patch.setattr(torch.cuda, "get_device_name", lambda device: cards[_number(device)][0])

    def fails(self, error: str) -> None:
        """Initialising CUDA fails with this text."""

        def init() -> None:
            raise RuntimeError(error)

        self.has()
        self._patch.setattr(torch.cuda, "init", init)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def places(*argv: str) -> tuple[str, str, str]:
    """The devices of denoiser, decoder and Whisper."""
    settings = load_settings(list(argv), {})
    found = denoiser_device(settings), decoder_device(settings), whisper_device(settings, "padded")
    return str(found[0]), str(found[1]), str(found[2])


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            "The NVIDIA driver on your system is too old (found version 11040). Please update your driver",
            "driver is too old (it serves CUDA 11.4), and this PyTorch is made for CUDA 12.8; install",
        ),
        ("Unexpected error: driver/library version mismatch", "restart the machine"),
        ("CUDA unknown error - this may be due to an incorrectly set up environment", "does not start"),
        (
            "No CUDA GPUs are available",
            "CUDA finds no GPU (No CUDA GPUs are available); see whether nvidia-smi",
        ),
    ],
)
def test_a_driver_that_cannot_serve(
    machine: Machine, error: str, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    machine.fails(error)
    with caplog.at_level(logging.WARNING):
        assert places() == ("cpu", "cpu", "cpu")
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("the CPU computes, although NVIDIA's driver is there: ")
    assert words in line
    with pytest.raises(SettingsError) as caught:
        device_named("cuda:0", "--gpu-devices")
    assert str(caught.value).startswith("--gpu-devices cuda:0: this machine has 0 CUDA devices: ")
    assert words in str(caught.value)


def test_torch_for_the_cpu_beside_a_driver(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.has()
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "is a build for the CPU alone" in str(why_no_gpu())


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_gpus_that_the_user_hides_are_no_trouble(
    machine: Machine, hidden: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.fails("No CUDA GPUs are available")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert why_no_gpu() is None and why_cpu() is None


def test_no_driver_no_word(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.has()
    monkeypatch.setattr(gpu_fitness, "driver_is_there", lambda: False)
    assert why_no_gpu() is None


def test_a_card_older_than_the_wheel(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    machine.has(PASCAL)
    with caplog.at_level(logging.WARNING):
        assert places() == ("cpu", "cpu", "cpu")
    words = "GTX 1080 has compute capability 6.1, and this PyTorch"
    assert words in caplog.text and "has code for 7.5 to 12.0; use an older PyTorch" in caplog.text
    with pytest.raises(SettingsError, match=words):
        device_named("cuda:0", "--gpu-devices")


def test_auto_takes_the_card_that_serves(machine: Machine) -> None:
    machine.has(PASCAL, ADA)
    assert usable_gpus() == [1]
    assert places() == ("cuda:1", "cuda:1", "cuda:1")
    assert why_cpu() is None


@pytest.mark.parametrize(
    ("wheel", "capability", "usable"),
    [
        (["sm_80", "sm_86"], (8, 9), True),  # same major capability, higher minor one
        (["sm_86"], (8, 0), False),
        (["sm_90", "compute_90"], (12, 0), True),  # compiled as it is loaded
        (["sm_90"], (12, 0), False),
        (["sm_90a"], (9, 0), True),
        (["gfx942"], (9, 4), True),  # another maker's
    ],
)
def test_the_code_that_runs_on_a_card(
    machine: Machine, wheel: list[str], capability: tuple[int, int], usable: bool
) -> None:
    machine.has(("a card", capability), wheel=wheel)
    assert bool(usable_gpus()) is usable


def test_a_card_newer_than_the_wheel(machine: Machine) -> None:
    machine.has(("NVIDIA GeForce RTX 5090", (12, 0)), wheel=["sm_80", "sm_90"])
    assert "use a newer PyTorch" in str(why_cpu())


@pytest.mark.parametrize(("card", "poor"), [(SIXTEEN, True), (TWENTY, False), (ADA, False)])
def test_half_precision_of_a_card(machine: Machine, card: Card, poor: bool) -> None:
    machine.has(card)
    device = torch.device("cuda", 0)
    assert has_poor_float16(device) is poor
    assert dtypes_to_try("auto", device) == [torch.float32 if poor else torch.float16]
    assert dtypes_to_try("float16", device) == [torch.float16]  # the user's word counts
    assert card[0] in device_name(device)


def test_files_of_the_driver(tmp_path: Path) -> None:
    assert not driver_is_there(tmp_path)
    for name in ("dev/dxg", "usr/lib/wsl/lib/libcuda.so.1"):  # on WSL any GPU has the first
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
        assert driver_is_there(tmp_path) is name.endswith("libcuda.so.1")
    (tmp_path / "linux/dev").mkdir(parents=True)
    (tmp_path / "linux/dev/nvidiactl").touch()
    assert driver_is_there(tmp_path / "linux")


def test_only_a_cpu_is_sure_by_the_drivers_files(tmp_path: Path) -> None:
    assert only_a_cpu(["auto"], tmp_path)
    assert only_a_cpu(["cpu", "auto"], tmp_path)
    assert not only_a_cpu(["cuda:0"], tmp_path)
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "kfd").touch()
    assert not only_a_cpu(["auto"], tmp_path)
    assert only_a_cpu(["cpu"], tmp_path)
