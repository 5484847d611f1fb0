"""The default run as a newcomer starts it: real processes, one session in real time, this machine's cores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from demo.factory.evaluate.table import Section
from protocol.wire.clock import FULL_RATE
from scripts.bench.host.default import MOST_LATENCY, MOST_MEMORY, MOST_RTF, DefaultRun, measure_default
from scripts.bench.host.machines import IN_STEP, MachineRun, machines, try_machine


def run(wav: Path, flags: Sequence[str], poured_seconds: float) -> Section:
    """wav: what is spoken. flags: of the run. poured_seconds: of speech where nothing holds it back."""
    made = measure_default(wav, flags, poured_seconds=poured_seconds)
    section = Section(f"Real time on {made.cores} cores")
    _rows(section, made)
    report = made.report
    section.numbers |= {
        "cores": made.cores, "fps": report["fps"], "processor_seconds_per_second": made.cost, "rtf": made.rtf,
        "poured_wall_per_second": made.poured.wall if made.poured else None,
        "latency_median": report["latency_median"], "latency_p95": report["latency_p95"],
        "frames_late": report["frames_late"], "frames": report["frames_received"],
        "resident_bytes": made.memory, "proportional_bytes": sum(made.proportional.values()),
        "ready_seconds": made.ready_in, "other_processes_cores": made.others,
        "clip_seconds": {work.stage: work.median for work in made.work},
    }  # fmt: skip
    return section


def _rows(section: Section, made: DefaultRun) -> None:
    report = made.report
    section.at_least("Frame rate that the warm-up chose", float(report["fps"]), FULL_RATE, " fps", 0)
    section.at_most(
        "RTF of all stages",
        made.rtf,
        MOST_RTF,
        note="processor time of every process of the run, the gateway included, while a session speaks in "
        f"real time, over the speech's length and {made.cores} cores",
    )
    if made.poured is not None:
        section.at_most(
            "Wall time of a second of speech, nothing holding it back",
            made.poured.wall,
            MOST_RTF,
            " s",
            note="the stages' own processes, all at work at once; this program feeds and confirms clips in "
            "place of the gateway, which lets sound through at real time",
        )
    section.at_most(
        "Speech end to first frame of its clip, median", report["latency_median"], MOST_LATENCY, " s"
    )
    section.judged(
        "Frames late",
        f"{report['frames_late']} of {report['frames_received']}",
        "0",
        report["frames_late"] == 0 and not report["problems"],
        "after their slot in a play-out that begins 150 ms after the first",
    )
    section.at_most("Resident memory of all stages", made.memory / 1e9, MOST_MEMORY / 1e9, " GB", note="RSS")
    times = ", ".join(f"{work.what} {1e3 * work.median:.0f}" for work in made.work)
    section.told("Median of a clip in each stage", f"{times} ms", f"a clip is {made.clip:g} s")
    section.told("Ready after", f"{made.ready_in:.1f} s")


def run_machines(wav: Path, flags: Sequence[str]) -> Section:
    """The run with cores and bfloat16 taken away: the rate falls and says so, the page stays in step."""
    section = Section("Any machine")
    for machine in machines()[1:]:  # the first is this machine as it is: `run` has it
        shown = try_machine(machine, wav, flags)
        _machine_rows(section, shown)
    return section


def _machine_rows(section: Section, shown: MachineRun) -> None:
    name, report = shown.machine.name, shown.report
    if report is None:
        section.judged(f"{name}: rate chosen", "none", "24, 12 or 8 fps", False, shown.failure)
        return
    told = shown.fps == FULL_RATE or (bool(shown.page) and shown.page == shown.log)
    section.judged(
        f"{name}: rate chosen, told",
        f"{shown.fps} fps, {'yes' if shown.page else 'nothing to tell'}",
        "told if under 24",
        told,
        f"log: {shown.log}; page: {shown.page or '(nothing)'}",
    )
    section.judged(
        f"{name}: frames late, most behind its sound",
        f"{report.frames_late} of {report.frames_received}, {1e3 * report.behind_most:.0f} ms",
        f"≤ {1e3 * IN_STEP:.0f} ms, none lost",
        shown.in_step,
        "; ".join(report.problems),
    )
    section.numbers[name] = {
        "fps": shown.fps, "late": report.frames_late, "frames": report.frames_received,
        "behind_most": report.behind_most, "latency_median": report.latency_median, "page": shown.page,
    }  # fmt: skip
