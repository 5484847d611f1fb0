"""Finds the best quality that a card holds, by as few timings as it takes. No I/O, no clock.

Making a tier or a clip's length ready takes seconds, so only what may decide is timed. Each timing also
estimates the others, and a quality that is far from real time by such an estimate is passed over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gpu_worker.quality.options import Quality

#: Most of a clip's duration that denoising and decoding it may take: a fifth is to spare.
MOST_SHARE = 0.8

#: Times that share at which an estimate is believed.
FAR = 1.15

#: Part of a clip's duration from which on an estimate says that even the quickest quality is not held.
LAST_HOPE = 1.2

#: Seconds of the card that a clip takes besides: Whisper's window and the copies.
OTHER_SECONDS = 0.006

#: The same beside clips that follow each other, where only Whisper's own time on the card is missing.
#: Source: docs/lab/gpu-serving.md, what the stages cost each other.
WHISPER_SECONDS = 0.0015

#: A frame's time by the fast tier over that by the exact one. Source: docs/lab/gpu-denoiser.md,
#: docs/lab/older-cards.md.
FAST_RATIO = 0.62

#: Decoding a frame over decoding it by the VAE in half precision, by the decoder's name. Source:
#: docs/lab/older-cards.md.
DECODER_RATIO = {"kl": 1.0, "kl-8bit": 0.72, "tiny": 0.25}

#: Frames whose time a clip takes besides that of its own frames, by any tier or decoder. Source: at 768² on
#: H200s, denoising 119 and 613 ms for 2 and 12 frames, and a team of two 81 and 172 ms for 2 and 6.
#: Decoding 36 and 77 ms for 2 and 6, and at 512² 17 and 60 ms for 2 and 12 (docs/lab/gpu-goals.md).
FIXED_FRAMES = {"denoise": 0.9, "decode": 1.7}


@dataclass(frozen=True)
class Timing:
    """Something to time: denoising a clip by a tier with all steps, decoding one by a decoder, or both.

    Attributes:
        kind: "denoise", "decode", or "flow": clips that follow each other as a session's do, where the next
            one is denoised while one is decoded.
        name: of the tier, of the decoder as `Latents.decoder` has it, or "clips in a row".
        quality: whose clip is to be timed.
    """

    kind: Literal["denoise", "decode", "flow"]
    name: str
    quality: Quality

    @property
    def key(self) -> tuple[str, str, int]:
        """What the time belongs to."""
        return self.kind, self.name, self.quality.frames


class QualitySearch:
    """Its owner times what `next` asks for and reports it with `timed`, until `next` gives None.

    Args:
        choices: the best first.
        steps: of the sampler.
        apart: whether another device decodes.
    """

    #: The best quality that is held, once `next` has given None, or None: nothing is.
    result: Quality | None

    def __init__(self, choices: Sequence[Quality], steps: int, *, apart: bool = False) -> None:
        self._choices = choices
        self._steps = steps
        self._apart = apart
        self._times: dict[tuple[str, str, int], float] = {}
        self._failed: set[tuple[str, str]] = set()
        #: Seconds of a clip among others, by quality. None: they could not be timed.
        self._flows: dict[Quality, float | None] = {}
        #: The quality whose clips are ready since the first timing.
        self._shape: Quality | None = None
        self.result = None

    def next(self) -> Timing | None:
        """The next thing to time, or None at the end."""
        if self._shape is not None and not any(kind == "decode" for kind, _, _ in self._times):
            # Cheap, since an encoder has it ready, and without it nothing is far from real time.
            first = _timings(self._shape)[1]
            if (first.kind, first.name) not in self._failed:
                return first
        for quality in self._choices:
            if not self._possible(quality):
                continue
            missing = [timing for timing in _timings(quality) if timing.key not in self._times]
            if not missing:
                if self.share(quality) <= MOST_SHARE:
                    self.result = quality
                    return None
                # The sum counts the waits of each stage too, in which the card works for others.
                if quality not in self._flows and self.share(quality) <= FAR * MOST_SHARE:
                    return Timing("flow", "clips in a row", quality)
            elif not self._times or self.share(quality) <= FAR * MOST_SHARE:
                return missing[0]
        return self._last_hope()

    def _last_hope(self) -> Timing | None:
        """What was not timed of the quickest quality: no estimate alone may say that nothing is held."""
        least = self.least
        if least is None or self.share(least) > LAST_HOPE:
            return None
        return next((timing for timing in _timings(least) if timing.key not in self._times), None)

    def timed(self, timing: Timing, seconds: float | None) -> None:
        """Reports a time, or None where it failed: whatever needs it is left out from then on.

        A flow that fails leaves the estimate as it was.
        """
        if timing.kind == "flow":
            self._flows[timing.quality] = seconds
        elif seconds is None:
            self._failed.add((timing.kind, timing.name))
        else:
            self._times[timing.key] = seconds
            self._shape = self._shape or timing.quality

    def share(self, quality: Quality) -> float:
        """Part of a clip's duration that the card takes for one, by times and estimates."""
        if (flow := self._flows.get(quality)) is not None:
            return (flow + WHISPER_SECONDS) / quality.lasts
        steps = (self._steps - quality.late_start) / self._steps
        denoising = steps * self._seconds("denoise", quality.tier, quality.frames)
        decoding = self._seconds("decode", quality.decoding, quality.frames)
        seconds = max(denoising, decoding) if self._apart else denoising + decoding
        return (seconds + OTHER_SECONDS) / quality.lasts

    def alone(self, quality: Quality) -> float:
        """Seconds of denoising a clip of the quality with all steps, by times and estimates."""
        return self._seconds("denoise", quality.tier, quality.frames)

    @property
    def best(self) -> Quality | None:
        """The best quality that could be served by a card that is fast enough."""
        return next(filter(self._possible, self._choices), None)

    @property
    def least(self) -> Quality | None:
        """The quality that takes the smallest part of the card."""
        return min(filter(self._possible, self._choices), key=self.share, default=None)

    def _possible(self, quality: Quality) -> bool:
        return not any((timing.kind, timing.name) in self._failed for timing in _timings(quality))

    def _seconds(self, kind: str, name: str, frames: int) -> float:
        """Seconds of a clip: timed, else estimated by those of another name or length, else 0."""
        if (kind, name, frames) in self._times:
            return self._times[kind, name, frames]
        others = [(own, n, seconds) for (a_kind, own, n), seconds in self._times.items() if a_kind == kind]
        if not others:
            return 0.0
        # of the same name rather than of another, and of a like length
        own = min(others, key=lambda other: (other[0] != name, abs(other[1] - frames)))[0]
        times = {_filled(own, n): seconds for other, n, seconds in others if other == own}
        weights = _weight(kind, own), _weight(kind, name)
        return _by_lengths(times, _filled(name, frames), FIXED_FRAMES[kind], *weights)


