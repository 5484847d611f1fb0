"""Arithmetic and devices: one answer each for all stages, from texts of processors and numbers of GPUs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from audio_worker.features import choose_dtype
from encoder_worker.decode import plans_for
from protocol.model.config import DTYPE_NAMES
from protocol.model.hardware.cpu_features import cpu_has_bfloat16
from protocol.model.hardware.devices import (
    decoder_device,
    denoiser_device,
    denoiser_devices,
    device_named,
    whisper_device,
)
from protocol.model.hardware.dtypes import DTYPES, dtype_name, dtypes_to_try
from protocol.process.settings import SettingsError, load_settings

CPU = torch.device("cpu")

X86 = """processor\t: {core}
vendor_id\t: GenuineIntel
model name\t: Intel(R) Xeon(R) with bf16 in its name
flags\t\t: fpu vme sse4_2 avx2 avx512f avx512_vnni {features} gfni
vmx flags\t: vnmi preemption_timer amx_bf16
bugs\t\t: spectre_v1
"""
ARM = """processor\t: {core}
BogoMIPS\t: 243.75
Features\t: fp asimd evtstrm aes sve i8mm {features} dgh
CPU implementer\t: 0x41
CPU part\t: 0xd40
"""


def cpuinfo(folder: Path, text: str, *features: str) -> Path:
    """The kernel's text for a machine with one core for each of `features`."""
    path = folder / "cpuinfo"
    path.write_text("\n".join(text.format(core=core, features=more) for core, more in enumerate(features)))
    return path


@pytest.mark.parametrize(
    ("text", "features", "expected"),
    [
        (X86, ("avx512_bf16", "avx512_bf16"), True),
        (X86, ("amx_bf16 amx_tile amx_int8",) * 2, True),
        (X86, ("amx_tile", "amx_tile"), False),  # tiles alone multiply no bfloat16
        (X86, ("", ""), False),
        (ARM, ("bf16", "bf16"), True),
        (ARM, ("", ""), False),
        (ARM, ("bf16", ""), False),  # small cores beside large ones
        (ARM, ("svebf16",), False),
    ],
    ids=["avx512", "amx", "tiles", "avx2", "arm", "older arm", "mixed arm", "sve alone"],
)
def test_bfloat16_of_a_processor(
    tmp_path: Path, text: str, features: tuple[str, ...], expected: bool
) -> None:
    assert cpu_has_bfloat16(cpuinfo(tmp_path, text, *features)) is expected


def test_a_processor_that_nothing_is_known_of(tmp_path: Path) -> None:
    assert not cpu_has_bfloat16(tmp_path / "none")
    (tmp_path / "empty").touch()
    assert not cpu_has_bfloat16(tmp_path / "empty")


@pytest.mark.parametrize("text", [X86, ARM])
@pytest.mark.parametrize("fast", [True, False])
def test_all_three_stages_have_the_same_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, fast: bool
) -> None:
    features = {X86: "avx512_bf16", ARM: "bf16"}[text] if fast else ""
    path = cpuinfo(tmp_path, text, features)
    monkeypatch.setattr(cpu_has_bfloat16, "__defaults__", (path,))
    assert (torch.bfloat16 in dtypes_to_try("auto", CPU)) is fast  # asked by the GPU worker
    assert (torch.bfloat16 in {plan.dtype for plan in plans_for(CPU, "auto")}) is fast
    assert (choose_dtype(load_settings([], {}), CPU) == torch.bfloat16) is fast


