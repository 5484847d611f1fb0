"""Training-time augmentation of speech, batched in plain torch on any device.

It gives a voice another throat: its formants move and its pitch stays. It makes a voice breathy or whispered.
It changes a voice as a laptop's microphone does: gain, room, equalisation, telephone band, noise and hum. It
also makes silence, which is noise or hum alone and whose truth is a shut mouth.
"""

import math

import torch
from torch import Tensor

from protocol.wire.clock import SAMPLE_RATE

QUIETEST = 0.01  # RMS, full scale 1: noise is set against at least this much speech
FORMANTS = 0.22  # formants are divided or multiplied by at most e to this, 1.25
FRAME = 512  # samples of a spectrum: 32 ms
LIFTER = 32  # cepstral coefficients of the envelope: 2 ms, under the period of any voice
FAINT = 1e-3  # of a spectrum's magnitudes, under the noise of 16 bits
MOST = 3.0  # natural logarithm of the largest gain
BREATH_FRAME = 128  # samples of a spectrum: 8 ms, so that a sound's begin and end stay in place
BREATH_SLOPE = 4  # bands over which breath sets in


def augment(audio: Tensor, generator: torch.Generator | None = None, strength: float = 1.0) -> Tensor:
    """A changed copy of speech windows. Times stay as they are.

    Args:
        audio: windows (B, n), full scale ±1.
        generator: source of randomness on the audio's device.
        strength: factor in 0..1 on the chance of each change except gain and faint noise.
    """
    batch = audio.shape[0]
    draw = _Draw(audio, generator)
    out = _move_formants(audio, draw, chance=0.8 * strength)
    out = _breathe(out, draw, chance=0.25 * strength)
    out = _equalise(out, draw, chance=0.6 * strength)
    out = _reverberate(out, draw, chance=0.35 * strength)
    level = _active_level(out).clamp_min(QUIETEST)  # pauses are noisy too
    ratio = draw.uniform(8.0, 40.0, (batch, 1))  # dB of speech over noise
    ratio = torch.where(
        draw.uniform(0, 1, (batch, 1)) < 0.6 * strength, ratio, draw.uniform(40.0, 60.0, (batch, 1))
    )
    out = out + background(audio.shape, draw) * level * 10 ** (-ratio / 20)
    return out * 10 ** (draw.uniform(-12.0, 12.0, (batch, 1)) / 20)


def silence(
    batch: int, samples: int, device: torch.device | str, generator: torch.Generator | None = None
) -> Tensor:
    """Windows (batch, samples) without speech: zeros, noise or hum at -90 to -30 dBFS."""
    like = torch.empty(batch, samples, device=device)
    draw = _Draw(like, generator)
    level = 10 ** (draw.uniform(-90.0, -30.0, (batch, 1)) / 20)
    level = torch.where(draw.uniform(0, 1, (batch, 1)) < 0.1, torch.zeros_like(level), level)
    return background((batch, samples), draw) * level


def background(shape: torch.Size | tuple[int, int], draw: "_Draw") -> Tensor:
    """Background (B, n) of RMS 1: coloured noise (white to brown), mains hum with harmonics, or a mix."""
    batch, samples = shape
    noise = _coloured_noise(batch, samples, draw)
    hum = _hum(batch, samples, draw)
    share = draw.uniform(0, 1, (batch, 1))
    pick = draw.uniform(0, 1, (batch, 1))
    share = torch.where(
        pick < 0.55, torch.zeros_like(share), torch.where(pick > 0.85, torch.ones_like(share), share)
    )
    return (1 - share) * noise + share * hum


class _Draw:
    """Random numbers on the device and in the type of `like`."""

    def __init__(self, like: Tensor, generator: torch.Generator | None) -> None:
        self.device, self.dtype, self.generator = like.device, like.dtype, generator

    def uniform(self, low: float, high: float, shape: tuple[int, ...]) -> Tensor:
        random = torch.rand(shape, device=self.device, dtype=self.dtype, generator=self.generator)
        return low + (high - low) * random

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, device=self.device, dtype=self.dtype, generator=self.generator)


