"""Audio tokens of clips: Whisper's features of a batch of windows, and each frame's choice from them."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from audio_worker.adapter import apply_adapter
from audio_worker.ring import WINDOW
from audio_worker.sessions import DueClip
from audio_worker.whisper import POSITIONS, WindowKind, load_whisper
from protocol.model.audio_tokens import audio_token_positions
from protocol.model.config import ModelConfig
from protocol.model.hardware.devices import whisper_device
from protocol.model.hardware.dtypes import dtype_name, dtypes_to_try
from protocol.model.hardware.threads import thread_count
from protocol.process.settings import Settings
from protocol.wire.clock import pts_of_clip
from protocol.wire.messages import Array16, InfoValue


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
        self._encoder = encoder.to(device, dtype)

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
        features = self._encoder.features(pcm).cpu()
        return [self._gather(clip, row) for clip, row in zip(clips, features, strict=True)]

    def warm_up(self, batch: int) -> float:
        """Run the encoder until it is warm.

        Args:
            batch: largest batch that is served. On a GPU each size up to it runs once.

        Returns:
            Seconds that one clip takes.
        """
        silence = np.zeros(WINDOW, np.float32)
        clip = DueClip("warm-up", 0, 0, 0, 24, 12, "none", "none", silence, 0.0)
        sizes = range(1, batch + 1) if self.device.type == "cuda" else (1,)
        for size in (*sizes, 1):
            begin = time.perf_counter()
            self.tokens([clip] * size)
            taken = time.perf_counter() - begin
        return taken

    def facts(self) -> dict[str, InfoValue]:
        """Device, dtype, window and margin, for Status."""
        return {
            "device": str(self.device), "dtype": dtype_name(self.dtype),
            "window": self._encoder.window, "margin": self.margin,
        }  # fmt: skip

    def describe(self) -> str:
        """The facts in one line, for the log."""
        return ", ".join(f"{name} {value}" for name, value in self.facts().items())

    def _gather(self, clip: DueClip, features: torch.Tensor) -> Array16:
        positions = clip_positions(clip.clip_frames, clip.fps, self.margin)
        tokens: Array16 = features[positions].flatten(1, 2).half().numpy()
        return tokens


@functools.lru_cache(maxsize=16)  # one for each kind of clip that the sessions ask for
def clip_positions(clip_frames: int, fps: int, margin: int) -> torch.Tensor:
    """Feature positions that each frame of a clip attends to, (frames, (2·margin+1)·2) int64.

    The clip is the end of the 1.5 s window, so its first frame is not at the window's first position.
    """
    first = (WINDOW - pts_of_clip(1, fps, clip_frames)) * POSITIONS // WINDOW
    positions = audio_token_positions(clip_frames, fps, POSITIONS, margin=margin, offset=first)
    return torch.from_numpy(positions)


def window_of(config: ModelConfig) -> WindowKind:
    """The window that the model was trained with."""
    return "short" if config.whisper_window == "short" else "padded"


def choose_dtype(settings: Settings, device: torch.device) -> torch.dtype:
    """The encoder's arithmetic: "auto" is bfloat16 on a CPU that multiplies it, else float32."""
    if settings.dtype == "auto" and device.type == "cuda":
        return torch.float32
    return dtypes_to_try(settings.dtype, device)[-1]
