"""VAE folders of all three kinds, the clip decoder, and its refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file

from encoder_worker.decode import ClipDecoder, plans_for
from encoder_worker.latents import DecodeError
from encoder_worker.vae.decoders import load_decoder
from protocol.model.checkpoint import CheckpointError
from protocol.model.config import ConfigError, ModelConfig
from protocol.model.vae_folder import VaeFolder
from tests.encoder_worker.folders import make_kl, make_lite, make_tiny
from tests.helpers.official_layout import write_official_layout
from tests.helpers.parity import draw_weights, golden, relative_error, tiny_configs

CPU = torch.device("cpu")


def latents(frames: int = 5, channels: int = 4, h: int = 6, w: int = 4) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((frames, channels, h, w)).astype(np.float16)


def to_pixels(pictures: torch.Tensor) -> np.ndarray:
    return ((pictures + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()


def close(decoder: ClipDecoder, scaled: np.ndarray, wanted: np.ndarray) -> None:
    chunks = list(decoder.decode(scaled))
    assert [len(chunk) for chunk in chunks] == [2, 2, 1]
    difference = np.abs(np.concatenate(chunks).astype(int) - wanted.astype(int))
    assert difference.max() <= 1


@torch.no_grad()
def test_kl(tmp_path: Path) -> None:
    vae, scaled = make_kl(tmp_path), latents()
    wanted = vae.decode(torch.from_numpy(scaled).float() / vae.config.scaling_factor).sample
    decoder = load_decoder(VaeFolder.open(tmp_path))
    assert (decoder.kind, decoder.channels, decoder.factor) == ("AutoencoderKL", 4, 2)
    close(ClipDecoder(decoder, CPU, "float32"), scaled, to_pixels(wanted))


@torch.no_grad()
def test_tiny(tmp_path: Path) -> None:
    vae, scaled = make_tiny(tmp_path), latents()
    wanted = vae.decode(torch.from_numpy(scaled).float()).sample
    decoder = load_decoder(VaeFolder.open(tmp_path))
    assert decoder.factor == 4
    close(ClipDecoder(decoder, CPU, "float32"), scaled, to_pixels(wanted))


@torch.no_grad()
def test_lite(tmp_path: Path) -> None:
    lite, scaled = make_lite(tmp_path), latents()
    decoder = load_decoder(VaeFolder.open(tmp_path))
    assert decoder.factor == 4
    close(
        ClipDecoder(decoder, CPU, "float32"), scaled, to_pixels(lite(torch.from_numpy(scaled).float() / 0.5))
    )


@torch.no_grad()
def test_decoder_matches_the_official_numbers(tmp_path: Path) -> None:
    numbers = golden("vae.npz")
    vae = AutoencoderKL.from_config(tiny_configs()["vae"])
    draw_weights(vae, "vae")
    vae.save_pretrained(tmp_path)
    error = relative_error(
        load_decoder(VaeFolder.open(tmp_path))(torch.from_numpy(numbers["z"])), numbers["decoded"]
    )
    print(f"parity: VAE decode rel err {error:.1e}")
    assert error <= 1e-4


@torch.no_grad()
def test_attention_names_of_older_conversions(tmp_path: Path) -> None:
    vae = make_kl(tmp_path)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    old = {}
    for key, value in load_file(file).items():
        name = key
        for today, before in {
            "to_q": "query",
            "to_k": "key",
            "to_v": "value",
            "to_out.0": "proj_attn",
        }.items():
            name = name.replace(f".{today}.", f".{before}.")
        convolution = name != key and value.ndim == 2
        old[name] = value[:, :, None, None].contiguous() if convolution else value
    save_file(old, file)
    z = torch.randn(1, 4, 4, 4)
    torch.testing.assert_close(load_decoder(VaeFolder.open(tmp_path))(z), vae.decode(z).sample)


def test_the_plan_is_chosen_by_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_lite(tmp_path)
    monkeypatch.setattr("protocol.model.hardware.arithmetic.cpu_has_bfloat16", lambda: True)
    decoder = ClipDecoder(load_decoder(VaeFolder.open(tmp_path)), CPU, "auto")
    assert decoder.plan in plans_for(CPU, "auto") and len(plans_for(CPU, "auto")) == 3
    assert decoder.warm_up(4, 4) > 0
    exact = ClipDecoder(load_decoder(VaeFolder.open(tmp_path)), CPU, "float32")
    assert exact.plan.dtype == torch.float32
    for fast, slow in zip(decoder.decode(latents()), exact.decode(latents()), strict=True):
        assert np.abs(fast.astype(int) - slow.astype(int)).max() <= 3


def test_refusals(tmp_path: Path) -> None:
    make_lite(tmp_path)
    decoder = ClipDecoder(load_decoder(VaeFolder.open(tmp_path)), CPU, "float32")
    with pytest.raises(DecodeError, match=r"shape \(5, 8, 6, 4\); this VAE takes 4 channels"):
        next(decoder.decode(latents(channels=8)))
    broken = latents()
    broken[3, 0, 0, 0] = np.nan
    with pytest.raises(DecodeError, match="not finite"):
        next(decoder.decode(broken))


def test_an_overflowing_decoder_is_told(tmp_path: Path) -> None:
    make_lite(tmp_path)
    vae = load_decoder(VaeFolder.open(tmp_path))
    for parameter in vae.parameters():
        parameter.mul_(1e30)
    with pytest.raises(DecodeError, match="output is not finite"):
        next(ClipDecoder(vae, CPU, "float32").decode(latents()))


def test_damaged_folders_name_file_and_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.json"):
        load_decoder(VaeFolder.open(tmp_path / "nowhere"))
    make_kl(tmp_path)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    whole = load_file(file)
    missing = {k: v for k, v in whole.items() if k != "decoder.conv_out.bias"}
    wrong = {**whole, "decoder.conv_in.weight": torch.zeros(2, 2)}
    extra = {**whole, "decoder.surprise": torch.zeros(1)}
    for state, key in [(missing, "conv_out.bias"), (wrong, "conv_in.weight"), (extra, "surprise")]:
        save_file(state, file)
        with pytest.raises(CheckpointError) as error:
            load_decoder(VaeFolder.open(tmp_path))
        assert key in str(error.value) and str(file) in str(error.value)
    file.unlink()
    with pytest.raises(CheckpointError, match="holds none of"):
        load_decoder(VaeFolder.open(tmp_path))
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "_class_name": "VQModel"}))
    with pytest.raises(ConfigError, match="_class_name: 'VQModel' is not one of"):
        load_decoder(VaeFolder.open(tmp_path))


@torch.no_grad()
def test_a_small_decoder_beside_the_model(tmp_path: Path) -> None:
    """It takes the denoiser's latents as they are, and is refused where its latents are others."""
    folder = write_official_layout(tmp_path)
    model = ModelConfig.load(folder)
    small = load_decoder(VaeFolder.small_of(model))
    assert (small.kind, small.channels, small.factor, small.scaling) == ("AutoencoderTiny", 4, 8, 1.0)
    assert next(ClipDecoder(small, CPU, "float32").decode(latents(1))).shape == (1, 48, 32, 3)
    beside = model.pretrained_vae_path.parent / "taesd"
    make_tiny(beside)  # which doubles twice, not three times
    with pytest.raises(ConfigError, match="--decoder tiny: latents of 4 channels and 1/4 size"):
        VaeFolder.small_of(model)
    (beside / "config.json").unlink()
    with pytest.raises(ConfigError, match="taesd"):
        VaeFolder.small_of(model)
