"""The loss of the small decoder (`--decoder tiny`) against the model's own VAE, on pictures.

    python -m scripts.bench.gpu.decoder_loss --config …/infer_acc.yaml                   the bundled figures
    python -m scripts.bench.gpu.decoder_loss --config …/infer_acc.yaml portrait.png folder/

Each picture is encoded by the model's VAE, and its latents are decoded by both. It needs the trained weights
of both: `--model official --decoder tiny` fetches them. With random weights the figures say nothing.

A high figure is good. "edges" is the contrast between neighbouring pixels, over that of the VAE's picture:
below 1 is softer.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps

from encoder_worker.vae.decoders import Decoder, load_decoder
from gpu_worker.avatars.vae_encoder import VaeEncoder, load_vae_encoder
from protocol.model.assets import picture_files
from protocol.model.config import ConfigError, ModelConfig
from protocol.model.vae_folder import VaeFolder
from protocol.process.settings import ROOT
from scripts.bench.common.tools import machine, table

Pixels = npt.NDArray[np.uint8]

HEADING = ("picture", "small to VAE", "VAE to truth", "small to truth", "edges")


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        config = ModelConfig.load(args.config)
        own, small = VaeFolder.of(config), VaeFolder.small_of(config)
        encoder = load_vae_encoder(own).to(device)
        decoders = [load_decoder(folder).to(device) for folder in (own, small)]
    except ConfigError as error:
        print(f"decoder_loss: {error}", file=sys.stderr)
        return 1
    files = picture_files(args.pictures or [ROOT / "demo/bundled/avatars"])
    print(f"{machine()}; {own.path} and {small.path}; {args.size}², PSNR in dB")
    figures = []
    for file in files.values():
        picture = _read(file, args.size)
        figures.append(losses(picture, *both_ways(picture, encoder, decoders, device)))
    names = list(files)
    rows = [HEADING, *(_row(name, row) for name, row in zip(names, figures, strict=True))]
    if len(figures) > 1:
        rows.append(_row("median", [statistics.median(column) for column in zip(*figures, strict=True)]))
    print("\n".join(table(rows)))
    return 0


@torch.inference_mode()
def both_ways(
    picture: Pixels, encoder: VaeEncoder, decoders: Sequence[Decoder], device: torch.device
) -> tuple[Pixels, ...]:
    """The picture (H, W, 3), encoded once and decoded by each of the decoders."""
    x = torch.from_numpy(picture.copy()).to(device).permute(2, 0, 1)[None].float() / 127.5 - 1
    latents = encoder(x)
    made = []
    for decoder in decoders:
        levels = decoder(latents / decoder.scaling + decoder.shift).mul(127.5).add(127.5).round()
        made.append(levels.clamp(0, 255).to(torch.uint8)[0].permute(1, 2, 0).cpu().numpy())
    return tuple(made)


def losses(truth: Pixels, own: Pixels, small: Pixels) -> list[float]:
    """PSNR of the small decoder's picture to the VAE's, of each to the truth, and the edges kept."""
    return [psnr(small, own), psnr(own, truth), psnr(small, truth), contrast(small) / contrast(own)]


def psnr(a: Pixels, b: Pixels) -> float:
    """PSNR of two pictures in dB, 100 where they are the same."""
    error = float(((a.astype(np.float64) - b) ** 2).mean())
    return 100.0 if error == 0 else float(10 * np.log10(255**2 / error))


def contrast(picture: Pixels) -> float:
    """Mean difference of neighbouring pixels, in levels."""
    levels = picture.astype(np.float64)
    return float(np.abs(np.diff(levels, axis=0)).mean() + np.abs(np.diff(levels, axis=1)).mean()) or 1e-9


def _read(file: Path, size: int) -> Pixels:
    with Image.open(file) as image:
        upright = ImageOps.exif_transpose(image).convert("RGB")
        return np.asarray(ImageOps.fit(upright, (size, size), Image.Resampling.LANCZOS))


def _row(name: str, figures: Sequence[float]) -> tuple[str, ...]:
    *decibels, edges = figures
    return (name, *(f"{value:.1f}" for value in decibels), f"{edges:.2f}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts.bench.gpu.decoder_loss",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "pictures", nargs="*", type=Path, help="files or folders; the bundled figures if none"
    )
    parser.add_argument("--config", type=Path, required=True, help="the model, in infer_acc.yaml's layout")
    parser.add_argument("--size", type=int, default=512, help="side of the pictures (default %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
