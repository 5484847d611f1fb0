"""A run that goes on for hours with two sessions and a third that comes and goes, and its memory.

    python -m scripts.torture soak --minutes 480 --model bundled

Prints for each process its resident memory, descriptors and threads at the beginning and at the end, and the
slope of its memory with a 95 % interval. The first hour does not count, nor does the first half of a run of
less than two hours. Exit status: 0 if every limit is kept, 1 if not.

Beside it stands the slope of the process's own memory: without pages of files and without its bounded
caches, of which its metrics tell the bytes. The kernel takes and gives pages of files as other programs need
memory.
"""

from __future__ import annotations

import argparse
import re
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import psutil
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode

from protocol.wire.messages import Samples
from scripts.run.managed import ManagedRun, MetricSamples
from scripts.torture.faults import Viewing, words_of
from scripts.torture.slope import Slope, slope
from scripts.torture.viewer import spoken

SAMPLE_EVERY = 5.0
#: Seconds for which the third session is there, and is away.
COMES_AND_GOES = 30.0
MOST_MB_AN_HOUR = 1.0
#: Seconds at the beginning that do not count, and their most share of the run.
FIRST, FIRST_SHARE = 3600.0, 0.5
#: Names of the metrics that tell a cache's bytes.
CACHE_BYTES = re.compile(r"echomimic_stage_\w+_(cache|clips)_bytes")
#: Seconds between two lines about the run so far.
TELL_EVERY = 600.0


@dataclass(frozen=True)
class Sample:
    """One look at one process."""

    at: float
    megabytes: float
    descriptors: int
    threads: int
    #: Megabytes without pages of files and without the bounded caches.
    own: float


def look(pid: int, cached: Mapping[int, float]) -> Sample:
    """Resident memory, descriptors and threads of a process now.

    Args:
        pid: of the process.
        cached: megabytes of the caches by process.
    """
    process = psutil.Process(pid)
    memory = process.memory_info()
    own = (memory.rss - memory.shared) / 1e6 - cached.get(pid, 0.0)
    return Sample(time.monotonic(), memory.rss / 1e6, process.num_fds(), process.num_threads(), own)


def cached_mb(metrics: MetricSamples) -> dict[int, float]:
    """Megabytes of the workers' caches by process, by what the gateway's /metrics tells."""
    found: defaultdict[int, float] = defaultdict(float)
    for name, samples in metrics.items():
        if CACHE_BYTES.fullmatch(name):
            for labels, value in samples:
                found[int(labels["worker"].split("-")[-1])] += value / 1e6
    return dict(found)


def name_of(pid: int) -> str:
    """The module that a process of the run executes."""
    known = {"gateway", "audio_worker", "gpu_worker", "encoder_worker", "voice_worker"}
    return next((word for word in words_of(pid) if word in known), f"process {pid}")


def judged(samples: Sequence[Sample]) -> Sequence[Sample]:
    """The samples after the beginning."""
    lasted = samples[-1].at - samples[0].at
    begin = samples[0].at + min(FIRST, FIRST_SHARE * lasted)
    return [sample for sample in samples if sample.at >= begin]


def growth(samples: Sequence[Sample], figure: str = "megabytes") -> Slope:
    """Growth of a figure of `Sample` an hour after the beginning."""
    return slope([(sample.at, getattr(sample, figure)) for sample in judged(samples)]).times(3600)


def soak(voice: Samples, minutes: float, *flags: str) -> bool:
    """Run, and print the table. Returns whether nothing grew.

    The third session is refused while the machine is measured to hold two.
    """
    refused = 0
    speaking = partial(Viewing, voice=voice, keeps_samples=False)
    with ManagedRun(*flags) as run, speaking(run.url) as one, speaking(run.url) as two:
        time.sleep(min(10.0, minutes * 6))
        cached = cached_mb(run.metrics())
        history: dict[int, list[Sample]] = {pid: [look(pid, cached)] for pid in run.pids()}
        ends = time.monotonic() + 60 * minutes
        told = time.monotonic()
        while time.monotonic() < ends:
            if time.monotonic() - told > TELL_EVERY:
                told = time.monotonic()
                print(_line(history), flush=True)
            try:
                with speaking(run.url):
                    _watch(run, history, min(COMES_AND_GOES, max(0.0, ends - time.monotonic())))
            except ConnectionClosed as closed:
                if closed.rcvd is None or closed.rcvd.code != CloseCode.TRY_AGAIN_LATER:
                    raise
                refused += 1
            _watch(run, history, min(COMES_AND_GOES, max(0.0, ends - time.monotonic())))
        restarted = set(run.pids()) != set(history)
        kept = [_row(name_of(pid), samples) for pid, samples in history.items()]
    for number, viewing in enumerate((one, two), 1):
        stream = viewing.stream
        lost = stream.sent - sum(sound.length for sound in stream.sounds)
        middle = stream.began + minutes * 30
        drift = stream.sound_delay(middle) - stream.sound_delay(0.0)
        print(
            f"session {number}: {len(stream.places)} frames, {stream.passed_over} too late,"
            f" {lost} samples lost, sound later by {max(0.0, drift) * 1000:.0f} ms in the second half"
        )
    print(f"the third session was refused {refused} times")
    print("no process was started again" if not restarted else "a process was started again")
    return all(kept) and not restarted


def _watch(run: ManagedRun, history: dict[int, list[Sample]], seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        cached = cached_mb(run.metrics())
        for pid, samples in history.items():
            samples.append(look(pid, cached))
        time.sleep(min(SAMPLE_EVERY, max(0.0, until - time.monotonic())))


def _line(history: dict[int, list[Sample]]) -> str:
    each = ", ".join(
        f"{name_of(pid)} {samples[-1].megabytes:.1f} MB ({growth(samples).middle:+.1f} MB/h,"
        f" its own {samples[-1].own:.1f} MB, {growth(samples, 'own').middle:+.1f})"
        for pid, samples in history.items()
    )
    return f"{time.strftime('%H:%M')}: {each}"


def _row(name: str, samples: list[Sample]) -> bool:
    first, last, grown, own = samples[0], samples[-1], growth(samples), growth(samples, "own")
    since = judged(samples)[0]
    print(
        f"{name:16s} {first.megabytes:7.1f} → {since.megabytes:7.1f} → {last.megabytes:7.1f} MB,"
        f" {grown.middle:+6.2f} MB/h ({grown.low:+.2f} to {grown.high:+.2f}),"
        f" its own {since.own:.1f} → {last.own:.1f} MB,"
        f" {own.middle:+.2f} MB/h ({own.low:+.2f} to {own.high:+.2f}),"
        f" descriptors {first.descriptors} → {last.descriptors}, threads {first.threads} → {last.threads}"
    )
    return grown.middle < MOST_MB_AN_HOUR and last.threads <= first.threads


def main(argv: Sequence[str] | None = None) -> int:
    """Run for as long as asked. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.torture soak", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--minutes", type=float, default=480.0)
    parser.add_argument("--model", choices=("passthrough", "bundled"), default="bundled")
    args = parser.parse_args(argv)
    flags = ["--passthrough"] if args.model == "passthrough" else []
    return 0 if soak(spoken(), args.minutes, *flags) else 1
