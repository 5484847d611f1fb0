"""The decoder in eight bits: its distance to float32, its ranges, and the choice of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from demo.factory.calibrate import distance, measured_ranges
from encoder_worker import decode
from encoder_worker.decode import ClipDecoder
from encoder_worker.graph_decoder import RANGES_FILE, DecoderRecord
from encoder_worker.vae.decoders import Decoder, load_decoder
from encoder_worker.vae.int8 import EightBitConv, read_ranges, rounding_layers, with_eight_bits, write_ranges
from gpu_worker.avatars.vae_encoder import load_vae_encoder
from protocol.model.assets import avatar_paths, picture_files
from protocol.model.config import ModelConfig
from protocol.model.cpu_graph import CpuEngine
from protocol.model.pictures import read_picture
from protocol.model.vae_folder import VaeFolder
from protocol.process.settings import Settings
from tests.encoder_worker.folders import make_lite, make_tiny

CPU = torch.device("cpu")


def noise(seed: int = 0) -> torch.Tensor:
    return torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def lite(tmp_path: Path) -> Decoder:
    make_lite(tmp_path)
    return load_decoder(VaeFolder.open(tmp_path))


def calibrated(folder: Path, decoder: Decoder) -> None:
    write_ranges(folder, decoder, measured_ranges(decoder, noise()))


def warmed(folder: Path, decoder: Decoder, engine: CpuEngine) -> ClipDecoder:
    made = ClipDecoder(decoder, CPU, "float32", engine=engine, ranges=read_ranges(folder, decoder))
    made.warm_up(8, 8)
    return made


def test_a_convolution_rounds_inputs_and_weights() -> None:
    conv = torch.nn.Conv2d(1, 1, 1, bias=False)
    with torch.no_grad():
        conv.weight.fill_(127.0)
    rounding = EightBitConv(conv, greatest=25.5)  # a step of 0.1
    x = torch.tensor([-1.0, 0.04, 0.06, 25.5, 30.0]).reshape(1, 1, 1, 5)
    assert rounding(x).flatten().tolist() == pytest.approx([0.0, 0.0, 12.7, 3238.5, 3238.5], rel=1e-5)


def test_the_bundled_decoder_keeps_its_pictures() -> None:
    """The ranges in the repository belong to the weights, and cost little on the bundled people."""
    settings = Settings()
    config = ModelConfig.load(settings.config)
    folder = VaeFolder.of(config)
    decoder = load_decoder(folder)
    ranges = read_ranges(folder.path, decoder)
    assert ranges is not None, "run python -m demo.factory.calibrate"
    size = config.picture_size(settings)
    files = list(picture_files(avatar_paths(settings)).values())[:2]
    pictures = np.stack([np.asarray(read_picture(file, size), np.float32) for file in files])
    with torch.inference_mode():
        latents = load_vae_encoder(folder)(torch.from_numpy(pictures).permute(0, 3, 1, 2) / 127.5 - 1)
    latents = latents / decoder.scaling + decoder.shift
    assert distance(decoder, with_eight_bits(decoder, ranges), latents) > 47


def test_ranges_are_the_greatest_inputs(lite: Decoder) -> None:
    layers = dict(rounding_layers(lite))
    assert list(layers) == [f"decoder.levels.{level}.conv{n}" for level in (0, 2) for n in (1, 2)]
    ranges = measured_ranges(lite, noise())
    entering = torch.relu(lite.decoder.conv_in(noise()))  # type: ignore[operator, union-attr]
    assert ranges["decoder.levels.0.conv1"] == pytest.approx(float(entering.max()), rel=1e-5)
    assert distance(lite, with_eight_bits(lite, ranges), noise()) > 40
    assert not any(isinstance(layer, EightBitConv) for layer in lite.modules())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda table: table | {"weights": "0" * 24}, "other weights"),
        (lambda table: table | {"ranges": {"decoder.conv_in": 1.0}}, "other weights"),
        (lambda table: table | {"ranges": 1}, "cannot be used"),
        (lambda table: [], "cannot be used"),
    ],
)
def test_ranges_that_do_not_belong_are_left_out(
    tmp_path: Path, lite: Decoder, caplog: pytest.LogCaptureFixture, change: object, said: str
) -> None:
    calibrated(tmp_path, lite)
    assert read_ranges(tmp_path, lite) is not None
    file = tmp_path / RANGES_FILE
    file.write_text(json.dumps(change(json.loads(file.read_text()))))  # type: ignore[operator]
    assert read_ranges(tmp_path, lite) is None
    assert said in caplog.text


def test_other_decoders_have_no_ranges(tmp_path: Path) -> None:
    make_tiny(tmp_path)
    decoder = load_decoder(VaeFolder.open(tmp_path))
    assert read_ranges(tmp_path, decoder) is None
    with pytest.raises(ValueError, match="no convolutions that round"):
        measured_ranges(decoder, noise())


@pytest.mark.parametrize(
    ("seconds", "way"),
    [
        ([1.0, 0.6, 2.0], "int8 and float32 by OpenVINO"),
        ([1.0, 0.8, 2.0], "float32 by OpenVINO"),  # a fifth less is not worth the flicker
        ([2.0, 1.0, 0.5], "float32 c"),
    ],
)
def test_the_fastest_decodes(
    tmp_path: Path, lite: Decoder, monkeypatch: pytest.MonkeyPatch, seconds: list[float], way: str
) -> None:
    pytest.importorskip("openvino")
    calibrated(tmp_path, lite)
    monkeypatch.setattr(decode, "best_times", lambda tasks: seconds)
    made = warmed(tmp_path, lite, CpuEngine(False, tmp_path, 1, eight_bit=True))
    assert made.describe().startswith(way)


def test_eight_bits_are_served_where_they_are_forced(tmp_path: Path, lite: Decoder) -> None:
    """By OpenVINO, whose rounding agrees with torch's."""
    pytest.importorskip("openvino")
    calibrated(tmp_path, lite)
    made = warmed(tmp_path, lite, CpuEngine(True, tmp_path, 1, eight_bit=True))
    assert made.describe() == "int8 and float32 by OpenVINO"
    ranges = read_ranges(tmp_path, lite)
    assert ranges is not None
    with torch.inference_mode():
        expected = with_eight_bits(lite, ranges)(noise(3)[:2] / lite.scaling).add(1).mul(127.5)
    pixels = np.concatenate(list(made.decode(noise(3)[:2].half().numpy())))
    difference = pixels.transpose(0, 3, 1, 2) - expected.clamp(0, 255).numpy()
    assert float(np.abs(difference).mean()) < 1


def test_eight_bits_without_ranges_are_told(
    tmp_path: Path, lite: Decoder, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("openvino")
    made = warmed(tmp_path, lite, CpuEngine(True, tmp_path, 1, eight_bit=True))
    assert made.describe() == "float32 by OpenVINO"
    assert "no ranges for eight bits" in caplog.text


def test_new_ranges_make_a_record_void(
    tmp_path: Path, lite: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    config = ModelConfig.load(Settings().config)
    settings = Settings(gpu_devices=("cpu",), encoder_devices=("cpu",))
    names = set()
    for _ in range(2):
        names.add(DecoderRecord(settings, config, VaeFolder.open(tmp_path), 2)._name)
        calibrated(tmp_path, lite)
    assert len(names) == 2
