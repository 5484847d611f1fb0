"""`python -m scripts.bench.host.agent`: the figures of a voice agent's session with the default run.

    python -m scripts.bench.host.agent                     all figures, with the bundled model
    python -m scripts.bench.host.agent --url http://…      of a server that runs already

Flags that it does not know go to the run.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
from collections.abc import Sequence
from contextlib import ExitStack

import numpy as np

from protocol.wire.clock import SAMPLE_RATE
from protocol.wire.messages import Samples
from scripts.bench.common.tools import EVERY_CLIP
from scripts.bench.host.agent.heard import bursts, judge, unavoidable
from scripts.bench.host.agent.trials import first_frames, interruptions, slow_speech
from scripts.run.managed import ManagedRun

#: Gaps of text-to-speech, in seconds.
GAPS = (0.0, 0.3, 0.5, 0.7, 1.0)
#: A plan: seconds of speech, of a piece, speed, seconds of speech between gaps.
SECONDS, PIECE, SPEED, EVERY = 16.0, 0.2, 1.5, 2.0


def main(argv: Sequence[str] | None = None) -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(prog="python -m scripts.bench.host.agent", description=__doc__)
    parser.add_argument("--url", help="a server that runs; a run of its own if not given")
    parser.add_argument("--trials", type=int, default=100, help="interruptions (default 100)")
    parser.add_argument("--bursts", type=int, default=10, help="bursts of 30 s (default 10)")
    own, flags = parser.parse_known_args(argv)
    # As loud as speech, and without a pause: only the server's silence is counted.
    speech = np.random.default_rng(1).uniform(-0.2, 0.2, 30 * SAMPLE_RATE).astype(np.float32)
    with ExitStack() as stack:
        # Noise is no voice. So every clip is denoised, as those with a voice are.
        url = own.url or stack.enter_context(ManagedRun(*EVERY_CLIP, *flags)).url
        asyncio.run(_all(url, speech, own.trials, own.bursts))
    return 0


async def _all(url: str, speech: Samples, trials: int, count: int) -> None:
    answers, lasts = await interruptions(url, speech, trials)
    print(f"| interrupt, {trials} trials | median | 95 % | most |\n|---|---|---|---|")
    print(f"| answer | {_row(answers)} |")
    print(f"| last frame of the old epoch | {_row(lasts)} |")
    first = await first_frames(url, speech, count)
    print(f"| first frame after 30 s at once, {count} sessions | {_row(first)} |")
    print("\n| gap | silence put in | unavoidable | tears | first sample | last sample |")
    print("|---|---|---|---|---|---|")
    for gap in GAPS:
        sent, clips = await slow_speech(url, speech, bursts(SECONDS, PIECE, SPEED, EVERY, gap))
        heard = judge(sent, clips)
        least = unavoidable(sent, heard.first_delay)
        print(
            f"| {gap:g} s | {heard.silence:.2f} s | {least:.2f} s | {heard.tears} |"
            f" {heard.first_delay * 1000:.0f} ms | {heard.last_delay * 1000:.0f} ms |",
            flush=True,
        )


def _row(values: list[float]) -> str:
    ordered = sorted(values)
    high = ordered[min(len(ordered) - 1, round(0.95 * len(ordered)))]
    return " | ".join(f"{value * 1000:.0f} ms" for value in (statistics.median(ordered), high, ordered[-1]))


if __name__ == "__main__":
    sys.exit(main())
