"""Measure the ranges of decoder and denoiser in eight bits: `python -m demo.factory.calibrate`.

The bundled people say the sentences of the evaluation's sample, through the streaming path, with each pose
loop in turn. The greatest input of each convolution that rounds is written beside the VAE's weights. The
command also prints how far the decoder with rounding is from the one without, on every other picture, which
it measured nothing of. Names and noise are fixed, so the same weights get the same ranges.

The denoiser's ranges come of the same speech and lie beside its networks (`demo.factory.calibrate_denoiser`).

With `--equalise` it first scales the decoder's channels alike (`demo.factory.equalise`) and writes the VAE's
weights. Their pictures stay the same in float32 and bfloat16. The ranges are then shares of the greatest
inputs. With eight bits, still parts flicker less.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from demo.factory.calibrate_denoiser import calibrate_denoiser, spoken_clips
from demo.factory.equalise import equalise
from demo.factory.evaluate.path import StreamingPath
from encoder_worker.vae.decoders import Decoder, LiteVaeDecoder, load_decoder
from encoder_worker.vae.int8 import rounding_layers, with_eight_bits, write_ranges
from encoder_worker.vae.lite_decoder import Grow
from protocol.model.config import ModelConfig
from protocol.model.ranges_table import Ranges
from protocol.model.vae_folder import WEIGHTS_FILES, VaeFolder
from protocol.process.settings import Settings

#: Frames decoded at once.
BATCH = 8
#: Ranges of equalised channels, as shares of the greatest input: at the finest level, and elsewhere. Few
#: values lie above, and all others get smaller steps. The finest level makes most of the flicker.
FINEST, COARSER = 0.65, 0.8


def drawn_latents(settings: Settings) -> Tensor:
    """Unscaled latents (N, C, h, w) of the bundled people speaking."""
    made = [clip.latents for clip in spoken_clips(StreamingPath(settings))]
    return torch.from_numpy(np.concatenate(made)).float()


@torch.inference_mode()
def measured_ranges(decoder: Decoder, latents: Tensor) -> Ranges:
    """The greatest input of each convolution that rounds.

    Args:
        decoder: in float32.
        latents: unscaled (N, C, h, w).

    Raises:
        ValueError: the decoder has no such convolution.
    """
    return {name: float(peaks.max()) for name, peaks in measured_peaks(decoder, latents).items()}


@torch.inference_mode()
def measured_peaks(decoder: Decoder, latents: Tensor) -> dict[str, Tensor]:
    """The greatest input of each channel (width,) of each convolution that rounds. Arguments as above."""
    layers = dict(rounding_layers(decoder))
    if not layers:
        raise ValueError("this decoder has no convolutions that round")
    greatest = {name: torch.zeros(conv.in_channels) for name, conv in layers.items()}

    def watch(name: str, conv: nn.Conv2d) -> torch.utils.hooks.RemovableHandle:
        def look(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            greatest[name] = torch.maximum(greatest[name], inputs[0].amax((0, 2, 3)))

        return conv.register_forward_pre_hook(look)

    hooks = [watch(name, conv) for name, conv in layers.items()]
    for _ in _decoded(decoder, latents):
        pass
    for hook in hooks:
        hook.remove()
    return greatest


def equalise_by(decoder: LiteVaeDecoder, latents: Tensor) -> None:
    """Scale the decoder's channels alike, in place, by their inputs. Arguments as of `measured_ranges`."""
    peaks = measured_peaks(decoder, latents)
    equalise(decoder.decoder, {name.removeprefix("decoder."): its for name, its in peaks.items()})


def tightened(decoder: LiteVaeDecoder, ranges: Ranges) -> Ranges:
    """The ranges as shares of the greatest inputs.

    Args:
        decoder: equalised.
        ranges: its greatest inputs.
    """
    grown = [n for n, level in enumerate(decoder.decoder.levels) if isinstance(level, Grow)]
    finest = tuple(
        f"decoder.levels.{n}." for n in range(max(grown, default=-1) + 1, len(decoder.decoder.levels))
    )
    return {
        name: greatest * (FINEST if name.startswith(finest) else COARSER) for name, greatest in ranges.items()
    }


@torch.inference_mode()
def distance(decoder: Decoder, rounding: Decoder, latents: Tensor) -> float:
    """PSNR in dB of one decoder's pictures against another's."""
    errors = [
        float((a - b).square().mean())
        for a, b in zip(_decoded(decoder, latents), _decoded(rounding, latents), strict=True)
    ]
    return 10 * math.log10(255**2 / max(float(np.mean(errors)), 1e-12))


def write_weights(file: Path, decoder: Decoder) -> None:
    """Write a decoder's tensors over those of the VAE's file, in the file's arithmetic."""
    tensors = load_file(file)
    for name, value in decoder.state_dict().items():
        tensors[name] = value.to(tensors[name].dtype).contiguous()
    save_file(tensors, file)
    file.chmod(0o644)  # safetensors makes files for their owner alone


def _decoded(decoder: Decoder, latents: Tensor) -> Iterator[Tensor]:
    """Pictures in grey levels, 0 to 255, a batch at a time."""
    for batch in latents.split(BATCH):
        yield decoder(batch).clamp(-1, 1).add(1).mul(127.5)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m demo.factory.calibrate", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--config", type=Path, default=Settings().config, help="of the model")
    parser.add_argument("--equalise", action="store_true", help="first scale the decoder's channels alike")
    args = parser.parse_args(argv)
    folder = VaeFolder.of(ModelConfig.load(args.config))
    decoder = load_decoder(folder)
    with tempfile.TemporaryDirectory() as run_dir:
        settings = replace(Settings(), config=args.config, run_dir=Path(run_dir), fps=24, cpu_engine="torch")
        latents = drawn_latents(replace(settings, gpu_devices=("cpu",), encoder_devices=("cpu",)))
    latents = latents / decoder.scaling + decoder.shift
    if not args.equalise:
        ranges = measured_ranges(decoder, latents[::2])
    elif isinstance(decoder, LiteVaeDecoder):
        equalise_by(decoder, latents[::2])
        write_weights(folder.path / WEIGHTS_FILES[0], decoder)
        decoder = load_decoder(folder)  # the file's half precision may have rounded: ranges name its digest
        assert isinstance(decoder, LiteVaeDecoder)
        ranges = tightened(decoder, measured_ranges(decoder, latents[::2]))
    else:
        parser.error(f"{folder.path}: only an AutoencoderLite can be equalised")
    decibels = distance(decoder, with_eight_bits(decoder, ranges), latents[1::2])
    file = write_ranges(folder.path, decoder, ranges)
    print(f"{file}: {len(ranges)} ranges of {len(latents[::2])} pictures; {decibels:.1f} dB to float32")
    print(calibrate_denoiser(args.config))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
