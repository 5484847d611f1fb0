"""`python -m scripts.bench.host.features`: what the features of a clip cost on this machine."""

from __future__ import annotations

import statistics
import sys
import time
from typing import TYPE_CHECKING

from protocol.model.hardware.threads import let_waiting_threads_sleep
from protocol.process.settings import settings_from_command_line

if TYPE_CHECKING:
    from audio_worker.features import FeatureExtractor


def clip_ms(features: FeatureExtractor, batch: int, repeats: int = 15) -> float:
    """Median milliseconds for one clip when `batch` sessions have one due."""
    import numpy as np

    from audio_worker.ring import WINDOW
    from audio_worker.sessions import DueClip

    noise = np.random.default_rng(0).standard_normal(WINDOW).astype(np.float32) * 0.1
    clips = [DueClip(str(i), 0, 0, 0, 24, 12, "none", "none", noise, 0.0) for i in range(batch)]
    times = []
    for _ in range(repeats + 1):
        begin = time.perf_counter()
        features.tokens(clips)
        times.append((time.perf_counter() - begin) / batch)
    return statistics.median(times[1:]) * 1e3


def main() -> None:
    settings = settings_from_command_line()
    let_waiting_threads_sleep()
    import torch

    from audio_worker.features import FeatureExtractor, window_of
    from protocol.model.config import ModelConfig
    from protocol.model.hardware.devices import whisper_device
    from protocol.model.hardware.dtypes import DTYPES

    config = ModelConfig.load(settings.config)
    window = window_of(config)
    device = whisper_device(settings, window)
    weights = str(config.audio_model_path)
    for threads in sorted({1, torch.get_num_threads()}):
        torch.set_num_threads(threads)
        for name in ("float32", "bfloat16"):
            features = FeatureExtractor(weights, window, settings.audio_margin, device, DTYPES[name])
            times = ", ".join(f"{clip_ms(features, batch):.1f} ms in batches of {batch}" for batch in (1, 4))
            sys.stdout.write(f"{device} {window} window, {threads} threads, {name}: a clip takes {times}\n")


if __name__ == "__main__":
    main()
