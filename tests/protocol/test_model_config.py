"""The official yaml layout: where paths are looked for, defaults, and errors that name file and key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from protocol.model.config import ConfigError, ModelConfig

WEIGHTS = {
    "pretrained_base_model_path": "./pretrained_weights/sd-image-variations-diffusers",
    "pretrained_vae_path": "./pretrained_weights/sd-vae-ft-mse",
    "denoising_unet_path": "./pretrained_weights/denoising_unet_acc.pth",
    "motion_module_path": "./pretrained_weights/motion_module_acc.pth",
    "reference_unet_path": "./pretrained_weights/reference_unet.pth",
    "pose_encoder_path": "./pretrained_weights/pose_encoder.pth",
    "audio_model_path": "./pretrained_weights/audio_processor/tiny.pt",
}
OFFICIAL: dict[str, Any] = {
    **WEIGHTS,
    "inference_config": "./configs/inference/inference_v2.yaml",
    "weight_dtype": "fp16",
    "test_cases": {"./refimg.png": ["./audio.wav"]},
}
INFERENCE: dict[str, Any] = {
    "unet_additional_kwargs": {"cross_attention_dim": 384},
    "noise_scheduler_kwargs": {"beta_start": 0.00085},
    "sampler": "DDIM",
}


def layout(root: Path, values: dict[str, Any] = OFFICIAL, where: str = "configs/prompts") -> Path:
    """The files of the official repository's layout, empty, and its infer_acc.yaml."""
    for name in WEIGHTS.values():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch() if path.suffix in (".pth", ".pt") else path.mkdir(exist_ok=True)
    for folder in ("sd-vae-ft-mse", "sd-image-variations-diffusers/unet"):
        (root / "pretrained_weights" / folder).mkdir(exist_ok=True)
        (root / "pretrained_weights" / folder / "config.json").write_text('{"act_fn": "silu"}')
    inference = root / "configs" / "inference" / "inference_v2.yaml"
    inference.parent.mkdir(parents=True, exist_ok=True)
    inference.write_text(yaml.safe_dump(INFERENCE))
    path = root / where / "infer_acc.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.mark.parametrize("where", ["", "configs", "configs/prompts"])
def test_official_file_wherever_it_lies(tmp_path: Path, where: str) -> None:
    config = ModelConfig.load(layout(tmp_path, where=where))
    for key, name in WEIGHTS.items():
        assert getattr(config, key).resolve() == (tmp_path / name).resolve()
        assert getattr(config, key).is_absolute()
    assert config.base_unet_config() == {"act_fn": "silu"}
    assert config.unet_additional_kwargs == {"cross_attention_dim": 384}
    assert config.noise_scheduler_kwargs == {"beta_start": 0.00085}
    assert (config.name, config.weight_dtype, config.whisper_window) == ("infer_acc", "float16", "padded")
    assert (config.steps, config.cfg, config.width, config.height) == (6, 1.0, 768, 768)
    assert config.vae_class is None


@pytest.mark.parametrize(
    ("denoiser", "given", "expected"),
    [
        ("denoising_unet_acc.pth", {}, (6, 1.0, True)),
        ("denoising_unet_acc.safetensors", {}, (6, 1.0, True)),
        ("denoising_unet.pth", {}, (30, 2.5, False)),
        ("denoising_unet_accurate.pth", {}, (30, 2.5, False)),
        ("denoising_unet.pth", {"steps": 6}, (6, 2.5, False)),
        ("denoising_unet.pth", {"steps": 6, "cfg": 1.0}, (6, 1.0, False)),
    ],
)
def test_sampling_follows_the_denoiser(
    tmp_path: Path, denoiser: str, given: dict[str, Any], expected: tuple[int, float, bool]
) -> None:
    """infer.yaml and infer_acc.yaml name no sampling: it is in the official programs' flags."""
    path = layout(tmp_path, {**OFFICIAL, **given, "denoising_unet_path": f"./pretrained_weights/{denoiser}"})
    (tmp_path / "pretrained_weights" / denoiser).touch()
    config = ModelConfig.load(path)
    assert (config.steps, config.cfg, config.is_accelerated) == expected


