"""Measure this machine: the default run, what the plumbing costs, and how many sessions it carries.

    python -m scripts.bench                    everything, about four minutes
    python -m scripts.bench --quick            small and fast, for tests
    python -m scripts.bench --only machines    with one core, and without bfloat16

Other flags go to the run: `python -m scripts.bench --only default --compile-unet --steps 2`.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from protocol.wire.clock import SAMPLE_RATE
from scripts.bench.common.tools import machine, speak
from scripts.bench.host import default as bench_default
from scripts.bench.host import machines as bench_machines
from scripts.bench.host.hops import measure_hops
from scripts.run.managed import ManagedRun, RunError
from scripts.talk.sound import SoundError, read_sound, synthetic_voice, write_wav

PARTS = ("default", "hops", "plumbing", "capacity")
#: Left out unless named: it starts the run four times.
EXTRA = ("machines",)


@dataclass(frozen=True)
class Sizes:
    """How long and how much: `speech` seconds per session, messages per hop, most sessions tried; `poured`
    seconds of speech where nothing holds it back."""

    speech: float
    messages: int
    most: int
    poured: float


def main(argv: Sequence[str] | None = None) -> int:
    args, flags = _parser().parse_known_args(argv)
    sizes = Sizes(4.0, 100, 2, 3.0) if args.quick else Sizes(20.0, 600, 64, 20.0)
    logging.getLogger("protocol").setLevel(logging.ERROR)  # workers that come and go are the measurement
    parts = args.only.split(",") if args.only else PARTS
    print(f"{machine()}; {time.strftime('%Y-%m-%d')}")
    try:
        with tempfile.TemporaryDirectory() as folder:
            wav = Path(folder) / "speech.wav"
            speech = read_sound(args.wav) if args.wav else synthetic_voice(sizes.speech)
            length = round(sizes.speech * SAMPLE_RATE)
            write_wav(wav, np.tile(speech, -(-length // len(speech)))[:length])
            if "default" in parts:
                default_run(wav, flags, sizes.poured)
            if "machines" in parts:
                smaller_machines(wav, flags)
            if "hops" in parts:
                hops(sizes.messages)
            if "plumbing" in parts:
                plumbing(wav)
            if "capacity" in parts:
                capacity(wav, min(sizes.speech, 8.0), sizes.most)
    except (RunError, SoundError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def default_run(wav: Path, flags: Sequence[str], poured: float) -> None:
    """What the run costs and holds, how fast it could go, how soon it answers."""
    print(f"\nThe default run {' '.join(flags)}".rstrip() + ", one session in real time")
    print("\n".join(bench_default.lines(bench_default.measure_default(wav, flags, poured_seconds=poured))))


def smaller_machines(wav: Path, flags: Sequence[str]) -> None:
    """The default run with cores and arithmetic taken away."""
    print("\nThe default run on smaller machines, one session in real time")
    tried = [bench_machines.try_machine(one, wav, flags) for one in bench_machines.machines()]
    print("\n".join(bench_machines.lines(tried)))


def hops(messages: int) -> None:
    """One-way cost of each hop by itself."""
    print(f"\nEach hop by itself, one way, {messages} messages")
    print(f"  {'hop':<10}{'payload':>12}{'median':>12}{'p99':>12}")
    for hop in measure_hops(messages):
        print(f"  {hop.name:<10}{hop.payload:>10} B{hop.median * 1e3:>9.2f} ms{hop.p99 * 1e3:>9.2f} ms")


def plumbing(wav: Path) -> None:
    """The whole chain with nothing computed."""
    print("\nThe plumbing alone: the default run with --passthrough, one session")
    with ManagedRun("--passthrough") as run:
        _print_client(speak(run, wav))


def capacity(wav: Path, seconds: float, most: int) -> None:
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="small and fast")
    parser.add_argument("--only", metavar="PART,…", help=f"some of {', '.join(PARTS + EXTRA)}")
    parser.add_argument("--wav", type=Path, help="speech to send (default: a synthetic voice)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
