"""`python -m scripts.bench.host.decoding`: the cost of decoding and encoding a clip on this machine."""

from __future__ import annotations

import resource
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from protocol.model.hardware.threads import let_waiting_threads_sleep, thread_count
from protocol.process.c_allocator import keep_freed_memory
from protocol.process.settings import settings_from_command_line

if TYPE_CHECKING:
    from encoder_worker.decode import ClipDecoder
    from encoder_worker.jpeg import JpegEncoder
    from protocol.wire.messages import Array16

FRAMES = 12
ROUNDS = 5


@dataclass(frozen=True)
class ClipCost:
    """Medians of a clip. Times are in seconds."""

    #: Wall time of all of it.
    whole: float
    #: Wall time until the pictures of the first chunk are encoded.
    first: float
    #: Wall time of JPEG alone.
    packing: float
    processor: float
    #: Page faults.
    faults: float


def clip_cost(decoder: ClipDecoder, jpeg: JpegEncoder, latents: Array16) -> ClipCost:
    """Decodes and encodes the clip some times over."""
    rounds = []
    for _ in range(1 + ROUNDS):
        begin, first, packing = time.perf_counter(), 0.0, 0.0
        spent, faults = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for pictures in decoder.decode(latents):
            start = time.perf_counter()
            for picture in pictures:
                jpeg(picture)
            packing += time.perf_counter() - start
            first = first or time.perf_counter() - begin
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
        rounds.append(
            (time.perf_counter() - begin, first, packing, time.process_time() - spent, float(faults))
        )
    return ClipCost(*(statistics.median(column) for column in zip(*rounds[1:], strict=True)))


def main() -> None:
    """Print the costs with the allocator as it is, and with freed memory kept."""
    settings = settings_from_command_line()
    let_waiting_threads_sleep()
    import numpy as np
    import torch

    from encoder_worker.decode import ClipDecoder
    from encoder_worker.jpeg import JpegEncoder
    from encoder_worker.vae.decoders import load_decoder
    from protocol.model.config import ModelConfig
    from protocol.model.hardware.devices import decoder_device
    from protocol.model.vae_folder import VaeFolder

    torch.set_num_threads(thread_count(settings))
    config = ModelConfig.load(settings.config)
    vae = load_decoder(VaeFolder.of(config))
    decoder = ClipDecoder(vae, decoder_device(settings), settings.dtype)
    width, height = config.picture_size(settings)
    shape = (FRAMES, vae.channels, height // vae.factor, width // vae.factor)
    latents = (np.random.default_rng(0).standard_normal(shape) * vae.scaling).astype(np.float16)
    threads = torch.get_num_threads()
    print(f"{vae.kind} {width}×{height} on {decoder.device} in {decoder.plan}, {threads} threads")
    jpeg = JpegEncoder(settings.jpeg_quality)
    print(_told("malloc as it is", clip_cost(decoder, jpeg, latents), decoder.chunk), flush=True)
    if keep_freed_memory():
        print(_told("freed memory kept", clip_cost(decoder, jpeg, latents), decoder.chunk))


def _told(how: str, cost: ClipCost, chunk: int) -> str:
    return (
        f"  {how}: {FRAMES} frames in {1e3 * cost.whole:.0f} ms, the first {chunk} after "
        f"{1e3 * cost.first:.0f} ms; of that JPEG {1e3 * cost.packing:.1f} ms; "
        f"processor time {1e3 * cost.processor:.0f} ms, {cost.faults:.0f} page faults"
    )


if __name__ == "__main__":
    main()
