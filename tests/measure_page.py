"""The page on smaller machines, in a real browser: `python -m tests.measure_page [--seconds 20]`.

The run has cores and bfloat16 taken away as `python -m scripts.bench --only machines` does. Chromium, with a
recording as its microphone, has all cores. The figures are those that a person notices: the rate on the
page, how far sound and picture are apart, how often the sound had to wait for a clip, and the delay: the
time from a sample of the microphone to the picture that shows it. It is the same for all samples of a clip:
its first one waits until its last one is spoken, and then for the clip's latency. Latency and delay are means
over the whole time that counts. Other flags go to the run, such as `--clip-frames 12`.

`python -m scripts.bench.host.avx2 python -m tests.measure_page --only 0` measures as if with AVX2 alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from protocol.wire.clock import frames_of_clip
from scripts.bench.common.tools import machine as this_machine
from scripts.bench.common.tools import run_on, table, warm_up
from scripts.bench.gpu.live import speech
from scripts.bench.host.machines import IN_STEP, Machine, machines
from scripts.talk.live import server_info
from scripts.talk.sound import write_wav
from tests.helpers.chromium import Chromium

SETTLED = 3.0  # seconds after the first picture that are not counted: the page finds its buffer


@dataclass(frozen=True)
class OnPage:
    """`first`, `last`: the page's figures when counting began and ended; `worst`: milliseconds between sound
    and picture, the most that any look at the page found.
    """

    machine: Machine
    fps: int
    notice: str
    first: dict[str, Any]
    last: dict[str, Any]
    worst: float
    mean: float
    #: Of the pictures, in Mbit/s.
    rate: float
    #: Seconds of a clip.
    clip_seconds: float
    #: Mean seconds by which a clip's sound comes before its time: a part of the latency.
    buffer: float
    #: Mean milliseconds from a clip's last sample spoken to its first picture shown.
    latency: float

    def row(self) -> tuple[str, ...]:
        def counted(name: str) -> int:
            return int(self.last[name] - self.first[name])

        in_step = self.worst <= 1000 * IN_STEP
        return (
            self.machine.name, str(self.fps), f"{self.last['fps']:.1f} fps", str(counted("shown")),
            str(counted("drops")), str(counted("underruns")), f"{self.mean:+.1f} ms", f"{self.worst:.1f} ms",
            f"{self.latency:.0f} ms", f"{1000 * self.buffer:.0f} ms",
            f"{self.latency + 1000 * self.clip_seconds:.0f} ms",
            f"{self.rate:.2f}", "yes" if in_step else "NO",
        )  # fmt: skip


HEAD = (
    "machine", "fps chosen", "on the page", "shown", "dropped", "pauses", "sound ahead, mean", "most apart",
    "latency", "of it buffer", "delay", "Mbit/s", "in step",
)  # fmt: skip


async def watch(
    url: str, microphone: Path, seconds: float, machine: Machine, info: dict[str, Any], video: str = ""
) -> OnPage:
    """Speaks to the page for `seconds` after it has found its buffer."""

    async def stats() -> dict[str, Any]:
        return dict(json.loads(await page.evaluate("JSON.stringify(window.echomimic.stats)")))

    async with Chromium(microphone=microphone) as browser:
        page = await browser.open(f"{url}?video={video}" if video else url)
        await page.until("!document.querySelector('#start').disabled", 60)
        await page.click("#start")
        await page.until("window.echomimic.stats && window.echomimic.stats.shown > 0", 60)
        await asyncio.sleep(SETTLED)
        looks = [await stats()]
        for _ in range(round(seconds)):
            await asyncio.sleep(1.0)
            looks.append(await stats())
        notice = await page.evaluate("document.querySelector('#notice')?.textContent.trim() ?? ''")
    counted, full = looks[1:], int(info["full_fps"])
    return OnPage(
        machine, int(info["fps"]), str(notice), looks[0], looks[-1],
        max(look["worstOffsetMs"] for look in counted),
        sum(look["offsetMs"] for look in counted) / len(counted),
        (looks[-1]["pictureBytes"] - looks[0]["pictureBytes"]) * 8e-6 / seconds,
        frames_of_clip(full, int(info["clip_frames"])) / full,
        sum(look["buffer"] for look in counted) / len(counted),
        sum(look["latencyMs"] for look in counted) / len(counted),
    )  # fmt: skip


def measure(machine: Machine, wav: Path, seconds: float, video: str, flags: Sequence[str]) -> OnPage:
    with run_on(machine.cores, *machine.flags, *flags) as run:
        warm_up(run, wav)
        return asyncio.run(watch(run.url, wav, seconds, machine, server_info(run.url), video))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.measure_page", description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--wav", type=Path, help="speech; default: the shared recording or the sample")
    parser.add_argument("--only", type=int, nargs="*", help="numbers of the machines to try, from 0")
    parser.add_argument("--video", default="", help="h264, vp8 or jpeg; if not given, the page's choice")
    arguments, flags = parser.parse_known_args()
    chosen = machines()
    if arguments.only is not None:
        chosen = [chosen[number] for number in arguments.only]
    print(this_machine(), flush=True)
    with tempfile.TemporaryDirectory(prefix="echomimic-page-") as folder:
        wav = Path(folder) / "speech.wav"
        write_wav(wav, speech(arguments.wav, 20.0))
        results = []
        for machine in chosen:
            results.append(measure(machine, wav, arguments.seconds, arguments.video, flags))
            print(f"{machine.name}: the page says {results[-1].notice or '(nothing)'}", flush=True)
    rows = [result.row() for result in results]
    print("\n".join(table([HEAD, *rows])))
    return 0 if all(row[-1] == "yes" for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
