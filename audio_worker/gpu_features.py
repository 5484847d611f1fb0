"""Whisper's padded window on a GPU: the encoder recorded as one CUDA graph, a clip at a time.

Transformers' encoder is recorded. The first start keeps it as a traced network, and the next ones read that.
The import of transformers would take them as long as everything else of this worker.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from audio_worker.features import FeatureExtractor, choose_dtype
from audio_worker.frame_tokens import frame_tokens
from audio_worker.graph_features import warm_seconds
from audio_worker.mel import POSITIONS, padded_log_mel
from audio_worker.sessions import DueClip
from protocol.model.config import ModelConfig
from protocol.model.hardware.devices import use_device, whisper_device
from protocol.model.hardware.dtypes import dtype_name
from protocol.model.kept_folder import kept_folder, write_whole
from protocol.model.kept_record import content_key
from protocol.process.logs import first_line
from protocol.process.settings import Settings
from protocol.wire.messages import Array16, InfoValue

logger = logging.getLogger(__name__)

#: Whisper's padded window has twice as many columns as positions.
PADDED_COLUMNS = 3000

#: Runs before the recording, in which libraries choose how to compute.
RUNS_BEFORE = 3

#: Traced networks kept. Each has the size of Whisper's encoder.
MOST_KEPT = 4

#: Spectrogram (1, n_mels, 3000) → hidden states (1, 1500, layers, width).
Encoder = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class EncoderNumbers:
    """The arithmetic of an encoder, and the bands of its spectrogram."""

    dtype: torch.dtype
    n_mels: int


class RecordedFeatures:
    """The features of clips, each by itself. On a CPU the encoder is called as it is. One thread uses it.

    Args:
        encoder: on the device.
        numbers: of it.
        margin: video frames of context on each side of a frame.
        device: of the encoder.
    """

    def __init__(self, encoder: Encoder, numbers: EncoderNumbers, margin: int, device: torch.device) -> None:
        self.device = device
        self.margin = margin
        self._numbers = numbers
        self._encoder = encoder
        self._on_gpu = device.type == "cuda"
        shape = (1, numbers.n_mels, PADDED_COLUMNS)
        self._mel = torch.zeros(shape, device=device)
        #: The same in the host's memory. What lies behind the clip's window stays 0.
        self._heard = torch.zeros(shape, pin_memory=self._on_gpu)
        self._states = self._encode()
        self._made = torch.empty(self._states.shape, pin_memory=self._on_gpu)
        self._graph = self._record() if self._on_gpu else None

    @torch.inference_mode()
    def _encode(self) -> Tensor:
        """The hidden states (75, layers, width), float32, of the spectrogram in `_mel`."""
        return self._encoder(self._mel)[0, :POSITIONS].float().contiguous()

    def _record(self) -> torch.cuda.CUDAGraph:
        stream = torch.cuda.Stream(self.device)
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):
            for _ in range(RUNS_BEFORE):
                self._encode()
        torch.cuda.synchronize(self.device)
        torch.cuda.empty_cache()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._states = self._encode()
        return graph

    def tokens(self, clips: Sequence[DueClip]) -> list[Array16]:
        """For each clip float16 (frames, (2·margin+1)·2·5, 384): for each position its five states."""
        return [frame_tokens(clip, self._states_of(clip), self.margin) for clip in clips]

    @torch.inference_mode()
    def _states_of(self, clip: DueClip) -> Any:
        mel = padded_log_mel(clip.samples, self._numbers.n_mels)
        self._heard[0, :, : mel.shape[1]] = torch.from_numpy(mel)
        self._mel.copy_(self._heard, non_blocking=True)
        if self._graph is None:
            return self._encode().numpy()
        self._graph.replay()
        self._made.copy_(self._states, non_blocking=True)
        there = torch.cuda.Event(blocking=True)
        there.record()
        there.synchronize()
        return self._made.numpy()

    def warm_up(self, batch: int) -> float:
        """Run it until it is warm. Returns seconds that one clip takes.

        Args:
            batch: largest batch that is served. It does not matter, since clips go one by one.
        """
        return warm_seconds(self.tokens, (1, 1, 1))

    def facts(self) -> dict[str, InfoValue]:
        """Device, dtype, window and margin, for Status."""
        return {
            "device": str(self.device), "dtype": dtype_name(self._numbers.dtype), "window": "padded",
            "margin": self.margin, "cpu_engine": "torch",
        }  # fmt: skip


class KeptEncoder:
    """The traced encoder of one model, device and arithmetic, in a file for the next start.

    Args:
        settings: of this worker.
        config: names Whisper's files.
        device: of the encoder.
    """

    def __init__(self, settings: Settings, config: ModelConfig, device: torch.device) -> None:
        weights, adapter = config.audio_model_path, config.audio_adapter_path
        files = [file for file in (weights, adapter) if file is not None]
        if weights.is_file() and (beside := weights.parent / "config.json").is_file():
            files.append(beside)
        self._dtype = choose_dtype(settings, device)
        key = content_key(files, [Path(__file__).parent], str(device), self._dtype)
        folder = kept_folder(settings, "whisper")
        self._file = None if key is None else folder / f"whisper-{key}.pt"
        self._device = device

    def load(self) -> tuple[Encoder, EncoderNumbers] | None:
        """The encoder on the device, or None where there is none that can be used."""
        if self._file is None or not self._file.is_file():
            return None
        try:
            with without_warnings():
                network = torch.jit.load(self._file)
            n_mels = next(p for p in network.parameters() if p.ndim == 3).shape[1]
        except Exception as error:  # a damaged file raises anything; transformers' encoder serves
            logger.warning("%s cannot be used and is made anew: %s", self._file, first_line(error))
            return None
        return unfused(network), EncoderNumbers(self._dtype, n_mels)

    def store(self, encoder: torch.nn.Module, n_mels: int) -> None:
        """Keeps the encoder. A failure is logged."""
        if self._file is None:
            return
        try:
            mel = torch.zeros(1, n_mels, PADDED_COLUMNS, device=self._device)
            content = io.BytesIO()
            with torch.no_grad(), without_warnings():
                torch.jit.save(torch.jit.trace(encoder, mel, check_trace=False), content)
            write_whole(self._file, content.getvalue())
            by_age = sorted(self._file.parent.glob("whisper-*.pt"), key=lambda file: file.stat().st_mtime)
            for old in by_age[:-MOST_KEPT]:
                old.unlink(missing_ok=True)
        except Exception as error:  # a disk that is full, or a network that cannot be traced
            logger.warning("the next start imports transformers again: %s", first_line(error))


@contextmanager
def without_warnings() -> Iterator[None]:
    """TorchScript warns that another format will take its place, and tracing that one shape is taken."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def unfused(network: Any) -> Encoder:
    """The traced network as it was traced: fused kernels would be compiled at each start, for no gain."""

    def run(mel: Tensor) -> Tensor:
        with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
            states: Tensor = network(mel)
        return states

    return run