def test_current_folder_is_searched_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = layout(tmp_path / "a")
    elsewhere = tmp_path / "b" / "one" / "two" / "infer.yaml"
    elsewhere.parent.mkdir(parents=True)
    elsewhere.write_text(path.read_text())
    with pytest.raises(ConfigError, match="does not exist in any of"):
        ModelConfig.load(elsewhere)
    monkeypatch.chdir(tmp_path / "a")
    assert ModelConfig.load(elsewhere).denoising_unet_path.is_relative_to(tmp_path / "a")


def test_extra_keys_and_inline_inference(tmp_path: Path) -> None:
    values = {
        **OFFICIAL,
        "motion_module_path": None,
        "inference_config": INFERENCE,
        "weight_dtype": "fp32",
        "name": "small",
        "steps": 1,
        "cfg": 2.5,
        "width": 256,
        "height": 320,
        "whisper_window": "short",
        "window_shift": 0,
        "vae_class": "AutoencoderLite",
    }
    config = ModelConfig.load(layout(tmp_path, values))
    assert config.motion_module_path is None
    assert (config.name, config.steps, config.cfg, config.width, config.height) == ("small", 1, 2.5, 256, 320)
    assert (config.weight_dtype, config.whisper_window, config.window_shift) == ("float32", "short", 0)
    assert config.vae_class == "AutoencoderLite"


@pytest.mark.parametrize("key", WEIGHTS)
def test_path_that_does_not_exist(tmp_path: Path, key: str) -> None:
    path = layout(tmp_path, {**OFFICIAL, key: "./nowhere"})
    with pytest.raises(ConfigError, match=f"infer_acc.yaml: {key}: nowhere does not exist"):
        ModelConfig.load(path)


@pytest.mark.parametrize(
    "key", [k for k in OFFICIAL if k not in ("weight_dtype", "test_cases", "motion_module_path")]
)
def test_key_that_is_missing(tmp_path: Path, key: str) -> None:
    path = layout(tmp_path, {k: v for k, v in OFFICIAL.items() if k != key})
    with pytest.raises(ConfigError, match=f"infer_acc.yaml: {key} is missing"):
        ModelConfig.load(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("steps", 0),
        ("steps", 2.5),
        ("steps", True),
        ("cfg", 0.5),
        ("cfg", "high"),
        ("width", 100),
        ("height", 99999),
        ("weight_dtype", "int8"),
        ("whisper_window", "long"),
        ("name", 3),
        ("denoising_unet_path", ["a"]),
    ],
)
def test_value_that_is_wrong(tmp_path: Path, key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"infer_acc.yaml: {key}: ") as caught:
        ModelConfig.load(layout(tmp_path, {**OFFICIAL, key: value}))
    assert str(value).strip("[]'") in str(caught.value)


@pytest.mark.parametrize("folder", ["sd-vae-ft-mse", "sd-image-variations-diffusers/unet"])
def test_folder_without_its_config(tmp_path: Path, folder: str) -> None:
    path = layout(tmp_path)
    (tmp_path / "pretrained_weights" / folder / "config.json").unlink()
    with pytest.raises(ConfigError, match=f"{folder}/config.json does not exist"):
        ModelConfig.load(path)


def test_damaged_files(tmp_path: Path) -> None:
    path = layout(tmp_path)
    inference = tmp_path / "configs" / "inference" / "inference_v2.yaml"
    inference.write_text("unet_additional_kwargs: 3")
    with pytest.raises(ConfigError, match=r"inference_v2\.yaml: unet_additional_kwargs"):
        ModelConfig.load(path)
    inference.write_text("a: [")
    with pytest.raises(ConfigError, match=r"inference_v2\.yaml: cannot be read"):
        ModelConfig.load(path)
    for text in ("", "- 1", "\x00", "a: &a [*a"):
        path.write_text(text)
        with pytest.raises(ConfigError, match=r"infer_acc\.yaml"):
            ModelConfig.load(path)
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read"):
        ModelConfig.load(tmp_path / "none.yaml")


def test_damaged_unet_config(tmp_path: Path) -> None:
    config = ModelConfig.load(layout(tmp_path))
    (config.pretrained_base_model_path / "unet" / "config.json").write_text("{")
    with pytest.raises(ConfigError, match=r"unet/config\.json: cannot be read"):
        config.base_unet_config()
