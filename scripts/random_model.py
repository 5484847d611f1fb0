"""An official EchoMimic-v2 folder (`infer_acc.yaml`, `pretrained_weights/…`) of a model with random weights.

    python -m scripts.random_model FOLDER --model full --width 512 --height 512

The full size has the official shapes (denoiser 1,303 M parameters, half precision, 4.5 GB), so speed and
memory are those of the official weights. Its pictures are noise.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import yaml
from diffusers import AutoencoderKL, AutoencoderTiny
from torch import Tensor, nn

from gpu_worker.denoiser.model import DenoisingUNet3D, PoseEncoder, ReferenceUNet2D, UNetConfig
from scripts.official.catalogue import INFERENCE

BASE_UNET: dict[str, Any] = {
    "_class_name": "UNet2DConditionModel",
    "_diffusers_version": "0.6.0",
    "act_fn": "silu",
    "attention_head_dim": 8,
    "block_out_channels": [32, 64, 64, 64],
    "center_input_sample": False,
    "cross_attention_dim": 768,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 1,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-05,
    "norm_num_groups": 32,
    "out_channels": 4,
    "sample_size": 64,
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
}
# Like sd-vae-ft-mse's: written by an old diffusers, without a scaling factor.
VAE: dict[str, Any] = {
    "_class_name": "AutoencoderKL",
    "_diffusers_version": "0.4.2",
    "act_fn": "silu",
    "block_out_channels": [32, 32, 32, 32],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 1,
    "norm_num_groups": 32,
    "out_channels": 3,
    "sample_size": 256,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}
# TAESD's (github.com/madebyollin/taesd), whose latents are those of sd-vae-ft-mse after scaling.
TAESD: dict[str, Any] = {
    "_class_name": "AutoencoderTiny",
    "_diffusers_version": "0.20.0.dev0",
    "act_fn": "relu",
    "decoder_block_out_channels": [64, 64, 64, 64],
    "encoder_block_out_channels": [64, 64, 64, 64],
    "force_upcast": False,
    "in_channels": 3,
    "latent_channels": 4,
    "latent_magnitude": 3,
    "latent_shift": 0.5,
    "num_decoder_blocks": [3, 3, 3, 1],
    "num_encoder_blocks": [1, 3, 3, 3],
    "out_channels": 3,
    "scaling_factor": 1.0,
    "upsampling_scaling_factor": 2,
}
# The official shapes: the keys in which each full-size configuration differs.
FULL_UNET = {"block_out_channels": [320, 640, 1280, 1280], "layers_per_block": 2}
FULL_VAE = {"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2}
WEIGHTS = {
    "pretrained_base_model_path": "./pretrained_weights/sd-image-variations-diffusers",
    "pretrained_vae_path": "./pretrained_weights/sd-vae-ft-mse",
    "denoising_unet_path": "./pretrained_weights/denoising_unet_acc.pth",
    "reference_unet_path": "./pretrained_weights/reference_unet.pth",
    "pose_encoder_path": "./pretrained_weights/pose_encoder.pth",
    "motion_module_path": "./pretrained_weights/motion_module_acc.pth",
    "audio_model_path": "./pretrained_weights/audio_processor/tiny.pt",
}


def write_official_layout(
    folder: Path, *, suffix: str = ".pth", model: str = "tiny", device: str = "cpu", **extra: Any
) -> Path:
    """Write everything that `--config` needs and return the path of `configs/prompts/infer_acc.yaml`.

    suffix: `.pth` as in the release, or `.safetensors` for the same keys. model: `tiny`, or `full` for the
    official shapes, in half precision and drawn on `device`. extra: further keys of the yaml, such as
    `width=64, height=64, steps=2`. The official one has none of them.
    """
    torch.manual_seed(0)
    full = model == "full"
    unet, vae = {**BASE_UNET, **(FULL_UNET if full else {})}, {**VAE, **(FULL_VAE if full else {})}
    weights = folder / "pretrained_weights"
    names = {key: name.replace(".pth", suffix) for key, name in WEIGHTS.items()}
    _write_json(weights / "sd-image-variations-diffusers" / "unet" / "config.json", unet)

    def state(build: Callable[[], nn.Module]) -> dict[str, Tensor]:
        return _drawn(build, torch.device(device)) if full else _state(build())

    denoiser = state(lambda: DenoisingUNet3D(UNetConfig.denoiser(unet, INFERENCE["unet_additional_kwargs"])))
    motion = {key: denoiser.pop(key) for key in list(denoiser) if ".motion_modules." in key}
    _write_weights(folder / names["denoising_unet_path"], denoiser)
    _write_weights(folder / names["motion_module_path"], motion)
    del denoiser, motion
    reference = state(lambda: ReferenceUNet2D(UNetConfig.reference(unet)))
    _write_weights(folder / names["reference_unet_path"], reference)
    del reference
    pose_encoder = state(lambda: PoseEncoder(unet["block_out_channels"][0]))
    _write_weights(folder / names["pose_encoder_path"], pose_encoder)
    _write_vae(weights / "sd-vae-ft-mse", vae, state(lambda: AutoencoderKL.from_config(vae)))
    small = state(lambda: AutoencoderTiny.from_config(TAESD))
    _write_json(weights / "taesd" / "config.json", TAESD)
    _write_weights(weights / "taesd" / "diffusion_pytorch_model.safetensors", small)
    _write_whisper(folder / names["audio_model_path"])
    inference = folder / "configs" / "inference" / "inference_v2.yaml"
    inference.parent.mkdir(parents=True, exist_ok=True)
    inference.write_text(yaml.safe_dump(INFERENCE, sort_keys=False))
    config = folder / "configs" / "prompts" / "infer_acc.yaml"
    config.parent.mkdir(parents=True, exist_ok=True)
    values = {**names, "inference_config": "./configs/inference/inference_v2.yaml", "weight_dtype": "fp16"}
    config.write_text(yaml.safe_dump({**values, **extra}, sort_keys=False))
    return config


def _state(module: nn.Module) -> dict[str, Tensor]:
    """Random weights, also where training starts from zero, so that every condition has an effect."""
    for parameter in module.parameters():
        if parameter.ndim > 1 and not parameter.detach().any():
            nn.init.normal_(parameter, std=0.05)
    return {key: value.detach().clone() for key, value in module.state_dict().items()}


def _drawn(build: Callable[[], nn.Module], device: torch.device) -> dict[str, Tensor]:
    """Half-precision weights with the variance of torch's own initialisation, drawn at once on `device`.

    Initialising two billion parameters the usual way takes minutes. Values that a module computes
    for itself (position encodings) are left out.
    """
    with torch.device("meta"):
        module = build()
    state: dict[str, Tensor] = {}
    for key, value in module.named_parameters():
        if value.ndim > 1:
            fan_in = value[0].numel()
            drawn = torch.randn(value.shape, device=device, dtype=torch.float16) * (3 * fan_in) ** -0.5
        else:
            drawn = torch.full(value.shape, 1.0 if key.endswith("weight") else 0.0, dtype=torch.float16)
        state[key] = drawn.cpu()
    return state


def _write_weights(path: Path, state: dict[str, Tensor]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path)


def _write_vae(folder: Path, config: dict[str, Any], weights: dict[str, Tensor]) -> None:
    old_names = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    state = {}
    for key, value in weights.items():
        for new, old in old_names.items():
            key = key.replace(new, old) if ".attentions." in key else key  # noqa: PLW2901 - the old name
        state[key] = value
    _write_json(folder / "config.json", config)
    _write_weights(folder / "diffusion_pytorch_model.safetensors", state)


def _write_whisper(path: Path) -> None:
    """OpenAI's file layout of Whisper tiny's size, and of the decoder just one tensor, which nobody needs."""
    width, layers = 384, 4
    shapes: dict[str, tuple[int, ...]] = {
        "encoder.positional_embedding": (1500, width),
        "encoder.conv1.weight": (width, 80, 3),
        "encoder.conv1.bias": (width,),
        "encoder.conv2.weight": (width, width, 3),
        "encoder.conv2.bias": (width,),
        "encoder.ln_post.weight": (width,),
        "encoder.ln_post.bias": (width,),
        "decoder.ln.weight": (width,),
    }
    for layer in range(layers):
        block = f"encoder.blocks.{layer}."
        for name, (rows, columns) in {
            "attn.query": (width, width),
            "attn.key": (width, width),
            "attn.value": (width, width),
            "attn.out": (width, width),
            "mlp.0": (4 * width, width),
            "mlp.2": (width, 4 * width),
        }.items():
            shapes[f"{block}{name}.weight"] = (rows, columns)
            if name != "attn.key":
                shapes[f"{block}{name}.bias"] = (rows,)
        for name in ("attn_ln", "mlp_ln"):
            shapes |= {f"{block}{name}.weight": (width,), f"{block}{name}.bias": (width,)}
    state = {}
    for key, shape in shapes.items():
        fan_in = torch.Size(shape[1:]).numel() if len(shape) > 1 else 1
        is_norm = len(shape) == 1 and key.endswith("weight")
        value = (
            torch.ones(shape) if is_norm else torch.randn(shape) * (0.5 / fan_in**0.5 if fan_in > 1 else 0.01)
        )
        state[key] = value.half()
    dims = {
        "n_mels": 80,
        "n_audio_ctx": 1500,
        "n_audio_state": width,
        "n_audio_head": 6,
        "n_audio_layer": layers,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"dims": dims, "model_state_dict": state}, path)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="scripts.random_model", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", choices=("tiny", "full"), default="full")
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--height", type=int, default=768)
    parser.add_argument("--steps", type=int, default=6)
    args = parser.parse_args(argv)
    begin = time.monotonic()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    config = write_official_layout(
        args.folder, model=args.model, device=device, width=args.width, height=args.height, steps=args.steps
    )
    print(f"{config} written in {time.monotonic() - begin:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
