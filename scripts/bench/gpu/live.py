"""Measure a whole run in real time: late frames, latency, the GPU's idle share, start-up, memory.

    python -m scripts.bench.gpu.live --model full --width 768 --height 768 --sessions 1 --seconds 60
    python -m scripts.bench.gpu.live --model tiny --seconds 3        small, for a CPU

Starts the stages on a model of the official layout with random weights (or on `--model bundled`, or
`--config FILE`), lets real-time clients of version 2 speak to it, and prints tables. Other flags go to the
run: `--compile-unet --gpu-devices cuda:0 --encoder-devices cuda:1`. With `--starts 2` the run is started
twice: the second start finds the first one's compiled code.

With `--turn 8` the clients speak for 8 s, are silent for 8 s over an open microphone, and so on: once with
`--silence denoise` and once with `--silence loop`. The last lines compare the devices' busy time.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from protocol.process.settings import ROOT, load_settings
from protocol.wire.clock import SAMPLE_RATE
from scripts.bench.common.run_figures import RunFigures, device_processes
from scripts.bench.common.tools import EVERY_CLIP, machine, settle, speak
from scripts.bench.common.turns import LOOP_SECONDS, WAYS, conversation, in_room
from scripts.run.managed import ManagedRun, RunError
from scripts.talk.packed_pcm import unpack_pcm
from scripts.talk.sound import SoundError, read_sound, synthetic_voice, write_wav

SAMPLE = ROOT / "demo/factory/evaluate/sample/speech.npz"
#: Variables that name the folders of compiled code.
CACHES = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")
#: Seconds of speech before the measurement: the first clips of a process are not typical.
WARM_UP = 2.0
#: Level of the room's noise in a conversation, in dBFS. Under -60 no detector of voices is needed, which a
#: GPU machine may not have.
ROOM_DB = -70.0
#: Stages tell their figures twice a second.
STATUS_LAG = 1.0


def main(argv: Sequence[str] | None = None) -> int:
    args, flags = _parser().parse_known_args(argv)
    print(f"{machine()}; {time.strftime('%Y-%m-%d')}", flush=True)
    try:
        with tempfile.TemporaryDirectory(prefix="echomimic-live-") as folder, caches(args.caches or folder):
            flags = [*model_flags(args, Path(folder)), "--max-sessions", str(args.sessions + 1), *flags]
            result = (
                measure_silence(args, flags, folder) if args.turn else measure_speech(args, flags, folder)
            )
    except (RunError, SoundError) as error:
        print(f"live_bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    result = {"machine": machine(), "date": time.strftime("%Y-%m-%d"), "flags": flags, **result}
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=1))
    reports = [report for each in result.get("ways", {"": result}).values() for report in each["sessions"]]
    late = sum(report["frames_late"] for report in reports)
    failed = any(report["problems"] for report in reports)
    return 1 if failed or (args.strict and late) else 0


def measure_speech(args: argparse.Namespace, flags: list[str], folder: str) -> dict[str, Any]:
    """Speech without turns. Every clip is denoised, also in its pauses."""
    words = speech(args.wav, max(args.seconds, WARM_UP))
    warm, wav = (Path(folder) / name for name in ("warm.wav", "speech.wav"))
    write_wav(warm, words[: round(WARM_UP * SAMPLE_RATE)])
    write_wav(wav, words[: round(args.seconds * SAMPLE_RATE)])
    return measure(args, [*EVERY_CLIP, *flags], warm, wav)


def measure_silence(args: argparse.Namespace, flags: list[str], folder: str) -> dict[str, Any]:
    """A conversation of which half is silent, in each way of --silence. Prints the share that is saved."""
    turns = max(1, round(args.seconds / (2 * args.turn)))
    words = speech(args.wav, turns * args.turn)
    warm, wav = (Path(folder) / name for name in ("warm.wav", "conversation.wav"))
    # Silence for as long as a gesture lasts, so that its loop is there when the measurement begins.
    quiet = in_room(np.zeros(round(LOOP_SECONDS * SAMPLE_RATE), np.float32), 1, ROOM_DB)
    write_wav(warm, np.concatenate([words[: round(WARM_UP * SAMPLE_RATE)], quiet]))
    write_wav(wav, conversation(words, args.turn, turns, shift=0.0, room_db=ROOM_DB))
    ways = {}
    for way in WAYS:
        print(f"\n--silence {way}", flush=True)
        ways[way] = measure(args, [*flags, "--silence", way], warm, wav)
    print("\n".join(["", *_saved_lines({way: each["stages"]["busy"] for way, each in ways.items()})]))
    return {"ways": ways}


def _saved_lines(busy: Mapping[str, Mapping[str, float]]) -> list[str]:
    """The busy share of each stage's devices in both ways, and how much less the loop has."""
    stages = list(dict.fromkeys(name.split("/")[0] for each in busy.values() for name in each))
    shares = {
        way: {stage: sum(v for name, v in each.items() if name.startswith(stage)) for stage in stages}
        for way, each in busy.items()
    }
    lines = []
    for stage in stages:
        before, after = (shares[way][stage] for way in WAYS)
        saved = f"{1 - after / before:.0%} less" if before else "nothing to compare"
        lines.append(f"  {stage:<16} busy {before:.1%} with denoise, {after:.1%} with loop: {saved}")
    before, after = (sum(shares[way].values()) for way in WAYS)
    saved = f"{1 - after / before:.0%} less" if before else "nothing to compare"
    return [*lines, f"  {'together':<16} busy {before:.1%} with denoise, {after:.1%} with loop: {saved}"]


