"""Smaller machines: the default run with cores taken away and without bfloat16.

For each: the rate that the warm-up chose, the log's line on it, the notice on the page, and whether the
client still gets pictures in step with their sound.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scripts.bench.common.tools import EVERY_CLIP, NOISY, UsageMeter, cores, ms, run_on, table, warm_up
from scripts.run.managed import RunError
from scripts.talk.live import ClientError, Plan, server_info
from scripts.talk.live import speak as talk
from scripts.talk.sound import read_sound
from scripts.talk.stream_check import Report

CHOSEN = re.compile(r"new sessions get (\d+) fps(?: in the larger size)?, clips of \d+ frames: (.*)")
#: Seconds that a picture may be from its sound: lip-sync tolerances begin there (EBU R37).
IN_STEP = 0.04


@dataclass(frozen=True)
class Machine:
    """A run on `cores` cores (None: all) with these flags."""

    name: str
    cores: int | None
    flags: tuple[str, ...]


@dataclass(frozen=True)
class MachineRun:
    """Figures and texts of a run on one machine.

    `log` is the run's line on the frame rate, and `page` the notice on the page ("" for none). `lost` counts
    frames given up. `others` is the number of cores that all other processes used, the client among them.
    """

    machine: Machine
    fps: int
    log: str
    page: str
    report: Report | None
    lost: int
    others: float = 0.0
    failure: str = ""

    @property
    def in_step(self) -> bool:
        """Every frame came, with its own pts, no more than `IN_STEP` behind its sound."""
        return self.report is not None and not self.report.problems and self.report.behind_most <= IN_STEP


def machines() -> list[Machine]:
    """The machines to try: this one, and this one with fewer cores or without bfloat16."""
    plain = ("--dtype", "float32")
    every = f"{cores()} cores"
    return [
        Machine(every, None, ()),
        Machine("1 core", 1, ()),
        Machine(f"{every}, float32", None, plain),
        Machine("1 core, float32", 1, plain),
    ]


def try_machine(machine: Machine, wav: Path, flags: Sequence[str]) -> MachineRun:
    """Start the run on it and speak `wav` in real time."""
    with run_on(machine.cores, *EVERY_CLIP, *machine.flags, *flags) as run:
        try:
            warm_up(run, wav)
            info = server_info(run.url)
            plan = Plan(read_sound(wav), version=2)
            with UsageMeter([run.process.pid]) as meter:
                report = asyncio.run(talk(run.url, plan, int(info["fps"]), 0))
            return _shown(machine, run.log(), info, plan.texts, report, meter.other_cores)
        except (ClientError, RunError) as error:
            return MachineRun(machine, 0, _log_line(run.log())[1], "", None, 0, failure=str(error))


def _shown(
    machine: Machine,
    log: str,
    info: dict[str, Any],
    texts: list[dict[str, Any]],
    report: Report,
    others: float,
) -> MachineRun:
    notices = [text["notice"] for text in texts if text.get("notice")]
    status = [text for text in texts if text.get("type") == "status"]
    lost = status[-1]["frames_lost"] + status[-1]["frames_dropped"] if status else 0
    page = notices[-1] if notices else str(info.get("notice", ""))
    return MachineRun(machine, report.fps, _log_line(log)[1], page, report, int(lost), others)


def _log_line(log: str) -> tuple[int, str]:
    found = CHOSEN.findall(log)
    return (int(found[-1][0]), found[-1][1]) if found else (0, "")


def lines(results: Sequence[MachineRun]) -> list[str]:
    """A table, and under it the texts of each run."""
    rows = [("machine", "fps chosen", "received", "late", "lost", "median", "most behind", "in step")]
    for shown in results:
        report = shown.report
        if report is None:
            rows.append((shown.machine.name, "-", "-", "-", "-", "-", "-", f"FAILED {shown.failure}"))
            continue
        rows.append(
            (
                shown.machine.name, str(shown.fps), f"{report.received_fps:.2f} fps",
                f"{report.frames_late} of {report.frames_received}", str(shown.lost),
                ms(report.latency_median) if np.isfinite(report.latency_median) else "-",
                ms(report.behind_most), "yes" if shown.in_step else "NO",
            )
        )  # fmt: skip
    said = []
    for shown in results:
        said += [f"  {shown.machine.name}: log: {shown.log}"]
        said += [f"  {' ' * len(shown.machine.name)}  page: {shown.page or '(nothing)'}"]
        if shown.others > NOISY * cores():
            said.append(
                f"    NOT QUIET: other processes, the client among them, used {shown.others:.2f} cores"
            )
        said += [f"    FAILED {problem}" for problem in (shown.report.problems[:3] if shown.report else [])]
    return [*table(rows), "", *said]
