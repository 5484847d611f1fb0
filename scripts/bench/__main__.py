"""Measure this machine: the default run, the cost of the plumbing, and the number of sessions it carries.

    python -m scripts.bench                    everything, about four minutes
    python -m scripts.bench --quick            small and fast, for tests
    python -m scripts.bench --only machines    with one core, and without bfloat16
    python -m scripts.bench --only start       a first and a second start, and waiting for a speaker
    python -m scripts.bench --only default --sessions 2    several speak at the same time
    python -m scripts.bench --json FILE        the figures also as JSON, for other programs

Other flags go to the run: `python -m scripts.bench --only default --compile-unet --steps 2`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import math
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from protocol.wire.clock import SAMPLE_RATE
from scripts.bench.common.tools import machine, speak
from scripts.bench.host import default as bench_default
from scripts.bench.host import machines as bench_machines
from scripts.bench.host import start as bench_start
from scripts.bench.host.hops import measure_hops
from scripts.run.managed import ManagedRun, RunError
from scripts.talk.sound import SoundError, read_sound, synthetic_voice, write_wav

PARTS = ("default", "hops", "plumbing", "capacity")
#: Left out unless named: they start the run several times.
EXTRA = ("machines", "start")


@dataclass(frozen=True)
class Sizes:
    """The extent of a benchmark.

    `speech` is seconds a session, `messages` a number for each hop, `most` the largest number of sessions
    tried, and `poured` seconds of speech sent as fast as they are taken. `sessions` speak to the default run.
    """

    speech: float
    messages: int
    most: int
    poured: float
    sessions: int = 1


def main(argv: Sequence[str] | None = None) -> int:
    """Measure the parts asked for. Returns the exit status."""
    args, flags = _parser().parse_known_args(argv)
    sizes = Sizes(4.0, 100, 2, 3.0) if args.quick else Sizes(20.0, 600, 64, 20.0)
    sizes = dataclasses.replace(sizes, sessions=args.sessions)
    if args.poured is not None:
        sizes = dataclasses.replace(sizes, poured=args.poured)
    logging.getLogger("protocol").setLevel(logging.ERROR)  # workers that come and go are the measurement
    figures: dict[str, Any] = {"machine": machine(), "date": time.strftime("%Y-%m-%d")}
    print(f"{figures['machine']}; {figures['date']}")
    try:
        with tempfile.TemporaryDirectory() as folder:
            wav = Path(folder) / "speech.wav"
            speech = read_sound(args.wav) if args.wav else synthetic_voice(sizes.speech)
            length = round(sizes.speech * SAMPLE_RATE)
            write_wav(wav, np.tile(speech, -(-length // len(speech)))[:length])
            figures |= measure(args.only, wav, flags, sizes)
        if args.json:
            args.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")
    except (RunError, SoundError, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def measure(parts: Sequence[str], wav: Path, flags: Sequence[str], sizes: Sizes) -> dict[str, Any]:
    """Measure and print some parts. Returns the figures by part, ready for JSON.

    Raises:
        RunError: a run or the client failed.
    """
    steps: dict[str, Callable[[], Any]] = {
        "default": lambda: default_run(wav, flags, sizes.poured, sizes.sessions),
        "machines": lambda: smaller_machines(wav, flags),
        "start": lambda: starts(flags),
        "hops": lambda: hops(sizes.messages),
        "plumbing": lambda: plumbing(wav),
        "capacity": lambda: capacity(wav, min(sizes.speech, 8.0), sizes.most),
    }
    return {name: without_nan(step()) for name, step in steps.items() if name in parts}


def without_nan(value: Any) -> Any:
    """The value with None in place of each number that JSON does not have."""
    if isinstance(value, dict):
        return {key: without_nan(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def default_run(wav: Path, flags: Sequence[str], poured: float, sessions: int) -> dict[str, Any]:
    """The cost, the memory, the speed and the latency of the run."""
    speakers = "one session" if sessions == 1 else f"{sessions} sessions"
    print(f"\nThe default run {' '.join(flags)}".rstrip() + f", {speakers} in real time")
    made = bench_default.measure_default(wav, flags, poured_seconds=poured, sessions=sessions)
    print("\n".join(bench_default.lines(made)))
    targets = {
        "rtf": bench_default.MOST_RTF, "latency": bench_default.MOST_LATENCY,
        "memory": bench_default.MOST_MEMORY,
    }  # fmt: skip
    derived = {"clip": made.clip, "cost": made.cost, "rtf": made.rtf, "memory": made.memory}
    return {**dataclasses.asdict(made), **derived, "targets": targets}


def smaller_machines(wav: Path, flags: Sequence[str]) -> list[dict[str, Any]]:
    """The default run on this machine, and with cores and arithmetic taken away."""
    print("\nThe default run on smaller machines, one session in real time")
    tried = [bench_machines.try_machine(one, wav, flags) for one in bench_machines.machines()]
    print("\n".join(bench_machines.lines(tried)))
    bound = bench_machines.IN_STEP
    return [{**dataclasses.asdict(one), "in_step": one.in_step, "in_step_bound": bound} for one in tried]


def starts(flags: Sequence[str]) -> list[dict[str, Any]]:
    """A start with nothing kept, the one after it, and what each costs while nobody speaks."""
    print(f"\nTwo starts {' '.join(flags)}".rstrip() + ", without speech")
    made = bench_start.measure_starts(flags)
    print("\n".join(bench_start.lines(made)))
    return [{**dataclasses.asdict(one), "quiet": one.quiet} for one in made]


def hops(messages: int) -> list[dict[str, Any]]:
    """One-way cost of each hop by itself."""
    print(f"\nEach hop by itself, one way, {messages} messages")
    print(f"  {'hop':<10}{'payload':>12}{'median':>12}{'p99':>12}")
    measured = measure_hops(messages)
    for hop in measured:
        print(f"  {hop.name:<10}{hop.payload:>10} B{hop.median * 1e3:>9.2f} ms{hop.p99 * 1e3:>9.2f} ms")
    return [dataclasses.asdict(hop) for hop in measured]


def plumbing(wav: Path) -> list[dict[str, Any]]:
    """The whole chain with nothing computed."""
    print("\nThe plumbing alone: the default run with --passthrough, one session")
    with ManagedRun("--passthrough") as run:
        reports = speak(run, wav)
    _print_client(reports)
    return reports


def capacity(wav: Path, seconds: float, most: int) -> int:
    """How many 24 fps sessions the gateway and two encoders carry before frames come late."""
    print(
        "\nSessions at 24 fps over the plumbing with two encoders,"
        f" {seconds:g} s each; the client runs on this machine too"
    )
    good, bad = 0, most + 1
    with ManagedRun("--passthrough", "--encoders", "2", "--max-sessions", "1000") as run:
        tried = 1
        while good < tried < bad:
            late, problems = _load(run, wav, seconds, tried)
            print(f"  {tried:>4} sessions: {late} frames late" + (f"; {problems}" if problems else ""))
            if late or problems:
                bad = tried
            else:
                good = tried
            tried = min(good * 2, most) if bad > most else (good + bad) // 2
    more = " or more" if bad > most else ""
    print(f"  carried without a late frame: {good}{more}")
    return good


def _load(run: ManagedRun, wav: Path, seconds: float, sessions: int) -> tuple[int, str]:
    try:
        reports = speak(run, wav, seconds=seconds, sessions=sessions)
    except RunError as error:
        return 0, str(error).splitlines()[-1]
    problems = [problem for report in reports for problem in report["problems"]]
    return sum(report["frames_late"] for report in reports), problems[0] if problems else ""


def _print_client(reports: list[dict[str, Any]]) -> None:
    for report in reports:
        print(
            f"  client: {report['received_fps']:.2f} fps, {report['frames_late']} of"
            f" {report['frames_received']} frames late; a clip's last sample sent to its first frame:"
            f" median {report['latency_median'] * 1e3:.0f} ms, p95 {report['latency_p95'] * 1e3:.0f} ms"
        )
        for problem in report["problems"]:
            print(f"  FAILED {problem}")


def _parts(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    unknown = [name for name in names if name not in PARTS + EXTRA]
    if unknown:
        raise argparse.ArgumentTypeError(f"no part {unknown[0]}; choose some of {', '.join(PARTS + EXTRA)}")
    return names


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--quick", action="store_true", help="small and fast")
    parser.add_argument(
        "--only", metavar="PART,…", type=_parts, default=PARTS, help=f"some of {', '.join(PARTS + EXTRA)}"
    )
    parser.add_argument(
        "--poured", type=float, metavar="SECONDS",
        help="speech for the default run's speed with nothing holding it back (default 20; 0 leaves it out)",
    )  # fmt: skip
    parser.add_argument(
        "--sessions", type=int, default=1, metavar="N",
        help="sessions that speak to the default run at the same time (default 1)",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument("--wav", type=Path, help="speech to send (default: a synthetic voice)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
