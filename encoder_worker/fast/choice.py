"""Which of the fast decoders serves: by the network and by the GPU's generation."""

from __future__ import annotations

import logging

import torch

from encoder_worker.fast.fixed_size import FixedSizeDecoder
from encoder_worker.fast.tiles import seconds_of
from encoder_worker.vae.decoders import Decoder, KLDecoder, TinyDecoder
from protocol.process.logs import first_line

logger = logging.getLogger(__name__)

#: Generations (compute capability's first number) for which the kernels' convolutions were written: they load
#: by the tensor copy engine. Elsewhere cuDNN convolves.
TENSOR_COPIES = (9, 10)
#: The least compute capability with 8-bit floating point on the tensor cores.
FLOAT8_FROM = (8, 9)
#: Of the exact decoder's time, what 8-bit convolutions may take where they are not known to be faster.
EIGHT_BITS_PAY = 0.9
ROUNDS = 3
#: The least compute capability of `FastKL`: half precision on tensor cores at bfloat16's generation.
OLDEST = (8, 0)


def fast_decoder(
    decoder: Decoder, device: torch.device, dtype: torch.dtype, count: int, h: int, w: int, *, eight_bit: bool
) -> FixedSizeDecoder:
    """A decoder for `count` frames of h × w latents on a CUDA device, compiled and recorded.

    Args:
        eight_bit: 8-bit convolutions where the GPU and the network have them, and gain by them.

    Raises:
        Exception: of any kind, from compilers and drivers.
    """
    from encoder_worker.fast.graphed import GraphedDecoder
    from encoder_worker.fast.kl import FastKL, is_usual

    if isinstance(decoder, TinyDecoder):
        try:
            return GraphedDecoder(decoder, device, dtype, count, h, w)
        except Exception as error:  # cuDNN has no kernel for it, perhaps
            logger.warning("the small decoder's layers stay apart: %s", first_line(error))
            return GraphedDecoder(decoder, device, dtype, count, h, w, fused=False)
    capability = torch.cuda.get_device_capability(device)
    if not isinstance(decoder, KLDecoder) or not is_usual(decoder) or capability < OLDEST:
        return GraphedDecoder(decoder, device, dtype, count, h, w)
    eight_bit = eight_bit and capability >= FLOAT8_FROM
    cudnn = capability[0] not in TENSOR_COPIES

    def made(eight_bit: bool) -> FixedSizeDecoder:
        return FastKL(decoder, device, dtype, count, h, w, eight_bit=eight_bit, cudnn=cudnn)

    return quicker(made(False), made(True)) if eight_bit and cudnn else made(eight_bit)


def quicker(exact: FixedSizeDecoder, rounding: FixedSizeDecoder) -> FixedSizeDecoder:
    """The one that takes less time. 8-bit convolutions have to save a tenth, since they round.

    No card with 8 bits and without the tensor copy engine was at hand, so each is asked.
    """
    seconds = [min(seconds_of(made.run, made.device) for _ in range(ROUNDS)) for made in (exact, rounding)]
    logger.info(
        "decoding %d frames takes %.4f s, with 8-bit convolutions %.4f s", len(exact.latents), *seconds
    )
    return rounding if seconds[1] < EIGHT_BITS_PAY * seconds[0] else exact