def measure(args: argparse.Namespace, flags: list[str], warm: Path, wav: Path) -> dict[str, Any]:
    """Every start of the run, and in the last one the sessions. Prints as it goes.

    Args:
        args: of the command.
        flags: of the run.
        warm: the sound that each session sends before the measurement.
        wav: the sound that is measured.
    """
    starts: list[float] = []
    notes_of_starts: list[list[str]] = []
    while True:
        with ManagedRun(*flags, timeout=args.timeout) as run:
            starts.append(run.ready_in)
            print(f"start {len(starts)}: ready in {run.ready_in:.1f} s", flush=True)
            if len(starts) < args.starts:
                notes_of_starts.append(_notes(run.log()))
                print("\n".join(f"  {line}" for line in notes_of_starts[-1]), flush=True)
                continue
            if args.settle:
                settle(run.pids())
                print("settled, before anybody spoke:", flush=True)
                print("\n".join(_process_lines(device_processes(run.pids()))), flush=True)
            speak(run, warm, sessions=args.sessions)
            if args.turn:
                settle(run.pids())  # a pause's work, such as a trial's clips, would fall into the silence
            time.sleep(STATUS_LAG)
            before = RunFigures.of(run.metrics())
            reports = speak(run, wav, sessions=args.sessions, apart=args.apart)
            time.sleep(STATUS_LAG)
            figures = RunFigures.of(run.metrics()).since(before)
            processes = device_processes(run.pids())
            notes = _notes(run.log())
        break
    _print_sessions(reports)
    print("\n".join(["", *figures.lines()]))
    print("\n".join(["", *(f"  {line}" for line in notes)]), flush=True)
    print("\n".join(_process_lines(processes)), flush=True)
    return {
        "starts": starts,
        "sessions": reports,
        "stages": figures.as_dict(),
        "processes": processes,
        "notes": notes,
        "notes_of_starts": notes_of_starts,
    }


def _process_lines(processes: Sequence[Mapping[str, Any]]) -> list[str]:
    """The GPU's memory of each process as the driver counts it, and of all."""
    lines = [f"  {one['stage']:<16} process {one['used_mib']} MiB of the GPU's memory" for one in processes]
    return [*lines, f"  together {sum(int(one['used_mib']) for one in processes)} MiB"]


def model_flags(args: argparse.Namespace, folder: Path) -> list[str]:
    """The flags that name the model, which is written to `folder` if it is a random one."""
    size = [
        word for side in ("width", "height") if (n := getattr(args, side)) for word in (f"--{side}", str(n))
    ]
    if args.config:
        return ["--config", str(args.config), *size]
    if args.model == "bundled":
        return size
    import torch

    from scripts.random_model import write_official_layout

    begin = time.monotonic()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    default = 768 if args.model == "full" else 64
    width, height = args.width or default, args.height or default
    root = args.model_dir or folder / "official"
    config: Path = root / "configs/prompts/infer_acc.yaml"
    if not config.is_file():
        # a CPU would take longer for Whisper's padded window than for the small model
        extra = {"steps": 6} if args.model == "full" else {"steps": 2, "whisper_window": "short"}
        write_official_layout(root, model=args.model, device=device, width=width, height=height, **extra)
        print(
            f"model of random weights ({args.model}) written in {time.monotonic() - begin:.1f} s", flush=True
        )
    return ["--config", str(config), "--width", str(width), "--height", str(height)]