def test_dtypes_by_name() -> None:
    assert {dtype_name(dtype): dtype for dtype in DTYPES.values()} == DTYPES
    assert set(DTYPE_NAMES.values()) == set(DTYPES)
    for name, dtype in DTYPES.items():
        assert dtypes_to_try(name, CPU) == dtypes_to_try(name, torch.device("cuda")) == [dtype]
        assert load_settings(["--dtype", name], {}).dtype == name
    assert dtypes_to_try("auto", torch.device("cuda")) == [torch.float16]


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.usefixtures("two_gpus")
def test_devices_where_there_are_two_gpus() -> None:
    def devices(*argv: str) -> tuple[str, str, str]:
        settings = load_settings(list(argv), {})
        return (
            str(denoiser_device(settings)),
            str(decoder_device(settings)),
            str(whisper_device(settings, "padded")),
        )

    assert devices() == ("cuda:0", "cuda:1", "cuda:0")
    assert devices("--gpu-devices", "cpu") == ("cpu", "cpu", "cpu")
    two = ("--gpu-devices", "cuda,cuda:1")
    assert devices(*two) == ("cuda:0", "cuda:0", "cuda:0")
    assert devices(*two, "--worker-index", "1") == ("cuda:1", "cuda:1", "cuda:0")
    assert devices("--gpu-devices", "cpu+cpu") == ("cpu", "cpu", "cpu")


@pytest.mark.usefixtures("two_gpus")
def test_a_team_of_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every worker has its own team. `+` parts its devices, the leader's first."""

    def team(words: str, index: str = "0") -> list[str]:
        settings = load_settings(["--gpu-devices", words, "--worker-index", index], {})
        return [str(device) for device in denoiser_devices(settings)]

    names = {0: "NVIDIA H200", 1: "NVIDIA H200"}
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: names[device.index])
    assert team("cpu,cuda:1+cuda:0", "1") == ["cuda:1", "cuda:0"]
    assert team("cpu,cuda:1+cuda:0") == ["cpu"]
    of_two = load_settings(["--gpu-devices", "cuda:1+cuda:0"], {})
    assert str(decoder_device(of_two)) == "cuda:0"  # both denoise, so the encoders take them in turn
    assert str(whisper_device(of_two, "padded")) == "cuda:1"
    for words, reason in {
        "cuda:0+cuda:0": "a GPU can be in a team once",
        "cuda:0+cuda:1+cuda:0+cuda:1+cuda:0": "5 devices; a team has 2, 3, 4 or 6",
        "cpu+cuda:0": "a team is made of GPUs, or of cpu alone",
        "cuda:0+cuda:2": "this machine has 2 CUDA devices",
        "cuda:0+": "not a device",
    }.items():
        with pytest.raises(SettingsError, match=reason):
            team(words)
    names[1] = "NVIDIA L4"
    with pytest.raises(SettingsError, match="of one kind, and these are NVIDIA H200 and NVIDIA L4"):
        team("cuda:0+cuda:1")


@pytest.mark.usefixtures("two_gpus")
def test_encoder_workers_take_devices_in_turn() -> None:
    def device(*argv: str) -> str:
        return str(decoder_device(load_settings(list(argv), {})))

    assert device("--worker-index", "1") == "cuda:0"
    assert device("--encoder-devices", "cpu,cuda:1", "--worker-index", "1") == "cuda:1"
    assert device("--encoder-devices", "cpu,cuda:1", "--worker-index", "2") == "cpu"


def test_whisper_needs_a_gpu_for_the_padded_window_alone(two_gpus: None) -> None:
    assert str(whisper_device(load_settings([], {}), "short")) == "cpu"


def test_devices_without_a_gpu(no_gpu: None) -> None:
    settings = load_settings([], {})
    devices = denoiser_device(settings), decoder_device(settings), whisper_device(settings, "padded")
    assert set(devices) == {CPU}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cuda:2", "this machine has 2 CUDA devices"),
        ("gpu", "not a device; write cpu, cuda:0 or auto"),
        ("meta", "not a device"),
    ],
)
def test_a_device_that_is_not_there(two_gpus: None, name: str, words: str) -> None:
    with pytest.raises(SettingsError, match=f"--gpu-devices {name}: {words}"):
        device_named(name, "--gpu-devices")
    with pytest.raises(SettingsError, match=f"--encoder-devices {name}: {words}"):
        decoder_device(load_settings(["--encoder-devices", name], {}))
    with pytest.raises(SettingsError, match=f"--gpu-devices {name}: {words}"):
        denoiser_device(load_settings(["--gpu-devices", name], {}))


def test_what_must_be_set_before_torch_does_not_import_it() -> None:
    modules = ("cpu_features", "gpu_allocator", "threads")
    code = "".join(f"import protocol.model.hardware.{name}\n" for name in modules)
    code += "import sys; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
