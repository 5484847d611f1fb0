"""`python -m scripts.bench.host.features`: the cost of Whisper on this machine.

It measures a clip's features, and the start of an audio worker: how long until it is warm, and its memory
then. Processor time is printed beside the wall clock, because other processes disturb it less.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from protocol.model.hardware.threads import let_waiting_threads_sleep
from protocol.process.settings import Settings, settings_from_command_line
from scripts.bench.common.processes import usage

if TYPE_CHECKING:
    from audio_worker.features import FeatureExtractor
    from protocol.model.config import ModelConfig
    from protocol.wire.messages import Samples

#: The beginning of the line that a warm worker logs.
WARM = "Whisper features"
STARTS = 3


def noise_window() -> Samples:
    """A window of noise."""
    import numpy as np

    from audio_worker.ring import WINDOW

    return np.random.default_rng(0).standard_normal(WINDOW).astype(np.float32) * 0.1


def clip_ms(features: FeatureExtractor, batch: int, repeats: int = 40) -> tuple[float, float]:
    """Median milliseconds for one clip when `batch` sessions have one due: by the clock, and of processor."""
    from audio_worker.sessions import DueClip

    noise = noise_window()
    clips = [DueClip(str(i), 0, 0, 0, 24, 12, "none", "none", noise, 0.0) for i in range(batch)]
    features.tokens(clips)
    wall, processor = [], []
    for _ in range(repeats):
        begin, used = time.perf_counter(), time.process_time()
        features.tokens(clips)
        wall.append((time.perf_counter() - begin) / batch * 1e3)
        processor.append((time.process_time() - used) / batch * 1e3)
    return statistics.median(wall), statistics.median(processor)


def start_worker(flags: list[str]) -> str:
    """Start an audio worker with these flags, wait until it is warm, and end it.

    Returns:
        One line with seconds, processor seconds and memory.

    Raises:
        RuntimeError: the worker ended before it was warm. The text is its log.
    """
    with tempfile.TemporaryDirectory(prefix="features-", dir="/tmp") as run_dir:
        command = [sys.executable, "-m", "audio_worker", *flags, "--run-dir", run_dir]
        began = time.monotonic()
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as worker:
            assert worker.stderr is not None
            log = []
            try:
                for line in worker.stderr:
                    log.append(line)
                    if WARM in line:
                        break
                else:
                    raise RuntimeError("".join(log))
                seconds, used = time.monotonic() - began, usage([worker.pid])
            finally:
                worker.kill()
    resident, proportional = sum(used.resident.values()), sum(used.proportional.values())
    return (
        f"a worker is warm after {seconds:.2f} s ({sum(used.processor.values()):.2f} s of processor time) "
        f"and holds {resident >> 20} MiB (PSS {proportional >> 20} MiB)\n"
    )


def parts(settings: Settings, config: ModelConfig) -> str:
    """One line with the parts of a clip's features by OpenVINO, as the workers above have kept them."""
    from audio_worker.frame_tokens import frame_tokens
    from audio_worker.graph_features import WhisperRecord, silent_clip
    from audio_worker.mel import short_log_mel
    from audio_worker.voice import VoiceDetector

    made = WhisperRecord(settings, config).load()
    if made is None:
        return "torch serves here\n"
    clip = replace(silent_clip(), samples=noise_window(), clip_frames=4)
    mel = short_log_mel(clip.samples, made.numbers.n_mels)
    states, detector = made.states(mel), VoiceDetector.load(settings)
    tasks: dict[str, Callable[[], object]] = {
        "voice": lambda: detector.is_silent(clip),
        "spectrogram": lambda: short_log_mel(clip.samples, made.numbers.n_mels),
        "encoder": lambda: made.states(mel),
        "tokens": lambda: frame_tokens(clip, states, made.margin),
    }
    times = []
    for name, task in tasks.items():
        spent = []
        for _ in range(40):
            used = time.process_time()
            task()
            spent.append(time.process_time() - used)
        times.append(f"{name} {1e3 * statistics.median(spent):.2f}")
    return f"a clip by OpenVINO in {made.numbers.dtype}, ms of processor time: {', '.join(times)}\n"


def main() -> None:
    """Print a line for each number of threads and dtype, one for each start of a worker, and the parts."""
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
            times = ", ".join(
                "{:.2f} ms ({:.2f} ms of processor time) in batches of {}".format(*clip_ms(features, n), n)
                for n in (1, 4)
            )
            sys.stdout.write(f"{device} {window} window, {threads} threads, {name}: a clip takes {times}\n")
    for _ in range(STARTS):
        sys.stdout.write(start_worker(sys.argv[1:]))
    sys.stdout.write(parts(settings, config))


if __name__ == "__main__":
    main()
