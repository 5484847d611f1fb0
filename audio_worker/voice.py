"""Whether a clip's sound holds a voice, by Silero's detector of voice activity.

Source: the Silero Team, "Silero VAD: pre-trained enterprise-grade Voice Activity Detector" (MIT). Its package
imports torch, so only its ONNX file is read, and OpenVINO runs it: 0.6 ms for a clip's window. WebRTC's
detector was tried and takes typing, fans and breath for a voice (docs/lab/idle.md).
"""

from __future__ import annotations

import importlib.util
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from audio_worker.ring import WINDOW
from audio_worker.sessions import DueClip
from protocol.model.cpu_graph import CpuGraph, graph_properties, import_openvino, keep_graph, kept_graph
from protocol.model.kept_folder import kept_folder
from protocol.model.kept_record import content_key
from protocol.process.logs import first_line
from protocol.process.settings import Settings
from protocol.wire.clock import SAMPLE_RATE, pts_of_clip
from protocol.wire.messages import Samples

logger = logging.getLogger(__name__)

#: Samples of one of the detector's looks, and those before it which it sees too.
LOOK, CONTEXT = 512, 64
#: Looks at a clip's window.
LOOKS = (WINDOW - CONTEXT) // LOOK
#: Probability from which a look holds a voice.
VOICE = 0.5
#: The same for looks at a clip's last `ONSET_SECONDS`. A voice that has just begun is less sure, and a clip
#: that was taken for silence would leave out its first syllable.
ONSET_VOICE, ONSET_SECONDS = 0.3, 0.13
#: Seconds after a voice for which clips are denoised, so that the mouth shuts.
HANGOVER = 0.15
#: Looks that lie whole in the last `HANGOVER` of a clip.
LOOKS_AT_END = int(HANGOVER * SAMPLE_RATE) // LOOK
#: Root mean square, -60 dBFS, under which there is no voice. No detector is asked then.
SILENCE_LEVEL = 1e-3
_STATE = np.zeros((1, 1, 128), np.float32)


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a clip holds."""

    #: Neither the clip nor the moment before it holds a voice.
    silent: bool
    #: A voice is heard so near to its end that the clip after it is not silent either, whatever it holds.
    voice_at_end: bool


class VoiceDetector:
    """Judges each clip by its window alone, so nothing has to be kept of a session.

    Args:
        graph: looks (LOOKS, CONTEXT + LOOK) and two states (1, 1, 128) → probabilities (LOOKS,). Without one,
            every sound over `SILENCE_LEVEL` counts as a voice.
    """

    def __init__(self, graph: CpuGraph | None) -> None:
        self._graph = graph

    @classmethod
    def load(cls, settings: Settings) -> VoiceDetector:
        """The detector by OpenVINO. Where it cannot be had, the log says why and the level alone decides."""
        try:
            return cls(_load_graph(model_file(), settings))
        except Exception as error:  # a package or a library that is not there, a file that is damaged
            logger.warning("only digital silence counts as silence: %s", first_line(error))
            return cls(None)

    def is_silent(self, clip: DueClip) -> bool:
        """Whether neither the clip nor the moment before it holds a voice."""
        return self.judge(clip).silent

    def judge(self, clip: DueClip) -> Judgement:
        """Whether the clip is silent, and whether a voice is heard at its end."""
        seconds = heard_seconds(clip)
        heard = clip.samples[-round(seconds * SAMPLE_RATE) :]
        if np.sqrt(np.mean(np.square(heard))) < SILENCE_LEVEL:
            return Judgement(silent=True, voice_at_end=False)
        if self._graph is None:
            return Judgement(silent=False, voice_at_end=False)
        found = self.probabilities(clip.samples)
        return Judgement(holds_no_voice(found, seconds), bool(found[-LOOKS_AT_END:].max() >= VOICE))

    def probabilities(self, window: Samples) -> NDArray[np.float32]:
        """Probability of a voice in each look at a window (24000,). The last look ends with the window."""
        assert self._graph is not None
        looked_at = window[-(LOOKS * LOOK + CONTEXT) :]
        looks = np.lib.stride_tricks.sliding_window_view(looked_at, CONTEXT + LOOK)[::LOOK]
        found: NDArray[np.float32] = self._graph(np.ascontiguousarray(looks), _STATE, _STATE).copy()
        return found


def heard_seconds(clip: DueClip) -> float:
    """Seconds of its window's end by which a clip is judged: its own, and those before it for the mouth."""
    return (pts_of_clip(1, clip.fps, clip.clip_frames) + clip.ahead) / SAMPLE_RATE + HANGOVER


def holds_no_voice(probabilities: NDArray[np.float32], seconds: float) -> bool:
    """Whether the looks that touch the window's last `seconds` find no voice."""
    looks, last = (-(-int(part * SAMPLE_RATE) // LOOK) for part in (seconds, ONSET_SECONDS))
    return bool(probabilities[-looks:].max() < VOICE and probabilities[-last:].max() < ONSET_VOICE)


def model_file() -> Path:
    """Silero's network as it lies in the package, which is not imported.

    Raises:
        FileNotFoundError: the package is not installed, or an older one without the file.
    """
    spec = importlib.util.find_spec("silero_vad")
    folders = [] if spec is None else list(spec.submodule_search_locations or [])
    files = [Path(folder) / "data/silero_vad_16k_sequence.onnx" for folder in folders]
    for file in files:
        if file.is_file():
            return file
    raise FileNotFoundError(
        "the package silero-vad is not installed, or is older than 6.2.3 (pip install --no-deps silero-vad)"
    )


def _load_graph(file: Path, settings: Settings) -> CpuGraph:
    """The network, kept from an earlier start where there is one: OpenVINO's reader of ONNX takes 20 MB."""
    kept = kept_folder(settings, "openvino") / f"voice-{content_key([file], [Path(__file__)])}.blob"
    graph = kept_graph(kept, "float32", 1)
    if graph is not None:
        return graph
    core = import_openvino().Core()
    model = core.read_model(file)
    model.reshape({"input": [LOOKS, CONTEXT + LOOK], "h": [1, 1, 128], "c": [1, 1, 128]})
    compiled = core.compile_model(model, "CPU", graph_properties("float32", 1))
    keep_graph(compiled, kept)
    return CpuGraph(compiled, kept)
