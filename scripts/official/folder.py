"""The folder of links in the official layout, with the configuration that `--model official` names.

The files may lie in a user's checkout, in the Hub's cache and among the own downloads, and none of them is
changed or copied. So a folder of the project's own has a link to each, and the configuration beside them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

import yaml

from protocol.process.settings.places import official_config
from scripts.official.catalogue import (
    BASE_CONFIG,
    INFERENCE,
    POSE_ENCODER,
    REFERENCE,
    VAE_CONFIG,
    WHISPER_WEIGHTS,
    ModelPart,
    Variant,
)
from scripts.official.search import WEIGHTS


def write_folder(
    env: Mapping[str, str], model_dir: Path | None, variant: Variant, files: Mapping[ModelPart, Path]
) -> Path:
    """Link the files and write the configuration. Returns the configuration's path.

    Args:
        env: the environment, which names the user's folder.
        model_dir: `--model-dir`, whose configuration has a place of its own.
        variant: the accelerated or the plain model.
        files: by part.

    Raises:
        OSError: the folder cannot be written.
    """
    config = official_config(env, model_dir)
    weights = config.parent / WEIGHTS
    links = {part: weights / _place(part, file) for part, file in files.items()}
    for part, file in files.items():
        _link(links[part], file)
    _remove_others(weights, set(links.values()))
    values = {
        "name": f"EchoMimic-v2 ({variant.name})",
        "pretrained_base_model_path": _base_folder(links[BASE_CONFIG]),
        "pretrained_vae_path": links[VAE_CONFIG].parent,
        "denoising_unet_path": links[variant.denoiser],
        "motion_module_path": links[variant.motion],
        "reference_unet_path": links[REFERENCE],
        "pose_encoder_path": links[POSE_ENCODER],
        "audio_model_path": links[WHISPER_WEIGHTS],
    }
    text = yaml.safe_dump(
        {
            **{key: value if isinstance(value, str) else str(value) for key, value in values.items()},
            "inference_config": INFERENCE,
            "weight_dtype": "fp16",
        },
        sort_keys=False,
    )
    fresh = config.with_suffix(f".{os.getpid()}")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(config)
    return config


def _place(part: ModelPart, file: Path) -> str:
    """The part's place that has the file's name, because a name tells how a file is read."""
    return next((place for place in part.places if Path(place).name == file.name), part.place)


def _base_folder(config: Path) -> Path:
    return config.parent.parent if config.parent.name == "unet" else config.parent


def _link(link: Path, file: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    fresh = link.with_name(f"{link.name}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        fresh.unlink()
    fresh.symlink_to(file.absolute())
    fresh.replace(link)


def _remove_others(weights: Path, links: set[Path]) -> None:
    """Remove the links of an earlier start, such as those of the other variant."""
    for path in weights.rglob("*"):
        if path.is_symlink() and path not in links:
            path.unlink(missing_ok=True)
