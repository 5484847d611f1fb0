"""The cost of a conversation of which half is silent: `python -m scripts.bench.host.conversation --wav FILE`.

Each session speaks for a while, is silent for as long, and so on, over an open microphone with a quiet room's
noise. One run has `--silence denoise` and one `--silence loop`, `--repeat` times in turn.

- Processor time by stage, a second of the conversation. `--turns` 1 leaves out nothing of the loop's first
  round, so give more for the cost of a long one.
- With `--sessions 1,2,3,…` each run serves so many sessions at once, one number after the other, whose turns
  are spread. The machine holds them where at most 1 % of the frames are late or lost, all sessions are let
  in, and they have the rate that was asked for. A run ends at the first number that it does not hold in two
  tries. The last line says how many each way holds ("sessions held").
- `--fps 24` keeps the rate and the clips' 12 frames. `-- --clip-frames 4` gives the short clips of a quiet
  machine. `--fps 0` leaves rate, length and size to the machine, as the default settings do. It is measured
  against 24 frames a second then.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from protocol.wire.clock import FULL_RATE, SAMPLE_RATE, frames_of_clip
from protocol.wire.messages import Samples
from scripts.bench.common.tools import UsageMeter, cores, machine, settle, table
from scripts.bench.common.turns import WAYS, conversation
from scripts.run.managed import ManagedRun, MetricSamples
from scripts.talk.live import ClientError, Plan, speak
from scripts.talk.sound import read_sound
from scripts.talk.stream_check import Report

#: Share of late frames beyond which a machine does not hold its sessions.
MOST_LATE = 0.01
#: Tries of a number of sessions: something else on the machine may spoil the first.
TRIES = 2
#: Seconds until the stages have told their last figures.
STATUS_LAG = 1.0


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
    #: Clips that were denoised, and all.
    denoised: int
    clips: int
    #: Frames a second of the slowest session, and of full speed.
    fps: float
    full: int
    #: Sessions that were not let in, or were ended.
    refused: int
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
        in_time = self.late + self.lost <= MOST_LATE * self.frames
        return in_time and not self.refused and self.fps >= (1 - MOST_LATE) * self.full


def measure(way: str, numbers: Sequence[int], speech: Samples, args: argparse.Namespace) -> list[Figures]:
    """Hold the conversations of so many sessions, of one number after the other, in one run.

    The first number that the machine does not hold in two tries is the last one.
    """
    rate = ["--fps", str(args.fps)] if args.fps else []
    flags = [*args.flag, "--silence", way, *rate, "--max-sessions", str(max(numbers))]
    made: list[Figures] = []
    with ManagedRun(*flags, timeout=600) as run:
        if args.warm:  # the loop's first round, and the caches
            asyncio.run(_hold(run.url, [np.zeros(round(args.warm * SAMPLE_RATE), np.float32)], args.fps))
        for sessions in numbers:
            for _ in range(TRIES if len(numbers) > 1 else 1):
                settle([run.process.pid])
                made.append(_converse(run, way, sessions, speech, args))
                print(lines(made[-1:])[1], flush=True)
                if made[-1].held:
                    break
            else:
                break
    return made


def _converse(run: ManagedRun, way: str, sessions: int, speech: Samples, args: argparse.Namespace) -> Figures:
    """The conversations of so many sessions at once, whose turns are spread."""
    shifts = [2 * args.turn * number / sessions for number in range(sessions)]
    sounds = [conversation(speech, args.turn, args.turns, shift) for shift in shifts]
    before = _clips(run.metrics())
    with UsageMeter([run.process.pid]) as meter:
        answers = asyncio.run(_hold(run.url, sounds, args.fps))
    time.sleep(STATUS_LAG)
    clips, at_rest = (now - then for now, then in zip(_clips(run.metrics()), before, strict=True))
    reports = [answer for answer in answers if isinstance(answer, Report)]
    seconds = 2.0 * args.turn * args.turns
    return Figures(
        way,
        sessions,
        {stage: used / seconds for stage, used in meter.spent.items() if stage != "supervisor"},
        sum(report.frames_received for report in reports),
        sum(report.frames_late for report in reports),
        sum(report.frames_expected - report.frames_received for report in reports),
        clips - at_rest,
        clips,
        min((report.frames_received / seconds for report in reports), default=0.0),
        args.fps or FULL_RATE,
        sessions - len(reports),
        float(np.median([report.latency_median for report in reports] or [np.nan])),
        sum(len(report.problems) for report in reports),
    )


async def _hold(url: str, sounds: Sequence[Samples], fps: int) -> list[Report | BaseException]:
    frames = frames_of_clip(fps or FULL_RATE, FULL_RATE // 2)
    plans = [Plan(sound, version=2) for sound in sounds]
    answers = await asyncio.gather(
        *(speak(url, plan, fps or FULL_RATE, frames) for plan in plans), return_exceptions=True
    )
    for answer in answers:
        if isinstance(answer, BaseException):
            print(f"  a session was not held: {answer}", flush=True)
            if not isinstance(answer, ClientError):
                raise answer
    return answers


def _clips(samples: MetricSamples) -> tuple[int, int]:
    """Clips that GPU workers have sent on so far, and how many of them came from the loop."""
    names = ("echomimic_stage_clips_total", "echomimic_stage_clips_at_rest_total")
    sent, at_rest = (
        sum(value for labels, value in samples.get(name, []) if labels.get("stage") == "gpu_worker")
        for name in names
    )
    return round(sent), round(at_rest)


def lines(made: Sequence[Figures]) -> list[str]:
    """The table, and the savings."""
    stages = list(dict.fromkeys(stage for one in made for stage in one.processor))
    heads = ("silence", "sessions", *stages, "all", "denoised", "frames", "late", "lost", "fps", "latency")
    rows = [(*heads, "held")]
    for one in made:
        times = [f"{one.processor.get(stage, 0.0):.3f}" for stage in stages]
        rows.append(
            (
                one.way, str(one.sessions), *times, f"{one.cost:.3f}", f"{one.denoised} of {one.clips}",
                str(one.frames), str(one.late), str(one.lost), f"{one.fps:.1f}",
                f"{one.latency * 1e3:.0f} ms",
                "yes" if one.held else f"no, {one.refused} refused" if one.refused else "no",
            )
        )  # fmt: skip
    out = table(rows)
    for sessions in dict.fromkeys(one.sessions for one in made):
        costs = {
            way: [one.cost for one in made if (one.sessions, one.way) == (sessions, way)] for way in WAYS
        }
        if all(costs.values()):
            before, after = (float(np.mean(costs[way])) for way in WAYS)
            out.append(
                f"  {sessions} sessions: the loop takes {1 - after / before:.1%} less processor time"
                f" ({before:.3f} → {after:.3f} s/s)"
            )
    held = ", ".join(f"{_most_held(made, way)} with {way}" for way in WAYS if any(f.way == way for f in made))
    return [*out, f"  sessions held: {held}"]


def _most_held(made: Sequence[Figures], way: str) -> str:
    """The most sessions that the machine held in one of the tries, "at least" where all numbers were held."""
    held = {one.sessions for one in made if one.way == way and one.held}
    missed = {one.sessions for one in made if one.way == way} - held
    # A number beyond one that was missed, in another run, says nothing.
    most = max((n for n in held if n < min(missed, default=n + 1)), default=0)
    return str(most) if missed else f"at least {most}"


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
    parser.add_argument("--fps", type=int, default=24, help="0 for the machine's choice (default 24)")
    parser.add_argument("--repeat", type=int, default=1, help="runs of each way, in turn (default 1)")
    parser.add_argument("--ways", default=",".join(WAYS), help="of --silence (default both)")
    parser.add_argument("flag", nargs="*", help="flags of the run, after --")
    args = parser.parse_args(argv)
    speech = read_sound(args.wav)
    print(f"{machine()}; {cores()} cores", flush=True)
    numbers = sorted(map(int, args.sessions.split(",")))
    made = [one for way in args.repeat * args.ways.split(",") for one in measure(way, numbers, speech, args)]
    print("\n".join(lines(made)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
