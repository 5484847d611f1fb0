"""`python -m encoder_worker.bench`: what decoding and encoding a clip costs on this machine."""

from __future__ import annotations

import statistics
import sys
import time
from typing import TYPE_CHECKING

from protocol.openmp import sleep_at_barriers, thread_count
from protocol.settings import settings_from_command_line

if TYPE_CHECKING:
    from protocol.messages import Array16

    from .decode import ClipDecoder
    from .jpeg import JpegEncoder

FRAMES = 12
ROUNDS = 5


def clip_seconds(decoder: ClipDecoder, jpeg: JpegEncoder, latents: Array16) -> tuple[float, float, float]:
    """Medians for a clip: whole, until its first chunk's pictures are encoded, and of it JPEG alone."""
    rounds = []
    for _ in range(1 + ROUNDS):
        begin, first, packing = time.perf_counter(), 0.0, 0.0
        for pictures in decoder.decode(latents):
            start = time.perf_counter()
            for picture in pictures:
                jpeg(picture)
            packing += time.perf_counter() - start
            first = first or time.perf_counter() - begin
        rounds.append((time.perf_counter() - begin, first, packing))
    whole, first, packing = (statistics.median(column) for column in zip(*rounds[1:], strict=True))
    return whole, first, packing


def main() -> None:
    settings = settings_from_command_line()
    sleep_at_barriers()
    import numpy as np
    import torch

    from protocol.model_config import ModelConfig

    from .decode import ClipDecoder
    from .device import choose_device
    from .jpeg import JpegEncoder
    from .vae import load_decoder

    torch.set_num_threads(thread_count(settings))
    config = ModelConfig.load(settings.config)
    vae = load_decoder(config.pretrained_vae_path)
    decoder = ClipDecoder(vae, choose_device(settings), settings.dtype)
    height, width = settings.height or config.height, settings.width or config.width
    shape = (FRAMES, vae.channels, height // vae.factor, width // vae.factor)
    latents = (np.random.default_rng(0).standard_normal(shape) * vae.scaling).astype(np.float16)
    figures = [1e3 * s for s in clip_seconds(decoder, JpegEncoder(settings.jpeg_quality), latents)]
    threads = torch.get_num_threads()
    sys.stdout.write(
        f"{vae.kind} {width}×{height} on {decoder.device} in {decoder.plan}, {threads} threads: "
        f"{FRAMES} frames in {figures[0]:.0f} ms, the first {decoder.chunk} after {figures[1]:.0f} ms; "
        f"of that JPEG {figures[2]:.1f} ms\n"
    )


if __name__ == "__main__":
    main()
