"""The cost of a conversation of which half is silent: `python -m scripts.bench.host.conversation --wav FILE`.

Each session speaks for a while, is silent for as long, and so on, over an open microphone with a quiet room's
noise. One run has `--silence denoise` and one `--silence loop`. Both are at `--fps` with the same sessions.

- Processor time by stage, a second of the conversation. `--turns` 1 leaves out nothing of the loop's first
  round, so give more for the cost of a long one.
- With `--sessions 1,2,3,…` the runs serve as many sessions at once, whose turns are spread. The machine
  holds them where at most 1 % of the frames are late.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from protocol.wire.clock import FULL_RATE, SAMPLE_RATE, frames_of_clip
from protocol.wire.messages import Samples
from scripts.bench.common.tools import UsageMeter, cores, machine, settle, table
from scripts.bench.common.turns import WAYS, conversation
from scripts.run.managed import ManagedRun
from scripts.talk.live import Plan, speak
from scripts.talk.sound import read_sound
from scripts.talk.stream_check import Report

#: Share of late frames beyond which a machine does not hold its sessions.
MOST_LATE = 0.01


@dataclass(frozen=True)
class Figures:
    """One run with some sessions."""

    way: str
    sessions: int
    #: Processor seconds of each stage a second of the conversation, all sessions together.
    processor: dict[str, float]
    frames: int
    late: int
    lost: int
    #: Seconds from a clip's last sample to its first frame.
    latency: float
    problems: int

    @property
    def cost(self) -> float:
        """Processor seconds a second, all stages but the supervisor together."""
        return sum(self.processor.values())

    @property
    def held(self) -> bool:
        """Whether the machine held the sessions."""
        return self.late + self.lost <= MOST_LATE * self.frames


def measure(way: str, sessions: int, speech: Samples, args: argparse.Namespace) -> Figures:
    """Hold the conversations of so many sessions in a run of their own."""
    flags = [*args.flag, "--silence", way, "--fps", str(args.fps), "--max-sessions", str(sessions)]
    with ManagedRun(*flags, timeout=600) as run:
        if args.warm:  # the loop's first round, and the caches
            asyncio.run(_hold(run.url, [np.zeros(round(args.warm * SAMPLE_RATE), np.float32)], args.fps))
        settle([run.process.pid])
        shifts = [2 * args.turn * number / sessions for number in range(sessions)]
        sounds = [conversation(speech, args.turn, args.turns, shift) for shift in shifts]
        with UsageMeter([run.process.pid]) as meter:
            reports = asyncio.run(_hold(run.url, sounds, args.fps))
    seconds = 2.0 * args.turn * args.turns
    return Figures(
        way,
        sessions,
        {stage: used / seconds for stage, used in meter.spent.items() if stage != "supervisor"},
        sum(report.frames_received for report in reports),
        sum(report.frames_late for report in reports),
        sum(report.frames_expected - report.frames_received for report in reports),
        float(np.median([report.latency_median for report in reports])),
        sum(len(report.problems) for report in reports),
    )


async def _hold(url: str, sounds: Sequence[Samples], fps: int) -> list[Report]:
    frames = frames_of_clip(fps, FULL_RATE // 2)
    return await asyncio.gather(*(speak(url, Plan(sound, version=2), fps, frames) for sound in sounds))


def lines(made: Sequence[Figures]) -> list[str]:
    """The table, and the savings."""
    stages = list(dict.fromkeys(stage for one in made for stage in one.processor))
    rows = [("silence", "sessions", *stages, "all", "frames", "late", "lost", "latency", "held")]
    for one in made:
        times = [f"{one.processor.get(stage, 0.0):.3f}" for stage in stages]
        rows.append(
            (
                one.way, str(one.sessions), *times, f"{one.cost:.3f}", str(one.frames), str(one.late),
                str(one.lost), f"{one.latency * 1e3:.0f} ms", "yes" if one.held else "no",
            )
        )  # fmt: skip
    out = table(rows)
    for sessions in dict.fromkeys(one.sessions for one in made):
        cost = {one.way: one.cost for one in made if one.sessions == sessions}
        if len(cost) == len(WAYS):
            saved = 1 - cost["loop"] / cost["denoise"]
            out.append(f"  {sessions} sessions: the loop saves {saved:.0%} of the processor time")
    for way in WAYS:
        held = [one.sessions for one in made if one.way == way and one.held]
        out.append(f"  {way}: the machine holds {max(held, default=0)} of the sessions that were tried")
    return out


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.bench.host.conversation", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--wav", type=Path, required=True, help="speech")
    parser.add_argument("--sessions", default="1", help="sessions at once, such as 1,2,3 (default 1)")
    parser.add_argument("--turn", type=float, default=5.0, help="seconds of speech, and of silence after it")
    parser.add_argument("--turns", type=int, default=4, help="turns of each (default 4)")
    parser.add_argument("--warm", type=float, default=14.0, help="seconds of silence before (default 14)")
    parser.add_argument("--fps", type=int, default=24)
    parser.add_argument("--ways", default=",".join(WAYS), help="of --silence (default both)")
    parser.add_argument("flag", nargs="*", help="flags of the run, after --")
    args = parser.parse_args(argv)
    speech = read_sound(args.wav)
    print(f"{machine()}; {cores()} cores", flush=True)
    made = []
    for sessions in map(int, args.sessions.split(",")):
        for way in args.ways.split(","):
            made.append(measure(way, sessions, speech, args))
            print(lines(made[-1:])[1], flush=True)
    print("\n".join(lines(made)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
