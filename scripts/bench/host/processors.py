"""The default run on this processor and as if it had AVX2 alone: `python -m scripts.bench.host.processors`.

Rows: AVX2 on all cores, AVX2 on one core, this processor as it is. Each is started twice, since the first
start chooses the engines by timing. The second one hears 20 s of speech in real time and denoises every clip.
Then the page listens in Chromium for 20 s, where all cores are there. The client has all cores in every row.

All of it takes about six minutes on a quiet machine, and four with `--no-page`. `--only avx2,native` names
rows. `avx2.py` says how AVX-512 is taken away, and each row says which stages have OpenVINO without it.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from protocol.wire.clock import SAMPLE_RATE
from scripts.bench.common.tools import (
    EVERY_CLIP,
    NOISY,
    UsageMeter,
    cores,
    machine,
    ms,
    only_cores,
    settle,
    speak,
    table,
    warm_up,
)
from scripts.bench.host.avx2 import copy_without_avx512, environment
from scripts.bench.host.machines import CHOSEN
from scripts.run.managed import ROOT, ManagedRun
from scripts.talk.sound import read_sound, synthetic_voice, write_wav

#: Seconds of speech.
SPEECH = 20.0
#: Log lines that say which engine computes, each the only one of its kind in a first start that has a choice.
ENGINES = re.compile(
    r"(?:decoding by (.+ by \w+|torch):|denoising by (\w+): in (\w+)|denoising by (int8 and )?float32:"
    r"|Whisper by (\w+):)"
)
#: Stages that compute.
WORKERS = ("audio_worker", "gpu_worker", "encoder_worker")


@dataclass(frozen=True)
class Processor:
    """A machine to stand for: its number of cores (None: all), and the variables of its programs."""

    name: str
    cores: int | None
    variables: Mapping[str, str]
    #: Whether the page is measured.
    page: bool = True


@dataclass(frozen=True)
class ProcessorRun:
    """Figures of the second start on one processor.

    Attributes:
        report: the client's.
        spent: processor seconds a second of speech, by stage.
        cores: that the stages had.
        ready_in: seconds until the first and the second start were ready.
        memory: RSS after the speech by stage, in bytes.
        engines: lines of the first start's log on the choice of engines and of the rate.
        emulated: stages whose OpenVINO is the copy without AVX-512.
        others: cores that all other processes used meanwhile, the client among them.
    """

    report: dict[str, Any]
    spent: dict[str, float]
    cores: int
    ready_in: tuple[float, float]
    memory: dict[str, int]
    engines: list[str]
    emulated: list[str]
    others: float

    @property
    def cost(self) -> float:
        """Processor seconds of all stages a second of speech."""
        return sum(self.spent.values())


def measure(processor: Processor, wav: Path, folder: Path, flags: Sequence[str]) -> ProcessorRun:
    """Two starts, and speech to the second one.

    Raises:
        RunError: a start or the client failed.
    """
    logs = folder / f"logs-{processor.name.replace(' ', '-')}"
    given = (*EVERY_CLIP, *flags, "--log-dir", str(logs))
    with only_cores(processor.cores):
        with ManagedRun(*given, timeout=300, environment=processor.variables) as first:
            settle([first.process.pid])  # in its first pause it keeps the features of poses
        log = "".join(path.read_text(errors="replace") for path in sorted(logs.glob("run_*.log")))
        run = ManagedRun(*given, timeout=300, environment=processor.variables)
        run.__enter__()
    try:
        warm_up(run, wav, bound=30.0)
        emulated = emulated_stages(run, folder)
        with UsageMeter([run.process.pid]) as meter:
            (report,) = speak(run, wav)
    finally:
        run.__exit__()
    spent = {stage: seconds / float(report["seconds"]) for stage, seconds in meter.spent.items()}
    told = [match.group(0).rstrip(":") for match in ENGINES.finditer(log)]
    told += [match.group(0) for match in CHOSEN.finditer(log)][-1:]
    return ProcessorRun(
        report, spent, processor.cores or cores(), (first.ready_in, run.ready_in),
        meter.after.resident, told, emulated, meter.other_cores,
    )  # fmt: skip


def emulated_stages(run: ManagedRun, folder: Path) -> list[str]:
    """The stages that have mapped OpenVINO's copy without AVX-512."""
    found = []
    for pid in run.pids():
        words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        if f"{folder}/openvino/" in Path(f"/proc/{pid}/maps").read_text():
            found += [stage for stage in WORKERS if stage in words]
    return sorted(found)


