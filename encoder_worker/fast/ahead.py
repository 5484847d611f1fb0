"""The helper that compiles the fast decoder's kernels while the worker loads. It takes the worker's flags."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from encoder_worker.fast.choice import FLOAT8_FROM, OLDEST, TENSOR_COPIES
from encoder_worker.fast.convolutions import Convolutions, CudnnConvolutions
from encoder_worker.fast.kl import FastKL, is_usual
from encoder_worker.fast.tiles import ConvTile
from encoder_worker.graph_decoder import CHUNK
from encoder_worker.vae.decoders import KLDecoder
from protocol.model.config import ModelConfig
from protocol.model.hardware.dtypes import DTYPES
from protocol.model.kernels.helper import Part, run_helper
from protocol.model.vae_folder import VaeFolder
from protocol.process.settings import Settings, settings_from_command_line

META = torch.device("meta")


class EveryTile(Convolutions):
    """Runs each convolution in every tile that it may get."""

    def in_tiles(
        self, key: tuple[object, ...], tiles: list[ConvTile], run: Callable[[ConvTile], Tensor | None]
    ) -> Tensor | None:
        """As `Convolutions`."""
        return [run(tile) for tile in tiles][-1]


class EveryTileBesideCudnn(EveryTile, CudnnConvolutions):
    """The same where cuDNN has the others."""


def parts_of(settings: Settings, capability: int) -> Iterator[Part]:
    """The kernels of each decoder that a GPU worker may ask for, by `ClipDecoder`'s name of its kind.

    Raises:
        ConfigError: a number of the model is missing or impossible.
    """
    config = ModelConfig.load(settings.config)
    folder = VaeFolder.of(config)
    generation = divmod(capability, 10)
    if folder.class_name != "AutoencoderKL" or settings.dtype == "float32" or generation < OLDEST:
        return
    decoder = KLDecoder(folder.config)
    if is_usual(decoder):
        dtype = DTYPES["float16" if settings.dtype == "auto" else settings.dtype]
        cudnn = generation[0] not in TENSOR_COPIES
        width, height = config.picture_size(settings)
        size = height // folder.factor, width // folder.factor
        for kind in kinds_of(settings):
            eight_bit = kind == "eight_bit" and generation >= FLOAT8_FROM
            yield kind, partial(_launch_all, decoder, dtype, size, eight_bit=eight_bit, cudnn=cudnn)


def kinds_of(settings: Settings) -> list[str]:
    """The kinds of decoders, the worker's own first."""
    if settings.decoder == "tiny":
        return []
    if settings.tier is not None or settings.quality != "auto":
        return ["eight_bit" if settings.tier == "fast" else "exact"]
    return ["exact", "eight_bit"]


@torch.inference_mode()
def _launch_all(
    decoder: KLDecoder, dtype: torch.dtype, size: tuple[int, int], *, eight_bit: bool, cudnn: bool
) -> None:
    """Launches the kernels of a decoder for latents of this size, each convolution in every tile."""
    with META:
        made = FastKL(decoder, META, dtype, CHUNK, *size, eight_bit=eight_bit, cudnn=cudnn, graph=False)
        kind = EveryTileBesideCudnn if cudnn else EveryTile
        made.convolve = kind(META, made.convolve.groups, made.bad, timing=False)
        made.run()


def main() -> None:
    settings = settings_from_command_line()
    run_helper(partial(parts_of, settings), settings.encoder_devices[0], settings.encoders)


if __name__ == "__main__":
    main()