def _filled(name: str, frames: int) -> int:
    """Frames whose time a clip takes: the VAE decodes two at once, and as long where there is one."""
    return frames + frames % 2 if name.startswith("kl") else frames


def _by_lengths(times: dict[int, float], frames: int, fixed: float, own: float, weight: float) -> float:
    """Seconds of a clip by those of other lengths: between two of them, else by the nearest.

    Args:
        times: by frames.
        frames: of the clip.
        fixed: frames of weight 1 that take as long as the part that does not depend on the frames.
        own: what a frame of `times` costs, over one by the exact tier or the VAE in half precision.
        weight: the same of the clip's.
    """
    shorter = max((n for n in times if n <= frames), default=None)
    longer = min((n for n in times if n >= frames), default=None)
    if shorter is not None and longer is not None:
        part = (frames - shorter) / max(1, longer - shorter)
        seconds, n = times[shorter] + part * (times[longer] - times[shorter]), frames
    else:
        n = min(times, key=lambda n: abs(n - frames))
        seconds = times[n]
    return seconds * (fixed + weight * frames) / (fixed + own * n)


def _timings(quality: Quality) -> tuple[Timing, Timing]:
    return Timing("denoise", quality.tier, quality), Timing("decode", quality.decoding, quality)


def _weight(kind: str, name: str) -> float:
    if kind == "denoise":
        return FAST_RATIO if name == "fast" else 1.0
    return DECODER_RATIO.get(name, 1.0)


def describe(search: QualitySearch, size: str) -> tuple[str, str]:
    """What was picked and what more would take, as a line for the log, and a notice for people, or "".

    Args:
        search: at its end.
        size: of the pictures, such as "768×768".
    """
    picked, best = search.result, search.best
    if picked is None:
        least = search.least
        if least is None:
            return "nothing could be timed", ""
        share = search.share(least)
        text = (
            f"this card is too slow for {size}: a clip of {least.lasts:.2f} s takes it"
            f" {share * least.lasts:.2f} s with {least}; choose a smaller --width and --height"
        )
        return text, text
    line = f"{picked}: a clip takes {search.share(picked):.0%} of its duration"
    if best is None or best == picked:
        return f"{line}; nothing better is left open", ""
    faster = search.share(best) / MOST_SHARE
    return f"{line}; {best} would take a card {faster:.1f} times as fast", ""
