"""Whisper's features by OpenVINO on a CPU, and the record by which the next start needs no torch.

Transformers' Whisper stays the reference: it is what is converted (`features.convert`), and it serves where
OpenVINO does not. With a kept network neither it nor torch is imported, which takes seconds and 350 MB.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from audio_worker.frame_tokens import frame_tokens
from audio_worker.mel import short_log_mel
from audio_worker.ring import WINDOW
from audio_worker.sessions import DueClip
from protocol.model.config import ModelConfig
from protocol.model.cpu_graph import CpuEngine, CpuGraph
from protocol.model.graph_record import GraphRecord
from protocol.model.kept_record import content_key
from protocol.process.settings import Settings
from protocol.wire.messages import Array16, InfoValue

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WhisperFacts:
    """The numbers of a compiled encoder: its arithmetic, and the bands of its spectrogram."""

    dtype: str
    n_mels: int


class GraphFeatures:
    """The features of clips, each by itself.

    Args:
        graph: spectrogram (1, n_mels, 150) → hidden states (1, 75, layers, width).
        facts: its numbers.
        margin: video frames of context on each side of a frame.
    """

    def __init__(self, graph: CpuGraph, facts: WhisperFacts, margin: int) -> None:
        self.numbers = facts
        self.margin = margin
        self._graph = graph

    @property
    def file(self) -> Path:
        """Where the network is kept."""
        return self._graph.file

    def tokens(self, clips: Sequence[DueClip]) -> list[Array16]:
        """For each clip float16 (frames, (2·margin+1)·2·5, 384): for each position its five states."""
        made = []
        for clip in clips:
            mel = short_log_mel(clip.samples, self.numbers.n_mels)
            made.append(frame_tokens(clip, self.states(mel), self.margin))
        return made

    def states(self, mel: NDArray[np.float32]) -> NDArray[np.float32]:
        """Hidden states (75, layers, width) of a spectrogram (n_mels, 150)."""
        states: NDArray[np.float32] = self._graph(mel[None])[0]
        return states

    def warm_up(self, batch: int) -> float:
        """Run the encoder until it is warm. Returns seconds that one clip takes.

        Args:
            batch: largest batch that is served. It does not matter, since clips go one by one.
        """
        return warm_seconds(self.tokens, (1, 1))

    def facts(self) -> dict[str, InfoValue]:
        """Device, dtype, window and margin, for Status."""
        return {
            "device": "cpu", "dtype": self.numbers.dtype, "window": "short", "margin": self.margin,
            "cpu_engine": "openvino",
        }  # fmt: skip


def warm_seconds(tokens: Callable[[Sequence[DueClip]], object], sizes: Sequence[int]) -> float:
    """Make the features of so many silent clips, size by size. Returns seconds that the last call took."""
    clip = silent_clip()
    taken = 0.0
    for size in sizes:
        begin = time.perf_counter()
        tokens([clip] * size)
        taken = time.perf_counter() - begin
    return taken


def silent_clip() -> DueClip:
    """A clip to warm up with."""
    silence = np.zeros(WINDOW, np.float32)
    return DueClip("warm-up", 0, 0, 0, 24, 12, "none", "none", silence, 0.0)


class WhisperRecord(GraphRecord[WhisperFacts]):
    """Which library runs Whisper on this CPU, as an earlier start found by timing.

    Only the short window, which always runs on the CPU, has one.

    Args:
        settings: of this worker.
        config: the model.
    """

    def __init__(self, settings: Settings, config: ModelConfig) -> None:
        self._margin = settings.audio_margin
        engine = CpuEngine.of(settings) if config.whisper_window == "short" else None
        name = None
        if engine is not None:
            # The short window takes one thread 4 % of a clip's time. More threads would disturb the denoiser.
            engine = replace(engine, threads=settings.threads or 1)
            name = _record_name(settings, config, engine)
        super().__init__(engine, name, WhisperFacts, "Whisper", ["cpu"])

    def load(self) -> GraphFeatures | None:
        """The encoder that is to serve, or None where torch is needed to say, or is the faster one."""
        kept = self.load_graph()
        return None if kept is None else GraphFeatures(*kept, self._margin)

    def store(self, features: GraphFeatures | None) -> None:
        """Keeps the choice: these features, or None for torch."""
        if features is None:
            self.store_torch()
        else:
            self.store_graph(features.file, asdict(features.numbers))


def _record_name(settings: Settings, config: ModelConfig, engine: CpuEngine) -> str | None:
    weights = config.audio_model_path
    adapter = config.audio_adapter_path
    files = [weights, *([adapter] if adapter is not None else [])]
    if weights.is_file():  # a file's configuration lies beside it
        files += [file for file in (weights.parent / "config.json",) if file.is_file()]
    key = content_key(files, [Path(__file__).parent], settings.dtype, settings.cpu_engine, engine.threads)
    return None if key is None else f"whisper-{key}"
