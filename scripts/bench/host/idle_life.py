"""Idle life in a whole run: `python -m scripts.bench.host.idle_life --wav FILE`.

A client sends a second of speech again and again, after pauses of different lengths: all at once, as the
engine of a voice agent does, and in real time. One session asks for idle life and one does not.

- `first frame`: seconds from a burst, or from the half second of real time sound that makes a clip, to the
  first frame of speech. It must not be more with idle life.
- `still`: the longest time without a new picture, from the end of speech to the next first frame.
- `processor`: seconds a second that all stages take while the client sends nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from protocol.wire.browser import SUBPROTOCOL_V2, VideoMessage, decode_down
from protocol.wire.clock import SAMPLE_RATE
from protocol.wire.messages import Samples
from scripts.bench.common.tools import UsageMeter, machine, settle, table
from scripts.run.managed import ManagedRun
from scripts.talk.sound import read_sound

WAYS = ("still", "life")
CHUNK = SAMPLE_RATE // 50


@dataclass
class Seen:
    """The frames that came: when, and whether they belong to speech."""

    frames: list[tuple[float, bool]] = field(default_factory=list)

    def first_after(self, start: float) -> float | None:
        """When the first frame of speech came that came after `start`."""
        return next((at for at, speech in self.frames if speech and at > start), None)

    def longest_still(self, start: float, end: float) -> float:
        """The longest time without a frame between two moments."""
        times = [start, *(at for at, _ in self.frames if start < at < end), end]
        return max(later - earlier for earlier, later in pairwise(times))


async def watch(socket: ClientConnection, seen: Seen) -> None:
    """Note every frame, and say that it was shown."""
    async for data in socket:
        if isinstance(data, str):
            continue
        message = decode_down(data, 2)
        if isinstance(message, VideoMessage):
            seen.frames.append((time.monotonic(), not message.idle))
            shown = {"type": "shown", "epoch": message.epoch, "seq": message.seq, "index": message.index}
            await socket.send(json.dumps(shown))


async def say(socket: ClientConnection, seen: Seen, words: Samples, burst: bool) -> float:
    """Say something. Returns the seconds to its first frame."""
    began = time.monotonic()
    if burst:
        await socket.send(words.tobytes())
    else:
        for place in range(0, len(words), CHUNK):
            await socket.send(words[place : place + CHUNK].tobytes())
            await asyncio.sleep(max(0.0, began + (place + CHUNK) / SAMPLE_RATE - time.monotonic()))
    while (first := seen.first_after(began)) is None:
        await asyncio.sleep(0.005)
    return first - began - (0.0 if burst else 0.5)


async def session(run: ManagedRun, words: Samples, way: str, trials: int, burst: bool) -> tuple[str, ...]:
    """One session's row."""
    seen, firsts, stills = Seen(), [], []
    url = run.url.replace("http", "ws") + "/ws"
    async with connect(url, subprotocols=[Subprotocol(SUBPROTOCOL_V2)], max_size=8 << 20) as socket:
        await socket.send(json.dumps({"type": "hello", "idle": way}))
        watcher = asyncio.create_task(watch(socket, seen))
        await asyncio.sleep(14.0)  # the loop's first round
        with UsageMeter([run.process.pid]) as meter:
            await asyncio.sleep(10.0)
        for trial in range(trials):
            firsts.append(await say(socket, seen, words, burst))
            spoken = time.monotonic()
            await asyncio.sleep(3.0 + 0.5 * trial / trials)
            stills.append(seen.longest_still(spoken + 1.5, time.monotonic()))
        watcher.cancel()
    used = sum(used for stage, used in meter.spent.items() if stage != "supervisor") / 10.0
    return (
        way, "burst" if burst else "real time", f"{np.median(firsts) * 1e3:.0f} ms",
        f"{np.percentile(firsts, 90) * 1e3:.0f} ms", f"{max(firsts) * 1e3:.0f} ms",
        f"{np.median(stills):.2f} s", f"{used:.3f} s/s",
    )  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.bench.host.idle_life", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--wav", type=Path, required=True, help="speech")
    parser.add_argument("--trials", type=int, default=20, help="times that something is said (default 20)")
    parser.add_argument("flag", nargs="*", help="flags of the run, after --")
    args = parser.parse_args(argv)
    words = read_sound(args.wav)[:SAMPLE_RATE]
    rows: list[tuple[str, ...]] = [
        ("idle", "speech", "first frame, median", "90 %", "most", "still, median", "processor while idle")
    ]
    print(machine(), flush=True)
    with ManagedRun("--fps", "24", *args.flag, timeout=600) as run:
        settle([run.process.pid])
        for burst in (True, False):
            for way in WAYS:
                rows.append(asyncio.run(session(run, words, way, args.trials, burst)))
                print(table(rows[-1:])[0], flush=True)
    print("\n".join(table(rows, left=2)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
