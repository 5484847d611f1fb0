"""The default run as a newcomer starts it: real processes, one session in real time, this machine's cores.

`python -m scripts.bench` measures it, in a process of its own, and this module reads the figures.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from demo.factory.evaluate.table import Section
from protocol.process.settings import ROOT
from protocol.wire.clock import FULL_RATE
from scripts.run.managed import RunError

Figures = dict[str, Any]


def run(wav: Path | None, flags: Sequence[str], poured_seconds: float) -> Section:
    """Measure the default run.

    Args:
        wav: the speech of the session, or None for a synthetic voice.
        flags: flags of the run.
        poured_seconds: seconds of speech for the speed with nothing holding it back.

    Raises:
        RunError: the benchmark failed.
    """
    made = benchmark("default", wav, ["--poured", str(poured_seconds), *flags])
    section = Section(f"Real time on {made['cores']} cores")
    _rows(section, made)
    report, poured = made["report"], made["poured"]
    section.numbers |= {
        "cores": made["cores"], "fps": report["fps"], "processor_seconds_per_second": made["cost"],
        "rtf": made["rtf"], "poured_wall_per_second": poured["wall"] if poured else None,
        "latency_median": report["latency_median"], "latency_p95": report["latency_p95"],
        "frames_late": report["frames_late"], "frames": report["frames_received"],
        "resident_bytes": made["memory"], "proportional_bytes": sum(made["proportional"].values()),
        "ready_seconds": made["ready_in"], "other_processes_cores": made["others"],
        "clip_seconds": {work["stage"]: work["median"] for work in made["work"]},
    }  # fmt: skip
    return section


def run_machines(wav: Path | None, flags: Sequence[str]) -> Section:
    """Measure the run on smaller machines: the rate falls and says so, the page stays in step.

    Args:
        wav: the speech of the session, or None for a synthetic voice.
        flags: flags of the run.

    Raises:
        RunError: the benchmark failed.
    """
    section = Section("Any machine")
    for shown in benchmark("machines", wav, flags)[1:]:  # the first is this machine as it is: `run` has it
        _machine_rows(section, shown)
    return section


def benchmark(part: str, wav: Path | None, flags: Sequence[str]) -> Any:
    """Run one part of `python -m scripts.bench`. Returns its figures.

    Nothing imports the benchmarks, so that they stay free to import everything.

    Raises:
        RunError: the benchmark failed. The text is the end of its output.
    """
    with tempfile.TemporaryDirectory(prefix="evaluate-bench-") as folder:
        figures = Path(folder) / "figures.json"
        command = [sys.executable, "-m", "scripts.bench", "--only", part, "--json", str(figures)]
        command += [] if wav is None else ["--wav", str(wav.resolve())]
        done = subprocess.run([*command, *flags], cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RunError(f"{' '.join(command[1:])} failed:\n{(done.stderr or done.stdout)[-2000:].strip()}")
        return json.loads(figures.read_text(encoding="utf-8"))[part]


def _number(value: float | None) -> float:
    """A figure from JSON, which has no word for NaN but null."""
    return math.nan if value is None else value


def _rows(section: Section, made: Figures) -> None:
    report, targets = made["report"], made["targets"]
    section.at_least("Frame rate that the warm-up chose", float(report["fps"]), FULL_RATE, " fps", 0)
    section.at_most(
        "RTF of all stages",
        made["rtf"],
        targets["rtf"],
        note="processor time of every process of the run, the gateway included, while a session speaks in "
        f"real time, over the speech's length and {made['cores']} cores",
    )
    if made["poured"] is not None:
        section.at_most(
            "Wall time of a second of speech, nothing holding it back",
            made["poured"]["wall"],
            targets["rtf"],
            " s",
            note="the stages' own processes work at once. The benchmark feeds and confirms clips in place of "
            "the gateway, which lets sound through at real time",
        )
    section.at_most(
        "Speech end to first frame of its clip, median",
        _number(report["latency_median"]),
        targets["latency"],
        " s",
    )
    section.judged(
        "Frames late",
        f"{report['frames_late']} of {report['frames_received']}",
        "0",
        report["frames_late"] == 0 and not report["problems"],
        "after their slot in a play-out that begins 150 ms after the first",
    )
    section.at_most(
        "Resident memory of all stages", made["memory"] / 1e9, targets["memory"] / 1e9, " GB", note="RSS"
    )
    times = ", ".join(f"{work['what']} {1e3 * _number(work['median']):.0f}" for work in made["work"])
    section.told("Median of a clip in each stage", f"{times} ms", f"a clip is {made['clip']:g} s")
    section.told("Ready after", f"{made['ready_in']:.1f} s")


def _machine_rows(section: Section, shown: Figures) -> None:
    name, report = shown["machine"]["name"], shown["report"]
    if report is None:
        section.judged(f"{name}: rate chosen", "none", "24, 12 or 8 fps", False, shown["failure"])
        return
    fps, log, page = shown["fps"], shown["log"], shown["page"]
    section.judged(
        f"{name}: rate chosen, told",
        f"{fps} fps, {'yes' if page else 'nothing to tell'}",
        "told if under 24",
        fps == FULL_RATE or (bool(page) and page == log),
        f"log: {log}; page: {page or '(nothing)'}",
    )
    section.judged(
        f"{name}: frames late, most behind its sound",
        f"{report['frames_late']} of {report['frames_received']}, {1e3 * report['behind_most']:.0f} ms",
        f"≤ {1e3 * shown['in_step_bound']:.0f} ms, none lost",
        shown["in_step"],
        "; ".join(report["problems"]),
    )
    section.numbers[name] = {
        "fps": fps, "late": report["frames_late"], "frames": report["frames_received"],
        "behind_most": report["behind_most"], "latency_median": report["latency_median"], "page": page,
    }  # fmt: skip
