"""Whisper's log-mel spectrogram in plain torch: any batch, any length, any device.

Source of the numbers: `log_mel_spectrogram` of OpenAI's Whisper (Radford et al., 2022, "Robust Speech
Recognition via Large-Scale Weak Supervision"): 16 kHz, 25 ms Hann windows every 10 ms, 80 bands of the
Slaney filter bank, log10, at most 80 dB under the loudest point, scaled by (x + 4) / 4.
"""

from __future__ import annotations

import functools
import math

import torch

from protocol.wire.clock import SAMPLE_RATE

N_FFT = 400
HOP = 160
N_MELS = 80
DYNAMIC_RANGE = 8.0
"""In log10 of power: what lies more than 80 dB under the loudest point is raised to that level."""

SHORT_WINDOW_MAX = 2.0
"""The least value that a short window takes for its own loudest point (log10 of mel power).

Whisper sets the floor 80 dB under the loudest point *of the window*. Over 30 s that is close to a constant;
over 1.5 s it moves. The same breath of room noise would sit on the floor just after a loud word and 40 dB
above it two clips later, and a window without speech would show the encoder a landscape it never met in
training. A full-scale sine reaches 2.4 and loud speech about 1, so with 2.0 the floor is one constant in
practice (10**-6, about white noise at -66 dBFS): a frame's features do not depend on how loud the rest of
the window was, digital silence always gives the same features, and the value of the floor, -0.5 after
scaling, is one that Whisper saw in training under loud speech.
"""


def _hz_to_mel(hz: float) -> float:
    """Slaney's scale: linear to 1 kHz (200/3 Hz a mel), then 27 logarithmic steps per factor of 6.4."""
    if hz < 1000.0:
        return hz * 3.0 / 200.0
    return 15.0 + 27.0 * math.log(hz / 1000.0) / math.log(6.4)


def _mel_to_hz(mel: float) -> float:
    if mel < 15.0:
        return mel * 200.0 / 3.0
    return 1000.0 * math.pow(6.4, (mel - 15.0) / 27.0)


def mel_filters(n_mels: int = N_MELS) -> torch.Tensor:
    """The Slaney filter bank, (n_mels, N_FFT // 2 + 1) float32: triangles of unit area in hertz."""
    top = _hz_to_mel(SAMPLE_RATE / 2)
    edges = torch.tensor([_mel_to_hz(top * i / (n_mels + 1)) for i in range(n_mels + 2)], dtype=torch.float64)
    bins = torch.arange(N_FFT // 2 + 1, dtype=torch.float64) * (SAMPLE_RATE / N_FFT)
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    triangles = torch.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)).clamp_min(0.0)
    return (triangles * (2.0 / (high - low))).float()


@functools.lru_cache(maxsize=8)
def _constants(device: torch.device, n_mels: int) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.inference_mode(False):  # they are kept, and may be used in training later
        return torch.hann_window(N_FFT).to(device), mel_filters(n_mels).to(device)


def log_mel(pcm: torch.Tensor, *, max_floor: float | None = None, n_mels: int = N_MELS) -> torch.Tensor:
    """Whisper's log-mel spectrogram.

    Args:
        pcm: (B, n) samples at 16 kHz in -1..1, n > 200; computed in float32 on the tensor's device.
        max_floor: least value taken for a row's loudest point, see `SHORT_WINDOW_MAX`; None is Whisper's
            own rule.
        n_mels: number of bands.

    Returns:
        (B, n_mels, n // 160) float32. Rows do not influence each other.
    """
    if pcm.ndim != 2 or pcm.shape[1] <= N_FFT // 2:
        raise ValueError(f"pcm must be (batch, more than {N_FFT // 2} samples), got {tuple(pcm.shape)}")
    window, filters = _constants(pcm.device, n_mels)
    with torch.autocast(pcm.device.type, enabled=False):
        spectrum = torch.stft(pcm.float(), N_FFT, HOP, window=window, center=True, return_complex=True)
        power = spectrum[..., :-1].abs().square()
        log = torch.matmul(filters, power).clamp_min(1e-10).log10()
        loudest = log.amax(dim=(1, 2), keepdim=True)
        if max_floor is not None:
            loudest = loudest.clamp_min(max_floor)
        return (torch.maximum(log, loudest - DYNAMIC_RANGE) + 4.0) / 4.0