def measure_page(processor: Processor) -> str:
    """The row of `tests.measure_page`, with its head, or the reason why there is none."""
    command = [sys.executable, "-m", "tests.measure_page", "--only", "0", "--seconds", "20"]
    done = subprocess.run(
        command, cwd=ROOT, env=dict(processor.variables), capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    rows = done.stdout.splitlines()[-2:]
    return "\n".join(rows) if rows and " delay " in rows[0] else f"  no page: {done.stderr.strip()[-300:]}"


def lines(results: Mapping[str, ProcessorRun]) -> list[str]:
    """A table, and under it the engines of each row."""
    rows = [
        (
            "processor", "fps", "clip", "processor a second", "RTF", "latency", "p95", "late", "ready",
            "RSS", "others",
        )
    ]  # fmt: skip
    said = []
    for name, run in results.items():
        report = run.report
        rows.append(
            (
                name, f"{report['fps']}", f"{report['clip_frames']} frames", f"{run.cost:.2f} s",
                f"{run.cost / run.cores:.2f}", ms(report["latency_median"]), ms(report["latency_p95"]),
                f"{report['frames_late']} of {report['frames_received']}",
                " then ".join(f"{seconds:.1f} s" for seconds in run.ready_in),
                f"{sum(run.memory.values()) / 2**20:.0f} MiB", f"{run.others:.2f} cores",
            )
        )  # fmt: skip
        said += [f"  {name}: without AVX-512: {', '.join(run.emulated) or 'no stage'}"]
        said += [f"    {line}" for line in run.engines]
        said += [
            "    processor time a second: "
            + ", ".join(f"{name} {spent:.3f} s" for name, spent in run.spent.items())
        ]
        said += ["    RSS: " + ", ".join(f"{name} {size >> 20} MiB" for name, size in run.memory.items())]
        said += [f"    FAILED {problem}" for problem in report["problems"]]
        if run.others > NOISY * cores():
            said.append("    NOT QUIET: see the last column")
    return [*table(rows), "", *said]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print every row. Other flags go to the runs. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m scripts.bench.host.processors", description=__doc__)
    parser.add_argument("--wav", type=Path, help="speech (default: a voice made by the program)")
    parser.add_argument("--only", default="", help="rows with commas between them: avx2, avx2-one, native")
    parser.add_argument("--no-page", action="store_true", help="leave the page out")
    args, flags = parser.parse_known_args(argv)
    print(machine(), flush=True)
    with tempfile.TemporaryDirectory(prefix="echomimic-processors-") as name:
        folder = Path(name)
        wav = folder / "speech.wav"
        speech = read_sound(args.wav) if args.wav else synthetic_voice(SPEECH)
        write_wav(wav, np.resize(speech, round(SPEECH * SAMPLE_RATE)))
        made: dict[str, ProcessorRun] = {}
        for short, processor in processors(folder).items():
            if short not in (args.only.split(",") if args.only else [short]):
                continue
            made[processor.name] = measure(processor, wav, folder, flags)
            print("\n".join(lines({processor.name: made[processor.name]})), flush=True)
            if processor.page and not args.no_page:
                print(measure_page(processor), "\n", flush=True)
    print("\n".join(lines(made)))
    return 0


def processors(folder: Path) -> dict[str, Processor]:
    """The machines to stand for, by short name, with homes of their own in a folder."""
    places = copy_without_avx512(folder)
    print(f"as if with AVX2 alone: {places} questions of OpenVINO are answered", flush=True)
    emulated = environment(folder, os.environ)
    home = folder / "native"
    home.mkdir()
    native = {**os.environ, "HOME": str(home)}
    return {
        "avx2": Processor(f"AVX2, {cores()} cores", None, emulated),
        "avx2-one": Processor("AVX2, 1 core", 1, emulated, page=False),
        "native": Processor(f"as it is, {cores()} cores", None, native),
    }


if __name__ == "__main__":
    sys.exit(main())
