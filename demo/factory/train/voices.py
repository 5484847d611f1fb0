"""Windows of speech and the mouths that belong to them, cut and changed on the training device."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from demo.factory.motion.mouth import REST_WITHIN
from demo.factory.speech.augment import augment, silence
from demo.factory.speech.corpus import Corpus, load, mouth_tracks
from demo.factory.train.config import FPS, HISTORY_SAMPLES, TICKS, WINDOW_SAMPLES
from demo.factory.train.variety import REPACED, paces, read_between
from protocol.wire.clock import SAMPLE_RATE

ALL_SILENT, STOPS = 0.08, 0.08  # shares of windows that hold noise alone, or end in it
TICK_SAMPLES = SAMPLE_RATE * 3 // TICKS  # 400 samples are 3 ticks: the finest common grid


def speech_stream(corpus: Corpus, held_out: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """The training (or held-out) voices' utterances end to end: int16 audio (n,) and the mouth (ticks, 6).

    Each utterance is cut to a multiple of 400 samples, which is 3 ticks, so that the two stay in step.
    """
    tracks = mouth_tracks(corpus)
    audio, mouth = [], []
    for number in np.flatnonzero(corpus.held_out == held_out):
        samples = corpus.samples(int(number))
        length = len(samples) // TICK_SAMPLES * TICK_SAMPLES
        first = tracks.starts[number]
        audio.append(samples[:length])
        mouth.append(tracks.values[first : first + length * TICKS // SAMPLE_RATE])
    return np.concatenate(audio), np.concatenate(mouth)


class Voices:
    """Draws windows of the training voices (or, to measure with, of the held-out ones).

    Args:
        speech: `speech.npz` of `demo.factory.speech.make_speech`.
        generator: source of all randomness. Windows are made on its device.
        held_out: take the held-out voices.
    """

    def __init__(self, speech: Path, generator: torch.Generator, *, held_out: bool = False) -> None:
        self._generator, self._device = generator, generator.device
        audio, mouth = speech_stream(load(speech), held_out)
        self.audio = torch.from_numpy(audio).to(self._device)  # int16, one long stream
        self.mouth = torch.from_numpy(mouth).to(self._device)  # (ticks, columns) at 120 Hz

    @torch.no_grad()
    def windows(
        self, count: int, when: Tensor, *, fps: int = FPS, plain: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Sound (count, WINDOW_SAMPLES), full scale ±1, and mouths (count, len(when), columns).

        Args:
            count: number of windows.
            when: frames of the clip. Frame 0 is at the end of the window's history.
            fps: frames a second.
            plain: take speech as spoken, without silence, other sounds and paces.
        """
        pcm, mouth = self._read(count, when, fps, 0.0 if plain else REPACED)
        if plain:
            return pcm, mouth
        return self._fall_silent(augment(pcm, self._generator), mouth, when, fps)

    def _read(self, count: int, when: Tensor, fps: int, repaced: float) -> tuple[Tensor, Tensor]:
        """Windows. A share `repaced` of them is faster or slower than spoken."""
        pace = paces(count, self._generator, repaced)[:, None]
        slots = (len(self.audio) - 2 * WINDOW_SAMPLES) // TICK_SAMPLES
        drawn = torch.randint(slots, (count, 1), device=self._device, generator=self._generator)
        start = drawn * TICK_SAMPLES + WINDOW_SAMPLES
        offsets = torch.arange(WINDOW_SAMPLES, device=self._device) - HISTORY_SAMPLES
        # In float64: a position in half an hour of sound has no room for fractions in float32.
        pcm = read_between(self.audio, start + offsets.double() * pace.double()) / 32768
        ticks = start.double() * TICKS / SAMPLE_RATE + when * (TICKS // fps) * pace
        before = ticks.floor().long()
        share = (ticks - before)[..., None].float()
        return pcm, torch.lerp(self.mouth[before], self.mouth[before + 1], share)

    def _fall_silent(self, pcm: Tensor, mouth: Tensor, when: Tensor, fps: int) -> tuple[Tensor, Tensor]:
        """Turn some windows into noise, and let some fall silent at a random moment. The mouth rests then."""
        count, samples = pcm.shape
        stop = (self._uniform(count) * samples).long()
        fate = self._uniform(count)
        stop = torch.where(fate < ALL_SILENT, torch.full_like(stop, -samples), stop)
        stop = torch.where(fate > ALL_SILENT + STOPS, torch.full_like(stop, 2 * samples), stop)
        position = torch.arange(samples, device=self._device)
        quiet = silence(count, samples, self._device, self._generator)
        pcm = torch.where(position >= stop[:, None], quiet, pcm)
        heard = when * (SAMPLE_RATE // fps) + HISTORY_SAMPLES
        late = (heard - stop[:, None]).float() / SAMPLE_RATE
        return pcm, mouth * (1 - late / REST_WITHIN).clamp(0, 1)[:, :, None]

    def _uniform(self, count: int) -> Tensor:
        return torch.rand(count, device=self._device, generator=self._generator)
