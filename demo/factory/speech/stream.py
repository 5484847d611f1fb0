"""Long speech from the corpus: sentences in random order with pauses, and the mouth track beside them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from demo.factory.motion.mouth import CLOSURE, TRACK_RATE
from demo.factory.motion.visemes import CHANNELS, visemes
from demo.factory.speech.corpus import Corpus, MouthTracks
from protocol.wire.clock import SAMPLE_RATE

ALIGNMENT = 400  # samples: exactly three rows at 120 Hz


@dataclass
class Stream:
    """Long speech and its mouth.

    Attributes:
        audio: int16 (n,) at 16 kHz.
        mouth: float32 (rows, 6), `CHANNELS` at 120 Hz. Row r belongs to sample r · 16000 / 120.
        utterances: int64 (K, 2), number and first sample of each utterance.
        closures: float64 (C, 2), start and end in seconds of every lip closure, each at least 48 ms long.
    """

    audio: NDArray[np.int16]
    mouth: NDArray[np.float32]
    utterances: NDArray[np.int64]
    closures: NDArray[np.float64]


def _pool(corpus: Corpus, held_out: bool, voices: tuple[str, ...] | None) -> list[int]:
    """Numbers of the utterances to choose from. Raises ValueError where there is none."""
    wanted = {corpus.voices.index(voice) for voice in voices} if voices else set(range(len(corpus.voices)))
    pool = [
        u for u in range(len(corpus)) if corpus.held_out[u] == held_out and int(corpus.voice_id[u]) in wanted
    ]
    if not pool:
        raise ValueError("the corpus has no such utterances: check held_out and voices")
    return pool


def make_stream(
    corpus: Corpus,
    tracks: MouthTracks,
    *,
    held_out: bool,
    seconds: float | None = None,
    seed: int = 0,
    longest_pause: float = 2.0,
    voices: tuple[str, ...] | None = None,
) -> Stream:
    """Shuffled sentences of one side of the split, with a silence of 0 to `longest_pause` s after each.

    Args:
        corpus: the sentences.
        tracks: their mouth tracks.
        held_out: whether the sentences are held-out ones.
        seconds: length to reach, by repeating sentences if needed. None: every sentence comes once.
        seed: seed of order and pauses.
        longest_pause: in seconds.
        voices: voices to choose from. None: all.

    Raises:
        ValueError: the corpus has no such sentence.
    """
    rng = np.random.default_rng(seed)
    pool = _pool(corpus, held_out, voices)
    audio: list[NDArray[np.int16]] = []
    mouth: list[NDArray[np.float32]] = []
    placed: list[tuple[int, int]] = []
    closures: list[tuple[float, float]] = []
    at, queue = 0, list[int]()
    while (at < seconds * SAMPLE_RATE) if seconds else (not placed or queue):
        if not queue:
            queue = [int(u) for u in rng.permutation(pool)]
        number = queue.pop(0)
        samples, phones = corpus.samples(number), corpus.phones(number)
        rows = tracks.values[tracks.starts[number] : tracks.starts[number + 1]]
        # Short pauses are the usual ones: the square of a uniform number.
        pause = int(longest_pause * rng.uniform() ** 2 * SAMPLE_RATE)
        length = -(-(len(samples) + pause) // ALIGNMENT) * ALIGNMENT
        audio.append(np.pad(samples, (0, length - len(samples))))
        count = length * TRACK_RATE // SAMPLE_RATE
        mouth.append(np.pad(rows[:count], ((0, max(0, count - len(rows))), (0, 0))))
        placed.append((number, at))
        closures += [(at / SAMPLE_RATE + a, at / SAMPLE_RATE + b) for a, b in lip_closures(phones)]
        at += length
    return Stream(
        np.concatenate(audio), np.concatenate(mouth), np.array(placed, dtype=np.int64), np.array(closures)
    )


def lip_closures(phones: list[tuple[float, float, str]]) -> list[tuple[float, float]]:
    """Start and end in seconds of each span in which the mouth track is shut for m, b or p."""
    spans = []
    for start, end, phone in phones:
        sequence = visemes(phone)
        for number, viseme in enumerate(sequence):
            if viseme.closed:
                step = (end - start) / len(sequence)
                begin, stop = start + number * step, start + (number + 1) * step
                extra = max(0.0, CLOSURE - (stop - begin)) / 2
                spans.append((begin - extra, stop + extra))
    return spans


__all__ = ["CHANNELS", "Stream", "lip_closures", "make_stream"]
