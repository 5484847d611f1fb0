"""Whisper's log-mel spectrogram of a window of 1.5 s in numpy.

Source of the numbers: `log_mel_spectrogram` of OpenAI's Whisper (Radford et al., 2022, "Robust Speech
Recognition via Large-Scale Weak Supervision"): 25 ms Hann windows every 10 ms, the bands of Slaney's filter
bank, log10, at most 80 dB under the loudest point, scaled by (x + 4) / 4. transformers' extractor, which
`whisper.SpeechEncoder` uses, is the reference. The tests compare the two.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from audio_worker.ring import WINDOW
from protocol.wire.clock import SAMPLE_RATE

#: Feature positions of 1.5 s: one every 20 ms.
POSITIONS = 75
#: The least value of a short window's spectrogram, after Whisper's scaling.
#:
#: Whisper raises everything that lies more than 80 dB under the loudest point of the window to that level.
#: Over 30 s this floor is close to a constant. Over 1.5 s it moves: the same room noise would lie on the
#: floor just after a loud word and 40 dB above it two clips later. A floor of -0.5 is a mel power of 10**-6,
#: about white noise at -66 dBFS, and is 80 dB under a power of 100. Loud speech reaches 10 and a full-scale
#: sine 250, so the floor is constant in practice: a position's features do not depend on how loud the rest
#: of the window is, and digital silence always gives the same features. Whisper saw this value in training
#: under loud speech.
SHORT_WINDOW_FLOOR = -0.5

#: Samples of a spectrum, and from one to the next.
N_FFT = 400
HOP = 160
DYNAMIC_RANGE = 8.0  # in log10 of power


def short_log_mel(pcm: NDArray[np.float32], n_mels: int) -> NDArray[np.float32]:
    """The spectrogram of one window.

    Args:
        pcm: (24000,) samples at 16 kHz in -1..1.
        n_mels: number of bands.

    Returns:
        (n_mels, 150) float32, at least `SHORT_WINDOW_FLOOR`.

    Raises:
        ValueError: `pcm` has another shape.
    """
    mel: NDArray[np.float32] = np.maximum(padded_log_mel(pcm, n_mels), SHORT_WINDOW_FLOOR).astype(np.float32)
    return mel


def padded_log_mel(pcm: NDArray[np.float32], n_mels: int) -> NDArray[np.float32]:
    """The spectrogram of one window that is followed by silence up to 30 s, without the zeros for that.

    Its floor is 80 dB under the loudest point, as in Whisper. Arguments and errors as for `short_log_mel`.

    Returns:
        (n_mels, 150) float32.
    """
    if pcm.shape != (WINDOW,):
        raise ValueError(f"pcm must be ({WINDOW},), got {pcm.shape}")
    padded = np.pad(pcm.astype(np.float64), N_FFT // 2, mode="reflect")
    # As in Whisper, the last of the 151 windows is left out.
    frames = np.lib.stride_tricks.sliding_window_view(padded, N_FFT)[::HOP][: WINDOW // HOP]
    spectrum = np.fft.rfft(frames * _hann(), axis=1)
    power = spectrum.real**2 + spectrum.imag**2
    # Not by `@`: numpy's BLAS threads spin for 0.1 s after each product, and a window is due twice a second.
    bands = np.einsum("fb,bm->mf", power, mel_filters(n_mels))
    log = np.log10(np.maximum(bands, 1e-10))
    mel: NDArray[np.float32] = ((np.maximum(log, log.max() - DYNAMIC_RANGE) + 4.0) / 4.0).astype(np.float32)
    return mel


@functools.lru_cache(maxsize=2)
def mel_filters(n_mels: int) -> NDArray[np.float64]:
    """Slaney's filter bank, (201, n_mels): triangles of unit area in hertz."""
    # His scale is linear to 1 kHz (200/3 Hz a mel), then has 27 logarithmic steps for a factor of 6.4.
    top = 15.0 + 27.0 * np.log(SAMPLE_RATE / 2 / 1000.0) / np.log(6.4)
    mels = np.linspace(0.0, top, n_mels + 2)
    edges = np.where(mels < 15.0, mels * 200.0 / 3.0, 1000.0 * 6.4 ** ((mels - 15.0) / 27.0))
    bins = np.arange(N_FFT // 2 + 1)[:, None] * (SAMPLE_RATE / N_FFT)
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    triangles = np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre))
    filters: NDArray[np.float64] = np.maximum(triangles, 0.0) * (2.0 / (high - low))
    return filters


@functools.lru_cache(maxsize=1)
def _hann() -> NDArray[np.float64]:
    window: NDArray[np.float64] = np.hanning(N_FFT + 1)[:-1]
    return window
