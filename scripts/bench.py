"""Measure this machine: the default run, what the plumbing costs, and how many sessions it carries.

    python -m scripts.bench              everything, about four minutes
    python -m scripts.bench --quick      small and fast, for tests

Other flags go to the run: `python -m scripts.bench --only default --compile-unet --steps 2`.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.bench_hops import measure_hops
from scripts.managed_run import ROOT, ManagedRun, RunError, Samples
from scripts.sound import SoundError, read_sound, synthetic_voice, write_wav

PARTS = ("default", "hops", "plumbing", "capacity")
# What a stage does for one clip, and the metric that times it.
WORK = {
    "audio_worker": ("Whisper features", "features_seconds"),
    "gpu_worker": ("denoise", "denoise_seconds"),
    "encoder_worker": ("VAE decode + JPEG", "clip_seconds"),
}


@dataclass(frozen=True)
class Sizes:
    """How long and how much: `speech` seconds per session, messages per hop, most sessions tried."""

    speech: float
    messages: int
    most: int


def main(argv: Sequence[str] | None = None) -> int:
    args, flags = _parser().parse_known_args(argv)
    sizes = Sizes(4.0, 100, 2) if args.quick else Sizes(20.0, 600, 64)
    logging.getLogger("protocol").setLevel(logging.ERROR)  # workers that come and go are the measurement
    parts = args.only.split(",") if args.only else PARTS
    print(f"{machine()}; {time.strftime('%Y-%m-%d')}")
    try:
        with tempfile.TemporaryDirectory() as folder:
            wav = Path(folder) / "speech.wav"
            speech = read_sound(args.wav) if args.wav else synthetic_voice(sizes.speech)
            write_wav(wav, speech[: round(sizes.speech * 16000)])
            if "default" in parts:
                default_run(wav, flags)
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


def machine() -> str:
    """The machine and the versions that the figures belong to."""
    import torch

    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line
        ]
        cpu = names[0] if names else cpu
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    cores = len(os.sched_getaffinity(0))
    return f"{cpu}, {cores} cores{gpu}, Python {platform.python_version()}, torch {torch.__version__}"


def default_run(wav: Path, flags: Sequence[str]) -> None:
    """Time per stage and clip, and RTF, of a run with `flags` and one session."""
    print(f"\nThe default run {' '.join(flags)}".rstrip() + ", one session")
    with ManagedRun(*flags, timeout=600) as run:
        speak(run, wav, seconds=2.0)  # the first clips of a process are not typical
        before, used, began = run.metrics(), cpu_seconds(run), time.monotonic()
        (report,) = speak(run, wav)
        wall = time.monotonic() - began
        after, now_used = run.metrics(), cpu_seconds(run)
    clip = report["clip_frames"] / report["fps"]
    total = 0.0
    print(f"  {'stage':<16}{'work on a clip':<20}{'median':>10}{'p99':>10}{'mean':>10}{'RTF':>8}")
    for stage, (what, metric) in WORK.items():
        name = f"echomimic_stage_{metric}"
        mean = _mean(before, after, name, stage)
        total += mean / clip
        median, p99 = (_quantile(after, name, stage, q) for q in ("0.5", "0.99"))
        print(f"  {stage:<16}{what:<20}{_ms(median)}{_ms(p99)}{_ms(mean)}{mean / clip:>8.3f}")
    print(f"  RTF of the models together, a clip being {clip:g} s: {total:.3f}")
    for stage, seconds in sorted(now_used.items()):
        memory = sum(
            v for labels, v in after.get("echomimic_stage_resident_bytes", []) if labels["stage"] == stage
        )
        resident = f", {memory / 2**20:.0f} MiB" if memory else ""
        print(f"  {stage:<16}{(seconds - used.get(stage, 0.0)) / wall:.2f} cores{resident}")
    print(f"  ready in {run.ready_in:.1f} s")
    _print_client([report])


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


def speak(run: ManagedRun, wav: Path, *, seconds: float = 0.0, sessions: int = 1) -> list[dict[str, Any]]:
    """Speak to a run with the command-line client, in its own process; its reports."""
    command = [sys.executable, "-m", "scripts.client", str(wav), "--url", run.url, "--v2", "--json"]
    command += ["--sessions", str(sessions), *(["--seconds", str(seconds)] if seconds else [])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode not in (0, 1):
        raise RunError(f"the client failed: {done.stderr.strip()}")
    reports: list[dict[str, Any]] = json.loads(done.stdout)
    return reports


def cpu_seconds(run: ManagedRun) -> dict[str, float]:
    """Processor time used so far by each stage's processes."""
    ticks = os.sysconf("SC_CLK_TCK")
    used: dict[str, float] = {}
    for pid in run.pids():
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
        stage = words[words.index("-m") + 1] if "-m" in words else "other"
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        used[stage] = used.get(stage, 0.0) + (int(fields[11]) + int(fields[12])) / ticks
    return used


def _print_client(reports: list[dict[str, Any]]) -> None:
    for report in reports:
        print(
            f"  client: {report['received_fps']:.2f} fps, {report['frames_late']} of"
            f" {report['frames_received']} frames late; a clip's last sample sent to its first frame:"
            f" median {report['latency_median'] * 1e3:.0f} ms, p95 {report['latency_p95'] * 1e3:.0f} ms"
        )
        for problem in report["problems"]:
            print(f"  FAILED {problem}")


def _quantile(samples: Samples, name: str, stage: str, quantile: str) -> float:
    values = [
        v
        for labels, v in samples.get(name, [])
        if labels["stage"] == stage and labels["quantile"] == quantile
    ]
    return max(values, default=float("nan"))


def _mean(before: Samples, after: Samples, name: str, stage: str) -> float:
    def total(samples: Samples, what: str) -> float:
        return sum(v for labels, v in samples.get(f"{name}_{what}", []) if labels["stage"] == stage)

    count = total(after, "count") - total(before, "count")
    return (total(after, "sum") - total(before, "sum")) / count if count else float("nan")


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:>7.1f} ms"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="small and fast")
    parser.add_argument("--only", metavar="PART,…", help=f"some of {', '.join(PARTS)}")
    parser.add_argument("--wav", type=Path, help="speech to send (default: a synthetic voice)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