def load_on_gpu(config: ModelConfig, settings: Settings) -> RecordedFeatures | FeatureExtractor | None:
    """Whisper on a GPU, or None where the CPU has it. Raises as `load_on_device`."""
    if config.whisper_window == "short":
        return None
    device = whisper_device(settings, "padded")
    return load_on_device(config, settings, device) if device.type == "cuda" else None


def load_on_device(
    config: ModelConfig, settings: Settings, device: torch.device
) -> RecordedFeatures | FeatureExtractor:
    """Whisper as it was kept, or read and recorded anew. Plain torch serves where recording fails.

    Raises:
        CheckpointError: weights or corrections cannot be used. The text names file and key.
    """
    use_device(device)
    kept = KeptEncoder(settings, config, device)
    if (found := kept.load()) is not None:
        try:
            return RecordedFeatures(*found, settings.audio_margin, device)
        except Exception as error:  # of another version of a library, perhaps
            logger.warning("Whisper as it was kept fails, and is read anew: %s", first_line(error))
    extractor = FeatureExtractor.load(config, settings)
    numbers = EncoderNumbers(extractor.dtype, extractor.n_mels)
    try:
        features = RecordedFeatures(extractor.encoder, numbers, settings.audio_margin, device)
    except Exception as error:  # drivers fail in any way; plain torch always works
        logger.warning("Whisper without a CUDA graph: %s", first_line(error))
        return extractor
    kept.store(extractor.encoder, numbers.n_mels)
    torch.cuda.empty_cache()
    return features