def speech(wav: Path | None, seconds: float) -> np.ndarray:
    """Seconds of 16 kHz speech: of a file, the shared recordings, the repository's sample, or made up."""
    if wav is None:
        shared = load_settings([]).shared_dir / "data/audio/news.wav"
        wav = shared if shared.is_file() else None
    if wav is not None:
        voice = read_sound(wav)
    elif SAMPLE.is_file():
        with np.load(SAMPLE, allow_pickle=False) as file:
            voice = (unpack_pcm(file) / 2**15).astype(np.float32)
    else:
        voice = synthetic_voice(seconds)
    wanted = round(seconds * SAMPLE_RATE)
    return np.tile(voice, -(-wanted // len(voice)))[:wanted]


@contextlib.contextmanager
def caches(folder: str | Path) -> Iterator[None]:
    """Stages keep compiled code in `folder` meanwhile. An empty one makes the first start a cold one."""
    before = {name: os.environ.get(name) for name in CACHES}
    os.environ.update({name: str(Path(folder) / name.split("_")[0].lower()) for name in CACHES})
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _print_sessions(reports: list[dict[str, Any]]) -> None:
    print(
        f"\n  {'session':<9}{'frames':>8}{'expected':>10}{'late':>6}{'fps':>8}{'median':>10}{'p95':>10}"
        f"{'sound':>10}"
    )
    for number, report in enumerate(reports):
        print(
            f"  {number:<9}{report['frames_received']:>8}{report['frames_expected']:>10}"
            f"{report['frames_late']:>6}{report['received_fps']:>8.2f}"
            f"{report['latency_median'] * 1e3:>7.0f} ms{report['latency_p95'] * 1e3:>7.0f} ms"
            f"{report['sound_mean'] * 1e3:>7.0f} ms"
        )
        for problem in report["problems"]:
            print(f"  FAILED {problem}")
    print("  median, p95: a clip's last sample sent to its first frame received")
    print("  sound: a frame's sample sent to the frame received, mean over all frames", flush=True)


def _notes(log: str) -> list[str]:
    """Lines of the run's log that say how it ran."""
    words = (
        "attention", "compiled", "warm-up took", "ms a frame", "ms a clip", "fps:", "WARNING", "ERROR",
        "Traceback", "Error", "recorded", "warm", "model ", "fast", "arithmetic",
        "quality", "denoise by", "decode by", "flow by", "sessions", "decoder ", "kernels",
    )  # fmt: skip
    return [line[:300] for line in log.splitlines() if any(word in line for word in words)][:80]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bench.gpu.live", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument("--model", choices=("full", "tiny", "bundled"), default="full")
    parser.add_argument("--model-dir", type=Path, help="where the random model is, or is written and stays")
    parser.add_argument("--config", type=Path, help="a model's configuration instead of --model")
    parser.add_argument("--width", type=int, help="picture width")
    parser.add_argument("--height", type=int, help="picture height")
    parser.add_argument("--sessions", type=int, default=1, metavar="N", help="sessions at once")
    parser.add_argument("--seconds", type=float, default=60.0, help="speech of each session")
    parser.add_argument(
        "--apart", type=float, default=0.0, metavar="S", help="seconds between the beginnings of two sessions"
    )
    parser.add_argument(
        "--turn", type=float, default=0.0, metavar="S", help="speak and be silent in turns of S seconds"
    )
    parser.add_argument(
        "--settle", action="store_true", help="first wait for the work that a run does in its pauses"
    )
    parser.add_argument("--wav", type=Path, help="speech to send; the repository's sample if not given")
    parser.add_argument("--starts", type=int, default=1, help="starts of the run; the last one is spoken to")
    parser.add_argument("--caches", type=Path, help="folder of compiled code; a fresh one if not given")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds a start may take")
    parser.add_argument("--strict", action="store_true", help="exit status 1 if a frame came late")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
