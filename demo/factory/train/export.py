"""Write the trained model in the layout that `--config` reads, in half precision."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor

from demo.factory.train.config import BASE_UNET, INFERENCE, POSE_ENCODER, SIZE, VAE
from demo.factory.train.listen import ADAPTER


def _write(path: Path, state: dict[str, Tensor]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.to(torch.float16).contiguous() for k, v in state.items()}, path)
    path.chmod(0o644)  # safetensors makes files for their owner alone


def _part(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def export_model(state: Path, folder: Path) -> None:
    """Write the averaged weights of a training state, `infer_bundled.yaml` and its files to `folder`.

    The position tables of the motion modules are computed, not stored.
    """
    networks = load_file(state / "networks.average.safetensors")
    denoiser = {k: v for k, v in _part(networks, "denoiser.").items() if not k.endswith("pos_encoder.pe")}
    _write(
        folder / "denoising_unet.safetensors",
        {k: v for k, v in denoiser.items() if "motion_modules" not in k},
    )
    _write(folder / "motion_module.safetensors", {k: v for k, v in denoiser.items() if "motion_modules" in k})
    _write(folder / "reference_unet.safetensors", _part(networks, "reference."))
    _write(folder / "pose_encoder.safetensors", _part(networks, "pose_encoder."))
    _write(
        folder / "vae" / "diffusion_pytorch_model.safetensors", load_file(state / "vae.average.safetensors")
    )
    adapter = state / ADAPTER
    if adapter.is_file():
        _write(folder / ADAPTER, load_file(adapter))
    (folder / "vae" / "config.json").write_text(json.dumps(VAE, indent=2) + "\n")
    base = folder / "base" / "unet" / "config.json"
    base.parent.mkdir(parents=True, exist_ok=True)
    base.write_text(json.dumps(BASE_UNET, indent=2) + "\n")
    (folder / "inference.yaml").write_text(
        yaml.safe_dump({**INFERENCE, "pose_encoder_kwargs": POSE_ENCODER}, sort_keys=False)
    )
    config = {
        "pretrained_base_model_path": "./base",
        "pretrained_vae_path": "./vae",
        "denoising_unet_path": "./denoising_unet.safetensors",
        "motion_module_path": "./motion_module.safetensors",
        "reference_unet_path": "./reference_unet.safetensors",
        "pose_encoder_path": "./pose_encoder.safetensors",
        "audio_model_path": "./whisper",
        **({"audio_adapter_path": f"./{ADAPTER}"} if adapter.is_file() else {}),
        "inference_config": "./inference.yaml",
        "weight_dtype": "fp32",
        "name": "bundled",
        "steps": 1,
        "cfg": 1.0,
        "width": SIZE,
        "height": SIZE,
        "prefer_fine": True,
        "whisper_window": "short",
        "window_shift": 0,
    }
    (folder / "infer_bundled.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
