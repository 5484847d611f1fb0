"""`python -m scripts.bench.host.picture_steps --threads 1`: what each step of a picture takes on this CPU.

A row for each head and arithmetic of the model's decoder by OpenVINO, as an encoder worker takes its steps:
the network, the move of its pixels to where they belong, still pixels (in eight bits alone), and JPEG. All
rows go in turn, one picture at a time, so that other work on the machine slows all of them alike.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from protocol.model.hardware.arithmetic import cpu_arithmetic
from protocol.model.hardware.threads import let_waiting_threads_sleep, thread_count
from protocol.process.c_allocator import keep_freed_memory
from protocol.process.settings import Settings, settings_from_command_line

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from encoder_worker.graph_decoder import GraphDecoder
    from encoder_worker.jpeg import Picture
    from encoder_worker.jpeg_pool import JpegPool

#: Clips of each row, of which the first ones are not counted, and pictures of a clip.
CLIPS, UNCOUNTED, FRAMES = 30, 3, 4

STEPS = ("network", "pixels", "still", "JPEG")

Made = TypeVar("Made")


@dataclass
class PictureSteps:
    """The steps of one decoder's pictures.

    Attributes:
        decoder: it.
        seconds: of each picture, by step.
        last: the last picture as it was shown.
    """

    decoder: GraphDecoder
    seconds: dict[str, list[float]] = field(default_factory=lambda: {step: [] for step in STEPS})
    last: Picture | None = None

    def code(self, latents: npt.NDArray[np.float32], jpeg: JpegPool) -> None:
        """Makes a JPEG of one frame's latents (1, C, h, w), and notes the time of each step."""
        from encoder_worker.still_pixels import held
        from encoder_worker.vae.pixels import pictures_of

        pixels = self._timed("network", lambda: self.decoder.pixels(latents))
        pictures = self._timed("pixels", lambda: pictures_of(pixels))
        if self.decoder.is_eight_bit:
            pictures = self._timed("still", lambda: held(pictures, self.last))
        self.last = pictures[-1]
        self._timed("JPEG", lambda: jpeg(pictures))

    def row(self) -> str:
        """Milliseconds of each step and of all: the least, and the median in parentheses."""
        counted = [times[UNCOUNTED * FRAMES :] for times in self.seconds.values()]
        cells = [_cell(times) for times in counted]
        whole = [sum(picture) for picture in zip(*(times for times in counted if times), strict=True)]
        name = f"{self.last.shape[0] if self.last is not None else 0}² {self.decoder.describe()}"
        return f"  {name:<36}" + "".join(f"{cell:>15}" for cell in (*cells, _cell(whole)))

    def _timed(self, step: str, work: Callable[[], Made]) -> Made:
        begin = time.perf_counter()
        made = work()
        self.seconds[step].append(time.perf_counter() - begin)
        return made


def measured(settings: Settings, folder: Path) -> Sequence[PictureSteps]:
    """The steps of all decoders that this CPU can have.

    Args:
        settings: of the workers.
        folder: keeps compiled networks.
    """
    import numpy as np

    from encoder_worker.graph_decoder import CPU_CHUNK
    from encoder_worker.jpeg import JpegEncoder
    from encoder_worker.jpeg_pool import JpegPool
    from encoder_worker.shipped_decoder import ShippedDecoders
    from protocol.model.config import ModelConfig
    from protocol.model.cpu_graph import CpuEngine
    from protocol.model.vae_folder import VaeFolder, latent_scaling
    from scripts.bench.host.engines import latents_of_avatars

    config = ModelConfig.load(settings.config)
    vae = VaeFolder.of(config)
    latents = latents_of_avatars(settings, config, vae)[:FRAMES]
    h, w = latents.shape[2:]
    scaling, shift = latent_scaling(vae.config)
    frames = np.split(latents.astype(np.float32) / np.float32(scaling) + np.float32(shift), FRAMES)
    engine = CpuEngine(True, folder, thread_count(settings))
    rows = []
    for dtype in cpu_arithmetic(settings.dtype):
        for fine in (False, True)[: 1 + config.has_fine_head]:
            shipped = ShippedDecoders.find(config, vae, fine=fine)
            for eight_bit in (False, True)[: 0 if shipped is None else 1 + shipped.has_eight_bit]:
                assert shipped is not None
                decoder = shipped.load(CPU_CHUNK, h, w, dtype, engine, eight_bit=eight_bit)
                rows.append(PictureSteps(decoder))
    jpeg = JpegPool(JpegEncoder(settings.jpeg_quality), threads=1)
    for _ in range(CLIPS):
        for steps in rows:
            for frame in frames:
                steps.code(frame, jpeg)
    return rows


def main() -> None:
    """Prints a row for each decoder."""
    settings = settings_from_command_line()
    let_waiting_threads_sleep()
    keep_freed_memory()
    import torch

    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        rows = measured(settings, Path(folder))
    print(f"threads: {thread_count(settings)}; ms a picture, the least and the median")
    print(" " * 38 + "".join(f"{step:>15}" for step in (*STEPS, "all")))
    print(*(steps.row() for steps in rows), sep="\n")


def _cell(seconds: Sequence[float]) -> str:
    return f"{1e3 * min(seconds):.2f} ({1e3 * statistics.median(seconds):.2f})" if seconds else ""


if __name__ == "__main__":
    main()
