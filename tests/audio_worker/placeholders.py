"""A model configuration whose parts, but for those given, are empty files: for tests of a single stage."""

from __future__ import annotations

from pathlib import Path

KEYS = ("denoising_unet_path", "reference_unet_path", "pose_encoder_path", "audio_model_path")
INFERENCE = "inference_config: {unet_additional_kwargs: {}, noise_scheduler_kwargs: {}}"


def write_config(folder: Path, **given: object) -> Path:
    """Write `config.yaml` and the files that it needs into `folder`. `given` replaces or adds keys."""
    for name in ("vae", "base"):
        (folder / name).mkdir(exist_ok=True)
        if not (folder / name / "config.json").exists():
            (folder / name / "config.json").write_text("{}")
    (folder / "empty").touch()
    values: dict[str, object] = dict.fromkeys(KEYS, "empty")
    values |= {"pretrained_base_model_path": "base", "pretrained_vae_path": "vae"} | given
    lines = [f"{key}: {value}" for key, value in values.items()]
    config = folder / "config.yaml"
    config.write_text("\n".join([*lines, INFERENCE]) + "\n")
    return config
