"""What a newcomer downloads: every file of the model's configuration."""

from __future__ import annotations

from pathlib import Path

from demo.evaluate.table import Section
from protocol.model_config import ModelConfig

LIMIT_MB = 40.0
WEIGHTS = (".safetensors", ".pth", ".pt", ".bin")


def run(config: ModelConfig) -> Section:
    section = Section("Size")
    sizes = {path.name if path.parent == config.path.parent else f"{path.parent.name}/{path.name}": size
             for path, size in weight_files(config).items()}  # fmt: skip
    total = sum(sizes.values()) / 1e6
    section.at_most("All weights, Whisper included", total, LIMIT_MB, " MB", 1)
    section.told(
        "… of which", ", ".join(f"{Path(name).stem} {size / 1e6:.1f}" for name, size in sizes.items())
    )
    section.numbers |= {"megabytes": total, "files": sizes}
    return section


def weight_files(config: ModelConfig) -> dict[Path, int]:
    """Bytes of each weights file that the configuration names, directly or by its folder."""
    named = [
        config.denoising_unet_path, config.motion_module_path, config.reference_unet_path,
        config.pose_encoder_path, config.pretrained_vae_path, config.audio_model_path,
    ]  # fmt: skip
    files: dict[Path, int] = {}
    for path in (Path(p) for p in named if p is not None):
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.suffix in WEIGHTS:
                files[file] = file.stat().st_size
    return files
