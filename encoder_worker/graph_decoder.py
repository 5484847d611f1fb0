"""A decoder by OpenVINO on a CPU, and the record by which the next start needs no torch."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from encoder_worker.jpeg import Picture
from encoder_worker.latents import DecodeError, check_latents
from encoder_worker.vae.pixels import pictures_of
from protocol.model.config import ModelConfig
from protocol.model.cpu_graph import CpuEngine, CpuGraph, Floats, serves_untimed
from protocol.model.graph_record import GraphRecord
from protocol.model.hardware.drivers import only_a_cpu
from protocol.model.kept_record import content_key
from protocol.model.vae_folder import CONFIG_FILE, WEIGHTS_FILES, VaeFolder
from protocol.process.settings import Settings
from protocol.wire.phrases import phrase

logger = logging.getLogger(__name__)

#: Beside the weights: the ranges of a decoder in eight bits, see `vae.int8`.
RANGES_FILE = "int8_ranges.json"

#: Frames decoded at once. More gain nothing, and the first ones come later.
CHUNK = 2
#: The same where a CPU serves. Two at once save 1 to 2 % there, and the first one comes a frame's time later.
CPU_CHUNK = 1

#: Part of the other arithmetic's time that eight bits may take to be chosen. With them, pictures are 0.2 to
#: 0.3 dB further from the truth (docs/lab/bundled-model.md), and video flickers by a fifth of a level more.
#: A small gain is not worth that.
EIGHT_BITS_PAY = 0.75

#: Rounds of the first clip, of which the last is timed.
WARM_UP_ROUNDS = 2


@dataclass(frozen=True, slots=True)
class DecoderFacts:
    """The numbers of a compiled decoder.

    Attributes:
        kind: the VAE's class.
        channels: of the latents.
        scaling: latents are divided by it first.
        shift: is added after the division.
        dtype: of the arithmetic.
        frames: decoded at once.
        height: of the latents.
        width: of the latents.
        eight_bit: whether most convolutions round to eight bits.
    """

    kind: str
    channels: int
    scaling: float
    shift: float
    dtype: str
    frames: int
    height: int
    width: int
    eight_bit: bool = False


class GraphDecoder:
    """Decodes clips of one size in chunks, so that a clip's first frames leave before its last are made.

    Args:
        graph: unscaled latents (frames, C, h, w) → pixels, as `vae.pixels` ends a network.
        facts: its numbers.
    """

    def __init__(self, graph: CpuGraph, facts: DecoderFacts) -> None:
        self.facts = facts
        self.chunk = facts.frames
        self.size = (facts.height, facts.width)
        self._graph = graph

    @property
    def file(self) -> Path:
        """Where the network is kept."""
        return self._graph.file

    @property
    def is_eight_bit(self) -> bool:
        """Whether most convolutions round to eight bits."""
        return self.facts.eight_bit

    def decode(self, latents: npt.NDArray[np.float16]) -> Iterator[Picture]:
        """Scaled latents (frames, C, h, w) → (n, H, W, 3) uint8 RGB, n ≤ chunk, in order.

        Raises:
            DecodeError: wrong shape, or values that are not finite.
        """
        check_latents(latents, self.facts.channels)
        if latents.shape[2:] != self.size:
            why = phrase("failed_latents_size", size=latents.shape[2:], wanted=self.size)
            raise DecodeError(why, fatal=True)
        for start in range(0, len(latents), self.chunk):
            yield self._decode(latents[start : start + self.chunk])

    def warm_up(self) -> float:
        """Decodes noise. Returns seconds for a chunk once warm."""
        shape = (self.chunk, self.facts.channels, *self.size)
        latents = np.random.default_rng(0).standard_normal(shape).astype(np.float16)
        taken = 0.0
        for _ in range(WARM_UP_ROUNDS):
            start = time.perf_counter()
            list(self.decode(latents))
            taken = time.perf_counter() - start
        return taken

    def unscaled(self, latents: Floats) -> Picture:
        """Unscaled latents (n, C, h, w), n ≤ chunk → pictures (n, H, W, 3)."""
        return pictures_of(self.pixels(latents))

    def pixels(self, latents: Floats) -> Picture:
        """Unscaled latents (n, C, h, w), n ≤ chunk → pixels in the network's order, for `pictures_of`.

        The next call writes over them.
        """
        count = len(latents)
        if count < self.chunk:
            padding = np.zeros((self.chunk - count, *latents.shape[1:]), np.float32)
            latents = np.concatenate([latents, padding])
        output: Picture = self._graph.outputs(latents)[0]
        return output[:count]

    def release(self) -> None:
        """Gives memory back until the next clip."""
        self._graph.release()

    def describe(self) -> str:
        """How it decodes, for people."""
        return f"{'int8 and ' if self.facts.eight_bit else ''}{self.facts.dtype} by OpenVINO"

    def _decode(self, latents: npt.NDArray[np.float16]) -> Picture:
        scaling, shift = np.float32(self.facts.scaling), np.float32(self.facts.shift)
        return self.unscaled(latents.astype(np.float32) / scaling + shift)


def open_kinds(engine: CpuEngine, *, has_ranges: bool, dtype: str) -> list[bool]:
    """The decoders by OpenVINO that may serve, by whether they round to eight bits.

    Args:
        engine: the wish. Where it is forced, there is one.
        has_ranges: whether eight bits can be had.
        dtype: of the other arithmetic, for the log.
    """
    if engine.eight_bit and has_ranges:
        return [True] if engine.forced else [False, True]
    if engine.eight_bit and engine.forced:
        logger.warning("this decoder has no ranges for eight bits; it decodes in %s", dtype)
    return [False]


def quickest(decoders: Sequence[GraphDecoder], seconds: Sequence[float]) -> tuple[GraphDecoder, float]:
    """The decoder to take of these, in the order of `open_kinds`, and its time."""
    chosen = 1 if len(decoders) > 1 and seconds[1] < EIGHT_BITS_PAY * seconds[0] else 0
    return decoders[chosen], seconds[chosen]


class DecoderRecord(GraphRecord[DecoderFacts]):
    """Which library decodes on this CPU, as an earlier start found by timing.

    Args:
        settings: of this worker.
        config: the model.
        folder: the VAE that decodes.
        chunk: frames decoded at once.
        fine: whether the VAE's finer head draws.
    """

    def __init__(
        self, settings: Settings, config: ModelConfig, folder: VaeFolder, chunk: int, *, fine: bool = False
    ) -> None:
        engine = CpuEngine.of(settings)
        devices = ["cpu"] if set(settings.gpu_devices) == {"cpu"} else settings.encoder_devices
        weights = [folder.path / name for name in (*WEIGHTS_FILES, RANGES_FILE)]
        here = Path(__file__).parent
        key = None
        if engine is not None and (only_a_cpu(devices) or serves_untimed(engine, devices)):
            key = content_key(
                [folder.path / CONFIG_FILE, *[file for file in weights if file.is_file()]],
                [here / "vae", here / "decode.py", Path(__file__)],
                folder.config, config.picture_size(settings), chunk, fine,
                settings.dtype, settings.cpu_engine, engine.threads,
            )  # fmt: skip
        super().__init__(engine, None if key is None else f"decoder-{key}", DecoderFacts, "decoder", devices)

    def load(self) -> GraphDecoder | None:
        """The decoder that is to serve, or None where torch is needed to say, or is the faster one."""
        kept = self.load_graph()
        return None if kept is None else GraphDecoder(*kept)

    def store(self, decoder: GraphDecoder | None) -> None:
        """Keeps the choice: this decoder, or None for torch."""
        if decoder is None:
            self.store_torch()
        else:
            self.store_graph(decoder.file, asdict(decoder.facts))