def _active_level(audio: Tensor) -> Tensor:
    """RMS (B, 1) of the loudest quarter of 20 ms blocks, so that pauses do not lower it."""
    blocks = audio[:, : audio.shape[1] // 320 * 320].unflatten(1, (-1, 320)).square().mean(dim=2)
    loud = blocks.topk(max(1, blocks.shape[1] // 4), dim=1).values
    level: Tensor = loud.mean(dim=1, keepdim=True).sqrt()
    return level


def _normalise(audio: Tensor) -> Tensor:
    level: Tensor = audio.square().mean(dim=1, keepdim=True).sqrt().clamp_min(1e-8)
    return audio / level


def _frequencies(samples: int, draw: _Draw) -> Tensor:
    hertz: Tensor = torch.fft.rfftfreq(samples, 1.0 / SAMPLE_RATE, device=draw.device, dtype=draw.dtype)
    return hertz


def _coloured_noise(batch: int, samples: int, draw: _Draw) -> Tensor:
    """Noise whose power falls with frequency^-slope, slope 0 (white) to 2 (brown). A third is white."""
    slope = draw.uniform(0.0, 2.0, (batch, 1))
    slope = torch.where(draw.uniform(0, 1, (batch, 1)) < 0.33, torch.zeros_like(slope), slope)
    shape = _frequencies(samples, draw).clamp_min(40.0)[None] ** (-slope / 2)
    noise = torch.fft.irfft(torch.fft.rfft(draw.normal((batch, samples))) * shape, n=samples)
    seconds = torch.arange(samples, device=draw.device, dtype=draw.dtype) / SAMPLE_RATE
    swell = 1 + draw.uniform(0, 0.5, (batch, 1)) * torch.sin(
        2 * math.pi * (draw.uniform(0.2, 2.0, (batch, 1)) * seconds + draw.uniform(0, 1, (batch, 1)))
    )
    return _normalise(noise * swell)


def _hum(batch: int, samples: int, draw: _Draw) -> Tensor:
    """Mains hum and fans: 45 to 125 Hz with eight falling harmonics over a little low noise."""
    seconds = torch.arange(samples, device=draw.device, dtype=draw.dtype) / SAMPLE_RATE
    base = torch.where(
        draw.uniform(0, 1, (batch, 1)) < 0.6,
        50.0 + 10.0 * draw.uniform(0, 1, (batch, 1)).round(),
        draw.uniform(45.0, 125.0, (batch, 1)),
    )
    out = 0.15 * _coloured_noise(batch, samples, draw)
    for harmonic in range(1, 9):
        amplitude = draw.uniform(0.1, 1.0, (batch, 1)) / harmonic
        phase = draw.uniform(0, 1, (batch, 1))
        out = out + amplitude * torch.sin(2 * math.pi * (harmonic * base * seconds + phase))
    return _normalise(out)


def _move_formants(audio: Tensor, draw: _Draw, chance: float) -> Tensor:
    """Another throat: the spectral envelope is stretched along frequency, and the pitch stays.

    The envelope is that of the cepstrum below `LIFTER`. Recognisers stretch frequencies to make throats alike
    (Eide and Gish 1996, "A parametric approach to vocal tract length normalization"); this makes them differ.
    """
    batch, samples = audio.shape
    factor = torch.exp(draw.uniform(-FORMANTS, FORMANTS, (batch, 1)))
    factor = torch.where(draw.uniform(0, 1, (batch, 1)) < chance, factor, torch.ones_like(factor))
    window = torch.hann_window(FRAME, device=draw.device, dtype=draw.dtype)
    spectrum = torch.stft(audio, FRAME, FRAME // 4, window=window, return_complex=True)
    level = torch.log(spectrum.abs() + FAINT)  # (B, bins, T)
    cepstrum = torch.fft.irfft(level, n=FRAME, dim=1)
    cepstrum[:, LIFTER : 1 - LIFTER] = 0
    envelope = torch.fft.rfft(cepstrum, dim=1).real
    bins = envelope.shape[1]
    place = (torch.arange(bins, device=draw.device, dtype=draw.dtype) / factor).clamp(max=bins - 1)
    low = place.floor().long().clamp(max=bins - 2)
    rows = torch.arange(batch, device=draw.device)[:, None]
    moved = torch.lerp(envelope[rows, low], envelope[rows, low + 1], (place - low)[..., None])
    gain = (moved - envelope).clamp(-MOST, MOST).exp()
    changed: Tensor = torch.istft(spectrum * gain, FRAME, FRAME // 4, window=window, length=samples)
    return changed


def _breathe(audio: Tensor, draw: _Draw, chance: float) -> Tensor:
    """A breathy voice, or a whisper: above a random frequency, noise with the voice's spectrum replaces it.

    Speech coders mix voice and noise by bands in this way (McCree and Barnwell 1995, "A mixed excitation LPC
    vocoder model for low bit rate speech coding").
    """
    batch, samples = audio.shape
    window = torch.hann_window(BREATH_FRAME, device=draw.device, dtype=draw.dtype)

    def spectrum_of(sound: Tensor) -> Tensor:
        return torch.stft(sound, BREATH_FRAME, BREATH_FRAME // 4, window=window, return_complex=True)

    spectrum, noise = spectrum_of(audio), spectrum_of(draw.normal((batch, samples)))
    breath = spectrum.abs() * noise / window.square().sum().sqrt()
    bands = spectrum.shape[1]
    band = torch.arange(bands, device=draw.device, dtype=draw.dtype)[None, :, None]
    from_band = draw.uniform(0.0, bands, (batch, 1, 1))
    share = ((band - from_band) / BREATH_SLOPE + 0.5).clamp(0, 1) * draw.uniform(0.3, 1.0, (batch, 1, 1))
    share = torch.where(draw.uniform(0, 1, (batch, 1, 1)) < chance, share, torch.zeros_like(share))
    mixed = spectrum * (1 - share.square()).sqrt() + breath * share
    changed: Tensor = torch.istft(mixed, BREATH_FRAME, BREATH_FRAME // 4, window=window, length=samples)
    return changed


def _equalise(audio: Tensor, draw: _Draw, chance: float) -> Tensor:
    """Two broad bumps of ±8 dB and a tilt of ±2 dB an octave. A sixth get a telephone's band."""
    batch, samples = audio.shape
    hertz = _frequencies(samples, draw)[None]
    octave = torch.log2(hertz.clamp_min(30.0) / 1000.0)
    decibel = draw.uniform(-2.0, 2.0, (batch, 1)) * octave
    for _ in range(2):
        centre = draw.uniform(-3.5, 2.8, (batch, 1))
        width = draw.uniform(0.4, 1.2, (batch, 1))
        decibel = decibel + draw.uniform(-8.0, 8.0, (batch, 1)) * torch.exp(
            -(((octave - centre) / width) ** 2)
        )
    low, high = draw.uniform(200.0, 350.0, (batch, 1)), draw.uniform(3000.0, 4000.0, (batch, 1))
    # Fourth-order Butterworth magnitudes.
    band = 1 / torch.sqrt((1 + (low / hertz.clamp_min(1.0)) ** 8) * (1 + (hertz / high) ** 8))
    phone = draw.uniform(0, 1, (batch, 1)) < 0.17
    response = 10 ** (decibel / 20) * torch.where(phone, band, torch.ones_like(band))
    response = torch.where(draw.uniform(0, 1, (batch, 1)) < chance, response, torch.ones_like(response))
    equalised: Tensor = torch.fft.irfft(torch.fft.rfft(audio) * response, n=samples)
    return equalised


def _reverberate(audio: Tensor, draw: _Draw, chance: float) -> Tensor:
    """A small room: noise that decays by 60 dB in 0.08 to 0.35 s, 6 to 20 dB under the direct sound.

    It is causal.
    """
    batch, samples = audio.shape
    length = SAMPLE_RATE // 3
    seconds = torch.arange(length, device=draw.device, dtype=draw.dtype) / SAMPLE_RATE
    tail = draw.normal((batch, length)) * torch.exp(-6.9 * seconds / draw.uniform(0.08, 0.35, (batch, 1)))
    tail = tail * (seconds > 0.002)
    tail = tail / tail.square().sum(dim=1, keepdim=True).sqrt().clamp_min(1e-8)
    gain = 10 ** (draw.uniform(-20.0, -6.0, (batch, 1)) / 20)
    gain = torch.where(draw.uniform(0, 1, (batch, 1)) < chance, gain, torch.zeros_like(gain))
    size = samples + length
    wet: Tensor = torch.fft.irfft(torch.fft.rfft(audio, n=size) * torch.fft.rfft(tail, n=size), n=size)
    return audio + gain * wet[:, :samples]
