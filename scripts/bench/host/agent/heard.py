"""What a listener hears of speech that a program sent in pieces: silence put in, and delay. No I/O."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from protocol.wire.clock import SAMPLE_RATE

#: Seconds of silence that a listener notices inside a word.
NOTICED = 0.03


@dataclass(frozen=True)
class SentPiece:
    """Samples sent at once, and when, in seconds."""

    at: float
    samples: int


@dataclass(frozen=True)
class HeardClip:
    """A clip's sound: when it came, in seconds, its place (pts) and samples at 16 kHz."""

    at: float
    pts: int
    samples: int


@dataclass(frozen=True)
class Listening:
    """Seconds of silence put into speech, and how often, and how late its first and last sample are heard."""

    silence: float
    tears: int
    first_delay: float
    last_delay: float


def listen(clips: Sequence[HeardClip]) -> list[tuple[float, float]]:
    """When the sound of each clip is played, from and to: at its turn, or when it comes, if that is later.

    A clip takes its place in the stream: a shorter one is followed by its padding.
    """
    played: list[tuple[float, float]] = []
    free_at = float("-inf")
    for number, clip in enumerate(clips):
        start = max(clip.at, free_at)
        played.append((start, start + clip.samples / SAMPLE_RATE))
        following = clips[number + 1].pts if number + 1 < len(clips) else clip.pts + clip.samples
        free_at = start + (following - clip.pts) / SAMPLE_RATE
    return played


def judge(sent: Sequence[SentPiece], clips: Sequence[HeardClip]) -> Listening:
    """Compare the playing with the sending, of speech that has no pause of its own."""
    played = listen(clips)
    gaps = [after[0] - before[1] for before, after in itertools.pairwise(played)]
    return Listening(
        silence=sum(gaps),
        tears=sum(gap > NOTICED for gap in gaps),
        first_delay=played[0][0] - sent[0].at,
        last_delay=played[-1][1] - sent[-1].at - sent[-1].samples / SAMPLE_RATE,
    )


def unavoidable(sent: Sequence[SentPiece], first_delay: float) -> float:
    """Seconds of silence that cannot be saved: with no time for computing, but for the first sample's."""
    silence, free_at = 0.0, sent[0].at + first_delay
    for piece in sent:
        start = max(free_at, piece.at)
        silence += start - free_at
        free_at = start + piece.samples / SAMPLE_RATE
    return silence


def bursts(seconds: float, piece: float, speed: float, every: float, gap: float) -> list[tuple[float, float]]:
    """A plan of slow text-to-speech: (time, seconds of speech) of each piece.

    Args:
        seconds: of speech.
        piece: seconds of one piece.
        speed: how much faster than real time pieces come.
        every: seconds of speech from one gap to the next.
        gap: seconds of a gap.
    """
    plan, at, since = [], 0.0, 0.0
    for _ in range(round(seconds / piece)):
        plan.append((at, piece))
        since += piece
        at += piece / speed
        if since >= every - 1e-9:
            at, since = at + gap, 0.0
    return plan
