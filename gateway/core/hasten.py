"""Speech made shorter with its pitch kept: pauses are cut first, then short spans of the speech itself.

Each block of 100 ms has at most one cut. Its two sides are faded into each other where they are most alike
(synchronised overlap-add), and the block's ends stay as they are.
`clients/js/client/hasten.js` does the same.
"""

from __future__ import annotations

import numpy as np

from protocol.wire.messages import Samples

#: Seconds of a block.
BLOCK = 0.1
#: Seconds of a fade: more than a period of a low voice.
FADE = 0.015
#: Part of a block with speech that may be cut: it is then 1.7 times as fast.
SHARE = 0.4
#: The best cut is looked for within this many seconds around that part.
SEARCH = 0.00625
#: Root mean square below which a block is a pause.
QUIET = 0.006

#: Samples left out: where, and how many.
Cut = tuple[int, int]


def cuts_of(samples: Samples, rate: int, most: int, speech: bool = True) -> list[Cut]:
    """Where to cut, in the order of the places.

    Args:
        samples: shape (n,).
        rate: samples a second.
        most: samples to cut altogether.
        speech: whether speech may be cut too, once all pauses are.
    """
    block, fade, share = round(BLOCK * rate), round(FADE * rate), round(BLOCK * SHARE * rate)
    cuts: list[Cut] = []
    loud = []
    for at in range(0, len(samples) - block + 1, block):
        if np.sqrt(np.mean(np.square(samples[at : at + block]))) >= QUIET:
            loud.append(at)
            continue
        length = min(most, block - fade)
        if length >= fade:
            cuts.append((at, length))
            most -= length
    for at in loud if speech else []:
        if most < share:
            break
        cuts.append((at, _smoothest(samples[at : at + block], share, round(SEARCH * rate), fade)))
        most -= cuts[-1][1]
    return sorted(cuts)


def _smoothest(block: Samples, share: int, search: int, fade: int) -> int:
    """The length of the cut at the block's beginning whose sides are most alike."""
    lengths = range(share - search, share + search + 1)
    sides = np.lib.stride_tricks.sliding_window_view(block, fade)[lengths.start : lengths.stop]
    alike = sides @ block[:fade] / np.sqrt(np.sum(np.square(sides), axis=1) + 1e-9)
    return lengths[int(np.argmax(alike))]


def without_cuts(samples: Samples, rate: int, cuts: list[Cut]) -> Samples:
    """The rest of the samples, shape (n - the cuts,), faded over each cut."""
    fade = round(FADE * rate)
    ramp = np.linspace(0, 1, fade, endpoint=False, dtype=np.float32)
    parts = []
    begin = 0
    for at, length in cuts:
        parts.append(samples[begin:at])
        parts.append((1 - ramp) * samples[at : at + fade] + ramp * samples[at + length :][:fade])
        begin = at + length + fade
    parts.append(samples[begin:])
    return np.concatenate(parts)


def place_in_rest(cuts: list[Cut], place: int) -> int:
    """The place in the rest of a sample of the whole."""
    return place - sum(min(max(0, place - at), length) for at, length in cuts)
