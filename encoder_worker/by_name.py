"""The decoders of one encoder worker on a GPU, by the names that a GPU worker asks for."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

import torch

from encoder_worker.decode import ClipDecoder
from encoder_worker.graph_decoder import CHUNK
from encoder_worker.latents import DecodeError
from encoder_worker.load import load_clip_decoder
from protocol.model.config import ConfigError, ModelConfig
from protocol.model.vae_folder import VaeFolder
from protocol.process.logs import first_line
from protocol.process.settings import Settings

logger = logging.getLogger(__name__)

#: Most of a small decoder: JPEG takes longer there, and as many threads work on it.
SMALL_CHUNK = 6
#: Seconds after which a decoder that nobody asks for any more is let go, for its memory.
UNUSED_AFTER = 30.0


@dataclass
class _Kept:
    decoder: ClipDecoder
    used: float


class NamedDecoders:
    """Makes each decoder when it is first asked for. All methods belong to the compute thread.

    Args:
        settings: of this worker.
        config: the model.
        device: a GPU.
        first: the worker's own decoder.
        name: the name of that, as `Latents.decoder` has it.
    """

    def __init__(
        self, settings: Settings, config: ModelConfig, device: torch.device, first: ClipDecoder, name: str
    ) -> None:
        self._settings = settings
        self._config = config
        self._device = device
        self._own = name
        self._kept = {name: _Kept(first, time.monotonic())}

    def get(self, name: str, frames: int) -> ClipDecoder:
        """The decoder of this name, or for "" the last one that was asked for.

        Args:
            name: of `Latents.decoder`.
            frames: of the clip.

        Raises:
            DecodeError: it cannot be had.
        """
        now = time.monotonic()
        wanted = name or self._own
        if wanted in self._kept and self._kept[wanted].decoder.chunk < chunk_of(wanted, frames):
            del self._kept[wanted]  # made for short clips, as of a trial, and slow with these
        if wanted not in self._kept:
            self._kept[wanted] = _Kept(self._make(wanted, frames), now)
        if name:
            self._own = name  # what the last clip asked for
        self._kept[wanted].used = now
        self._let_go(now)
        return self._kept[wanted].decoder

    def _make(self, name: str, frames: int) -> ClipDecoder:
        begin = time.monotonic()
        width, height = self._config.picture_size(self._settings)
        try:
            folder = VaeFolder.small_of(self._config) if name == "tiny" else VaeFolder.of(self._config)
            decoder = load_clip_decoder(
                self._config,
                folder,
                self._device,
                self._settings.dtype,
                chunk=chunk_of(name, frames),
                fast=fast_kind(name),
            )
            decoder.warm_up(height // folder.factor, width // folder.factor)
        except ConfigError as error:
            raise DecodeError(f"the decoder {name} cannot be had: {first_line(error)}") from error
        logger.info(
            "decoder %s: %s in %s, made in %.1f s",
            name, folder.class_name, decoder.describe(), time.monotonic() - begin,
        )  # fmt: skip
        return decoder

    def _let_go(self, now: float) -> None:
        unused = [name for name, kept in self._kept.items() if now - kept.used > UNUSED_AFTER]
        for name in unused:
            del self._kept[name]
        if unused:
            torch.cuda.empty_cache()


def chunk_of(name: str, frames: int) -> int:
    """Frames that the decoder of this name decodes at once, of clips of `frames` frames.

    Those of a small decoder divide a clip where that can be, since a chunk takes its whole time however few
    frames it has.
    """
    if name != "tiny":
        return min(CHUNK, frames)
    divisors = (n for n in range(SMALL_CHUNK, SMALL_CHUNK // 2 - 1, -1) if frames % n == 0)
    return next(divisors, min(SMALL_CHUNK, frames))


def fast_kind(name: str) -> str:
    """`ClipDecoder`'s `fast` for the decoder of this name."""
    return "eight_bit" if name == "kl-8bit" else "exact"


def own_name(settings: Settings) -> str:
    """The name of the decoder that the settings ask for."""
    if settings.decoder == "tiny":
        return "tiny"
    return "kl-8bit" if settings.tier == "fast" else "kl"
