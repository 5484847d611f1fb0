"""The sizes that a newcomer meets: the model's files, the repository, the picture, the avatars."""

from __future__ import annotations

import subprocess
from pathlib import Path

from demo.factory.evaluate.table import Section
from protocol.model.assets import avatar_paths, picture_files
from protocol.model.config import ModelConfig
from protocol.model.topology import FOLDER
from protocol.process.settings import ROOT, Settings

LIMIT_MB, REPOSITORY_MB = 45.0, 55.0
SIDE, AVATARS = 256, 4
NETWORKS = "networks for OpenVINO"
WEIGHTS = (".safetensors", ".pth", ".pt", ".bin")


def run(config: ModelConfig) -> Section:
    """Add up the sizes of this configuration and of the repository."""
    section = Section("Size")
    sizes = {path.name if path.parent == config.path.parent else f"{path.parent.name}/{path.name}": size
             for path, size in weight_files(config).items()}  # fmt: skip
    sizes[NETWORKS] = sum(file.stat().st_size for file in (config.path.parent / FOLDER).glob("*.zip"))
    total = sum(sizes.values()) / 1e6
    section.at_most("All weights, Whisper and engines' files included", total, LIMIT_MB, " MB", 1)
    section.told(
        "… of which", ", ".join(f"{Path(name).stem} {size / 1e6:.1f}" for name, size in sizes.items())
    )
    section.numbers |= {"megabytes": total, "files": sizes}
    files = repository_files()
    if files:
        repository = sum(file.stat().st_size for file in files) / 1e6
        section.at_most("The whole repository", repository, REPOSITORY_MB, " MB", 1, "every tracked file")
        section.numbers["repository_megabytes"] = repository
    section.at_least("Side of the picture", float(min(config.width, config.height)), SIDE, " pixels", 0)
    avatars = len(picture_files(avatar_paths(Settings())))
    section.at_least("Bundled avatars", float(avatars), AVATARS, digits=0)
    return section


def repository_files(root: Path = ROOT) -> list[Path]:
    """The tracked files that exist. The list is empty outside a clone, or without git."""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "ls-files", "-z"], capture_output=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return [root / name for name in done.stdout.decode().split("\0") if name and (root / name).is_file()]


def weight_files(config: ModelConfig) -> dict[Path, int]:
    """Bytes of each weights file that the configuration names, directly or by its folder."""
    named = [
        config.denoising_unet_path, config.motion_module_path, config.reference_unet_path,
        config.pose_encoder_path, config.pretrained_vae_path, config.audio_model_path,
        config.audio_adapter_path,
    ]  # fmt: skip
    files: dict[Path, int] = {}
    for path in (Path(p) for p in named if p is not None):
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.suffix in WEIGHTS:
                files[file] = file.stat().st_size
    return files
