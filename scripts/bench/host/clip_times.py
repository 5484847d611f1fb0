"""Where the time of each clip goes: `python -m scripts.bench.host.clip_times [--cores 1] [flags of the run]`.

Each clip is measured from its last sample sent to its first picture received. Its line has the time that each
stage computed and waited for a core (the kernel's own count), the pages read from disk, and the time that the
host took from this machine. So it shows whether a late clip had more work, a slow or shared core, or waited
for the disk or the host.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scripts.bench.common.processes import family, machine_stolen, pages_read
from scripts.bench.common.tools import EVERY_CLIP, machine, run_on, table, warm_up
from scripts.bench.gpu.live import speech
from scripts.bench.host.default import WORK
from scripts.run.managed import ManagedRun
from scripts.talk.live import Plan, hold, server_info
from scripts.talk.sound import read_sound, write_wav

#: Seconds between two samples.
EVERY = 0.02
STAGES = ("gateway", *WORK)


@dataclass(frozen=True)
class UsageSample:
    """Counts up to `time`: milliseconds computed and waited by stage, pages read, milliseconds stolen."""

    time: float
    computed: dict[str, float]
    waited: dict[str, float]
    read: int
    stolen: int

    def since(self, before: UsageSample) -> UsageSample:
        """The difference to `before`."""
        computed, waited = (
            {stage: now - then[stage] for stage, now in after.items()}
            for after, then in ((self.computed, before.computed), (self.waited, before.waited))
        )
        return UsageSample(
            before.time, computed, waited, self.read - before.read, self.stolen - before.stolen
        )


def take_sample(processes: list[tuple[int, str]]) -> UsageSample:
    """The counts of these processes (id and stage) now."""
    computed, waited, read = dict.fromkeys(STAGES, 0.0), dict.fromkeys(STAGES, 0.0), 0
    for pid, stage in processes:
        if stage not in computed:
            continue
        read += pages_read(pid)
        for thread in Path(f"/proc/{pid}/task").iterdir():
            try:
                ran, queued = (thread / "schedstat").read_text().split()[:2]
            except OSError:  # it ended
                continue
            computed[stage] += int(ran) / 1e6
            waited[stage] += int(queued) / 1e6
    return UsageSample(time.monotonic(), computed, waited, read, round(machine_stolen() * 1000))


class UsageRecorder(threading.Thread):
    """Samples the use of a run's processes every `EVERY` seconds until it is stopped."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._processes = family(pid)
        self._stop_asked = threading.Event()
        self.samples: list[UsageSample] = []

    def run(self) -> None:
        while not self._stop_asked.wait(EVERY):
            self.samples.append(take_sample(self._processes))

    def stop(self) -> None:
        """Take no more samples, and wait for the last one."""
        self._stop_asked.set()
        self.join()

    def between(self, begin: float, end: float) -> tuple[UsageSample, UsageSample]:
        """The samples around an interval."""
        times = [at.time for at in self.samples]
        first, last = np.searchsorted(times, [begin, end])
        return self.samples[max(0, int(first) - 1)], self.samples[min(int(last), len(times) - 1)]


def row(number: int, latency: float, used: UsageSample) -> tuple[str, ...]:
    """A clip's line of the table, from its latency in seconds and the use meanwhile."""
    parts = [f"{used.computed[stage]:.0f}+{used.waited[stage]:.0f}" for stage in STAGES]
    return str(number), f"{1e3 * latency:.0f} ms", *parts, str(used.read), f"{used.stolen} ms"


def summary(rows: list[tuple[float, float]]) -> str:
    """The last line: how far the clips' computing explains their latency.

    Args:
        rows: latency in seconds and time computed in milliseconds, of each clip.
    """
    latency, computed = (np.array(column) for column in zip(*rows, strict=True))
    together = np.corrcoef(latency, computed)[0, 1]
    median, most = 1e3 * np.median(latency), 1e3 * latency.max()
    return (
        f"{len(rows)} clips: latency {median:.0f} ms median, {most:.0f} most; "
        f"all stages computed {np.median(computed):.0f} ms of it, {computed.min():.0f} to "
        f"{computed.max():.0f}; "
        f"correlation of the two {together:.2f}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m scripts.bench.host.clip_times", description=__doc__)
    parser.add_argument("--cores", type=int, help="leave the run this many cores (default all)")
    parser.add_argument("--wav", type=Path, help="speech; default: the shared recording or the sample")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--times", type=int, default=1, help="how often it is spoken")
    arguments, flags = parser.parse_known_args()
    print(machine(), flush=True)
    with tempfile.TemporaryDirectory(prefix="echomimic-clips-") as folder:
        wav = Path(folder) / "speech.wav"
        write_wav(wav, speech(arguments.wav, arguments.seconds))
        with run_on(arguments.cores, *EVERY_CLIP, *flags) as run:
            warm_up(run, wav)
            for _ in range(arguments.times):
                print("\n".join(spoken(run, wav)), flush=True)
    return 0


def spoken(run: ManagedRun, wav: Path) -> list[str]:
    """Speak once. Returns a table with a line for each clip, and the summary."""
    fps = int(server_info(run.url)["fps"])
    recorder = UsageRecorder(run.process.pid)
    recorder.start()
    try:
        check = asyncio.run(hold(run.url, Plan(read_sound(wav), version=2), fps, 0))
    finally:
        recorder.stop()
    head = (
        "clip",
        "latency",
        *(f"{stage.removesuffix('_worker')}, ms" for stage in STAGES),
        "read",
        "stolen",
    )
    lines, figures = [head], []
    for number, (sent, came) in enumerate(check.clip_times()):
        before, after = recorder.between(sent, came)
        used = after.since(before)
        lines.append(row(number, came - sent, used))
        figures.append((came - sent, sum(used.computed.values())))
    late = check.frames_late()
    return [
        f"{fps} fps; {late} of {len(check.numbers)} frames late; a stage: milliseconds computed + waited",
        *table(lines), summary(figures),
    ]  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
