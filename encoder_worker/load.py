"""Loads a model's decoder as an encoder worker serves it. It imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from encoder_worker.decode import ClipDecoder
from encoder_worker.graph_decoder import CHUNK, CPU_CHUNK
from encoder_worker.shipped_decoder import ShippedDecoders
from encoder_worker.vae.decoders import load_decoder
from encoder_worker.vae.int8 import read_ranges
from protocol.model.config import ModelConfig
from protocol.model.cpu_graph import CpuEngine
from protocol.model.hardware.threads import thread_count
from protocol.model.timed_apart import LibraryChoice, choices_answer
from protocol.model.vae_folder import VaeFolder
from protocol.process.c_allocator import keep_freed_memory
from protocol.process.settings import Settings


def load_clip_decoder(
    config: ModelConfig,
    folder: VaeFolder,
    device: torch.device,
    dtype: str,
    *,
    fine: bool = False,
    chunk: int = CHUNK,
    fast: str = "exact",
    engine: CpuEngine | None = None,
) -> ClipDecoder:
    """The decoder of a VAE, before its warm-up.

    OpenVINO takes the networks that the model ships. It converts torch's where the model ships none.

    Args:
        config: the model.
        folder: the VAE that decodes.
        device: where torch runs.
        dtype: as for `ClipDecoder`.
        fine: whether the finer head draws.
        chunk: frames decoded at once.
        fast: as for `ClipDecoder`.
        engine: how OpenVINO may serve on a CPU, or None for torch alone.

    Raises:
        ConfigError: the folder holds no decoder that fits.
        SettingsError: the weights cannot be read. The text names the file.
    """
    vae = load_decoder(folder, fine=fine)
    shipped = ranges = None
    if engine is not None and device.type == "cpu":
        shipped = ShippedDecoders.find(config, folder, fine=fine)
        ranges = None if shipped else read_ranges(folder.path, vae)
    return ClipDecoder(vae, device, dtype, chunk, fast, engine, ranges, shipped)


def time_decoders(settings: Settings, heads: Sequence[bool]) -> dict[str, Any]:
    """The choices of heads, each by whether it is the finer one, for `time_apart`."""
    keep_freed_memory()  # as the worker itself
    torch.set_num_threads(thread_count(settings))
    return choices_answer([_time_head(settings, fine) for fine in heads])


def _time_head(settings: Settings, fine: bool) -> LibraryChoice:
    config = ModelConfig.load(settings.config)
    folder = VaeFolder.of(config)  # a small decoder ships no network
    decoder = load_clip_decoder(
        config,
        folder,
        torch.device("cpu"),
        settings.dtype,
        fine=fine,
        chunk=CPU_CHUNK,
        engine=CpuEngine.of(settings),
    )
    width, height = config.picture_size(settings)
    decoder.warm_up(height // folder.factor, width // folder.factor)
    made = decoder.openvino
    return LibraryChoice(made is not None, decoder.was_timed, made is not None and made.is_eight_bit)
