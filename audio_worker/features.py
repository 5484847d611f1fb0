"""Audio tokens of clips: Whisper's features of a batch of windows, and each frame's choice from them."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch

from audio_worker.adapter import apply_adapter
from audio_worker.frame_tokens import frame_tokens
from audio_worker.graph_features import (
    GraphFeatures,
    WhisperFacts,
    WhisperRecord,
    silent_clip,
    warm_seconds,
)
from audio_worker.sessions import DueClip
from audio_worker.shipped_whisper import shipped_features
from audio_worker.whisper import WindowKind, load_whisper
from protocol.model.config import ModelConfig
from protocol.model.cpu_convert import load_graph
from protocol.model.cpu_graph import CpuEngine, best_times, is_faster
from protocol.model.hardware.devices import whisper_device
from protocol.model.hardware.dtypes import dtype_name, dtypes_to_try
from protocol.model.hardware.threads import thread_count
from protocol.model.timed_apart import LibraryChoice, choices_answer
from protocol.process.logs import first_line
from protocol.process.settings import Settings
from protocol.wire.messages import Array16, InfoValue

logger = logging.getLogger(__name__)


class FeatureExtractor:
    """Whisper, and the gathering of each frame's tokens from its features.

    Args:
        path: Whisper's weights, see `whisper.load_whisper`.
        window: "short" or "padded", see `whisper.SpeechEncoder`.
        margin: video frames of context on each side of a frame.
        device: device of the encoder.
        dtype: arithmetic of the encoder. The spectrogram is always in float32.
        adapter: corrections to the weights, see `adapter.apply_adapter`.

    Raises:
        CheckpointError: weights or corrections cannot be used. The text names file and key.
    """

    def __init__(
        self,
        path: str,
        window: WindowKind,
        margin: int,
        device: torch.device,
        dtype: torch.dtype,
        adapter: Path | None = None,
    ) -> None:
        self.margin = margin
        self.device = device
        self.dtype = dtype
        encoder = load_whisper(path, window)
        if adapter is not None:
            apply_adapter(encoder, adapter)
        #: Spectrogram → hidden states, on the device.
        self.encoder = encoder.to(device, dtype)

    @classmethod
    def load(cls, config: ModelConfig, settings: Settings) -> FeatureExtractor:
        """Load the model that configuration and settings name, and set the number of torch's threads.

        Raises:
            CheckpointError: weights or corrections cannot be used. The text names file and key.
        """
        window = window_of(config)
        device = whisper_device(settings, window)
        # The short window takes one thread 4 % of a clip's time. More threads would disturb the denoiser.
        torch.set_num_threads(1 if window == "short" and not settings.threads else thread_count(settings))
        dtype = choose_dtype(settings, device)
        adapter = config.audio_adapter_path
        return cls(str(config.audio_model_path), window, settings.audio_margin, device, dtype, adapter)

    @torch.inference_mode()
    def tokens(self, clips: Sequence[DueClip]) -> list[Array16]:
        """Compute the tokens of clips together.

        Returns:
            For each clip float16 (frames, (2·margin+1)·2·5, 384): for each position its five states.
        """
        pcm = torch.from_numpy(np.stack([clip.samples for clip in clips]))
        features = self.encoder.features(pcm).cpu()
        rows = features.numpy()
        return [frame_tokens(clip, row, self.margin) for clip, row in zip(clips, rows, strict=True)]

    def warm_up(self, batch: int) -> float:
        """Run the encoder until it is warm.

        Args:
            batch: largest batch that is served. On a GPU each size up to it runs once.

        Returns:
            Seconds that one clip takes.
        """
        sizes = range(1, batch + 1) if self.device.type == "cuda" else (1,)
        return warm_seconds(self.tokens, (*sizes, 1))

    @property
    def n_mels(self) -> int:
        """Bands of the spectrogram."""
        return int(self.encoder.encoder.conv1.weight.shape[1])

    def facts(self) -> dict[str, InfoValue]:
        """Device, dtype, window and margin, for Status."""
        return {
            "device": str(self.device), "dtype": dtype_name(self.dtype),
            "window": self.encoder.window, "margin": self.margin, "cpu_engine": "torch",
        }  # fmt: skip

    def convert(self, engine: CpuEngine) -> GraphFeatures:
        """The same encoder by OpenVINO, from the kept file or converted now.

        Raises:
            GraphUnavailable: OpenVINO cannot be imported, or cannot compute in this arithmetic.
            Exception: whatever OpenVINO raises while it converts or compiles.
        """
        exact = copy.deepcopy(self.encoder).float()
        n_mels = self.n_mels
        mel = torch.zeros(1, n_mels, 2 * exact.positions)
        sources = Path(__file__).parent
        graph = load_graph(exact, [mel], self.dtype, engine, name=f"whisper-{n_mels}", sources=sources)
        return GraphFeatures(graph, WhisperFacts(dtype_name(self.dtype), n_mels), self.margin)


def window_of(config: ModelConfig) -> WindowKind:
    """The window that the model was trained with."""
    return "short" if config.whisper_window == "short" else "padded"


def choose_dtype(settings: Settings, device: torch.device) -> torch.dtype:
    """The encoder's arithmetic: "auto" is bfloat16 on a CPU that multiplies it, else float32.

    On a GPU it is float16, which Whisper was published in. Its features differ by 0.1 % from float32's.
    """
    if settings.dtype == "auto" and device.type == "cuda":
        return torch.float16
    return dtypes_to_try(settings.dtype, device)[-1]


Features: TypeAlias = FeatureExtractor | GraphFeatures


def load_features(config: ModelConfig, settings: Settings, record: WhisperRecord) -> Features:
    """Whisper by the library that takes less time here. The choice is kept for the next start.

    Raises:
        CheckpointError: weights or corrections cannot be used. The text names file and key.
    """
    extractor = FeatureExtractor.load(config, settings)
    engine = record.engine
    if engine is None or extractor.device.type != "cpu" or record.torch_serves():
        return extractor
    converted, timed = timed_features(config, extractor, engine)
    if timed:
        record.store(converted)
    return extractor if converted is None else converted


def timed_features(
    config: ModelConfig, extractor: FeatureExtractor, engine: CpuEngine
) -> tuple[GraphFeatures | None, bool]:
    """Times OpenVINO against torch.

    Args:
        config: the model.
        extractor: its Whisper in torch, on the CPU.
        engine: how OpenVINO may be used.

    Returns:
        The features by OpenVINO where it is to serve, else None, and whether both were timed.
    """
    clip = silent_clip()
    try:
        converted = shipped_features(config, extractor.margin, dtype_name(extractor.dtype), engine)
        converted = converted or extractor.convert(engine)
        openvino, by_torch = best_times([partial(made.tokens, [clip]) for made in (converted, extractor)])
    except Exception as error:  # a library that is not there, a conversion that fails
        logger.warning("Whisper by torch, OpenVINO cannot serve: %s", first_line(error))
        return None, False
    serves = engine.forced or is_faster(openvino, by_torch)
    logger.info(
        "Whisper by %s: a clip takes torch %.1f ms, OpenVINO %.1f ms",
        "OpenVINO" if serves else "torch", 1e3 * by_torch, 1e3 * openvino,
    )  # fmt: skip
    return converted if serves else None, True


def time_whisper(settings: Settings) -> dict[str, Any]:
    """Whisper's choice, for `time_apart`."""
    config = ModelConfig.load(settings.config)
    engine = WhisperRecord(settings, config).engine
    assert engine is not None
    made, timed = timed_features(config, FeatureExtractor.load(config, settings), engine)
    return choices_answer([LibraryChoice(made is not None, keep=timed)])
