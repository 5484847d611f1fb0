"""Make a training state of the weights in `demo/bundled/model`.

Run it as `python -m demo.factory.train.from_export --state DIR`.

With it, training can go on from a clone alone. The optimiser's moments start anew, and the weights have only
half precision.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from demo.factory.train.checkpoint import Averaged, save_training
from demo.factory.train.listen import ADAPTER
from demo.factory.train.models import build_networks
from demo.factory.train.vae import AutoencoderLite

MODEL = Path(__file__).resolve().parents[2] / "bundled/model"


def exported_networks(model: Path) -> dict[str, Tensor]:
    """The state of `demo.factory.train.models.Networks` as far as it is stored, in float32."""
    state: dict[str, Tensor] = {}
    for prefix, name in (
        ("denoiser.", "denoising_unet"),
        ("denoiser.", "motion_module"),
        ("reference.", "reference_unet"),
        ("pose_encoder.", "pose_encoder"),
    ):
        state |= {
            prefix + key: value.float() for key, value in load_file(model / f"{name}.safetensors").items()
        }
    return state


def _save(state: Path, name: str, module: nn.Module) -> None:
    averaged = Averaged(module)
    averaged.updates = 10_000  # an average of trained weights is not young
    save_training(state, name, module, averaged, torch.optim.AdamW(module.parameters()), 0)


def widened(exported: dict[str, Tensor], vae: AutoencoderLite) -> dict[str, Tensor]:
    """The exported VAE with its finer head as wide as that of `vae`. It draws the same pictures.

    Channels that are new begin with `vae`'s own weights, and nothing that follows listens to them yet.
    """
    fitted = dict(exported)
    for key, fresh in vae.state_dict().items():
        given = exported.get(key)
        if not key.startswith("decoder.fine.") or given is None or given.shape == fresh.shape:
            continue
        wide = torch.zeros_like(fresh) if key.endswith("conv_out.weight") else fresh.clone()
        wide[tuple(slice(side) for side in given.shape)] = given.to(wide)
        fitted[key] = wide
    return fitted


def start(model: Path, state: Path) -> None:
    """Write `state` from the export in `model`.

    Raises:
        FileExistsError: there is a state already.
        RuntimeError: the export does not fit the present configuration. The text names the keys.
    """
    if (state / "networks.json").exists() or (state / "vae.json").exists():
        raise FileExistsError(f"{state} holds a training state already; choose another folder")
    networks = build_networks()
    missing, unexpected = networks.load_state_dict(exported_networks(model), strict=False)
    missing = [key for key in missing if not key.endswith("pos_encoder.pe")]  # computed, not stored
    if missing or unexpected:
        raise RuntimeError(
            f"{model} does not fit demo/factory/train/config.py: missing {missing}, unexpected {unexpected}"
        )
    vae = AutoencoderLite()
    exported = load_file(model / "vae" / "diffusion_pytorch_model.safetensors")
    exported = widened({k: v.float() for k, v in exported.items()}, vae)
    missing, unexpected = vae.load_state_dict(exported, strict=False)
    missing = [key for key in missing if not key.startswith("decoder.fine.")]  # a head that begins untrained
    if missing or unexpected:
        raise RuntimeError(f"{model}/vae: missing {missing}, unexpected {unexpected}")
    _save(state, "networks", networks)
    _save(state, "vae", vae)
    if (model / ADAPTER).is_file():
        save_file({k: v.float() for k, v in load_file(model / ADAPTER).items()}, state / ADAPTER)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m demo.factory.train.from_export", description=__doc__)
    parser.add_argument("--state", type=Path, required=True, help="folder to write the training state to")
    parser.add_argument("--model", type=Path, default=MODEL, help="folder of exported weights")
    arguments = parser.parse_args()
    start(arguments.model, arguments.state)
    print(f"{arguments.state}: a training state of {arguments.model}")


if __name__ == "__main__":
    main()
