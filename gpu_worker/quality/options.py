"""The qualities that a card may serve, from the best down. No I/O, no clock."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from protocol.process.settings import Settings
from protocol.wire.clock import FRAME_RATES, FULL_RATE, frames_of_clip

#: What each choice costs, in dB of the pictures to the truth where that was measured (bundled model, held-out
#: people; docs/lab/gpu-serving.md, docs/lab/gpu-denoiser.md). The others only give an order: AutoencoderTiny
#: was never measured on its trained weights, a longer clip costs delay, and a lower frame rate is the last
#: thing to give. Clips of 3 frames lose 0.07 dB to clips of 4, and clips of 2 lose 0.06 dB to those of 3
#: (docs/lab/continuity.md). Each frame less wins 0.04 s. A third of the steps costs nothing
#: against the truth, so it goes before a clip is as long as 12 frames.
LATE_THIRD, LATE_HALF = 0.05, 0.7
FAST_TIER = 0.2
TINY_DECODER = 1.0
LONGER_CLIP = {2: 0.0, 3: 0.01, 4: 0.02, 6: 0.04, 12: 0.1}
LOWER_RATE = {24: 0.0, 12: 3.0, 8: 6.0}


@dataclass(frozen=True)
class Quality:
    """One way to serve sessions.

    Attributes:
        tier: as --tier names it.
        late_start: steps that a clip which follows another skips.
        decoder: as --decoder names it.
        clip_frames: frames of a clip at 24 fps.
        fps: frames a second.
        loss: its place in the order; less is better.
    """

    tier: str
    late_start: int
    decoder: str
    clip_frames: int
    fps: int
    loss: float

    @property
    def frames(self) -> int:
        """Frames of a clip."""
        return frames_of_clip(self.fps, self.clip_frames)

    @property
    def lasts(self) -> float:
        """Seconds of a clip."""
        return self.frames / self.fps

    @property
    def decoding(self) -> str:
        """The decoder's name in `Latents.decoder`: the fast tier has the VAE's 8-bit blocks."""
        return "kl-8bit" if (self.tier, self.decoder) == ("fast", "kl") else self.decoder

    def __str__(self) -> str:
        flags = f"--tier {self.tier} --late-start {self.late_start} --decoder {self.decoder}"
        return f"{flags} --clip-frames {self.clip_frames} at {self.fps} fps"


def qualities(settings: Settings, steps: int, *, tiny: bool, lengths: bool = True) -> list[Quality]:
    """Every quality that the given flags leave open, the best first.

    Args:
        settings: a flag that is given is kept.
        steps: of the sampler.
        tiny: whether the small decoder's files are there.
        lengths: whether clips may have another length than usual.
    """
    tiers = {"exact": 0.0, "fast": FAST_TIER}
    late = {0: 0.0}
    if settings.use_init_latent and steps > 1:
        late = {steps // 2: LATE_HALF, steps // 3: LATE_THIRD, 0: 0.0}
    decoders = {"kl": 0.0} | ({"tiny": TINY_DECODER} if tiny else {})
    clips = LONGER_CLIP if lengths else {settings.frames_a_clip: 0.0}
    rates = LOWER_RATE
    if settings.tier is not None:
        tiers = {settings.tier: 0.0}
    if settings.late_start is not None:
        late = {settings.late_start: 0.0}
    if settings.decoder is not None:
        decoders = {settings.decoder: 0.0}
    if settings.clip_frames is not None:
        clips = {settings.clip_frames: 0.0}
    if settings.fps is not None:
        rates = {settings.fps: 0.0}
    made = [
        Quality(tier, skip, decoder, clip, fps, sum(losses))
        for (tier, a), (skip, b), (decoder, c), (clip, d), (fps, e) in itertools.product(
            tiers.items(), late.items(), decoders.items(), clips.items(), rates.items()
        )
        for losses in [(a, b, c, d, e)]
        if fps not in FRAME_RATES or clip * fps % FULL_RATE == 0 or clip == settings.clip_frames
    ]
    return sorted(made, key=lambda one: one.loss)
