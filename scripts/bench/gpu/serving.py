"""Measures all of serving on a GPU by one command. `docs/lab/gpu-goals.md` has the newest results.

    python -m scripts.bench.gpu.serving --out measured                 all of it, about 20 minutes on an H200
    python -m scripts.bench.gpu.serving --out measured --budget 300    as much as fits into five minutes
    python -m scripts.bench.gpu.serving --list
    python -m scripts.bench.gpu.serving --quick --only decode          small, on a CPU as well

Each part is a process of its own with a bound on its time. One that fails or hangs leaves the others alone.
Its output is shown as it comes and kept in the folder, with the live runs' JSON.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from protocol.process.settings import ROOT

CUDA_TESTS = ("tests/gpu_worker/test_engine_on_gpu.py", "tests/encoder_worker/test_fast_kl.py")


@dataclass(frozen=True)
class Part:
    """A command (words after the interpreter's) and the seconds it takes, as a rule and at most.

    `gpus`: how many it needs. `quick`: its words on a small machine, none if it shows nothing there.
    """

    name: str
    text: str
    words: tuple[str, ...]
    seconds: float
    gpus: int = 1
    quick: tuple[str, ...] = ()

    @property
    def bound(self) -> float:
        return 60 + 2 * self.seconds


def parts(out: Path, model: Path, caches: Path, speech: float | None = None) -> list[Part]:
    """All of them, the most important first.

    Args:
        out: folder of the results.
        model: folder of the model with random weights.
        caches: folder of compiled code.
        speech: seconds of speech of each live run, in place of its own.
    """
    spoken = [] if speech is None else ["--seconds", str(speech)]

    def live(name: str, text: str, seconds: float, *flags: str, gpus: int = 1, size: int = 512) -> Part:
        words = ["-m", "scripts.bench.gpu.live", "--model", "full", "--model-dir", str(model)]
        words += ["--width", str(size), "--height", str(size)]
        if "--quality" not in flags:
            words += ["--quality", "fixed", "--fps", "24"]
            words += [] if "--no-compile-unet" in flags else ["--compile-unet"]
        words += ["--caches", str(caches), "--json", str(out / f"{name}.json")]
        places = (
            () if "--gpu-devices" in flags else ("--gpu-devices", "cuda:0", "--encoder-devices", "cuda:0")
        )
        small = ["-m", "scripts.bench.gpu.live", "--model", "tiny", "--seconds", "2", "--fps", "8"]
        small += ["--gpu-devices", "cpu", "--encoder-devices", "cpu", "--json", str(out / f"{name}.json")]
        small += ["--turn", "2", "--seconds", "8"] if "--turn" in flags else []
        seconds -= 0 if speech is None else 60 - speech
        return Part(name, text, (*words, *places, *flags, *spoken), seconds, gpus, tuple(small))

    ladder = ("-m", "scripts.bench.gpu.decode")
    tests = ("-m", "pytest", "-c", os.devnull, "--rootdir", str(ROOT), "-q", "-s", "-p", "no:cacheprovider")
    apart = ("--gpu-devices", "cuda:0", "--encoder-devices", "cuda:1")
    many = ("--late-start", "3", "--decoder", "tiny")
    team = ("--gpu-devices", "cuda:0+cuda:1", "--encoder-devices", "cuda:1")
    team_decoding = (*team[:2], "--encoder-devices", "cuda:0,cuda:1", "--encoders", "2")
    both = ("--gpu-devices", "cuda:0,cuda:1", "--encoder-devices", "cuda:0,cuda:1", "--encoders", "2")
    cards = "cuda:0,cuda:1,cuda:2,cuda:3"
    team_of_four = ("--gpu-devices", cards.replace(",", "+"), "--encoder-devices", "cuda:3")
    all_four = ("--gpu-devices", cards, "--encoder-devices", cards, "--encoders", "4")
    return [
        Part("tests", "the CUDA tests of engine and decoder", (*tests, *CUDA_TESTS), 150),
        live("512", "512², exact, one session of 60 s; a cold and a warm start", 150, "--starts", "2"),
        live("512-two", "512², exact, two sessions of 60 s", 110, "--sessions", "2"),
        live("512-auto", "512², what the card holds, one session of 60 s; a first and a second start", 170,
             "--quality", "auto", "--starts", "2"),
        live("512-silence", "512², exact, half of 64 s silent: --silence denoise and loop", 250,
             "--turn", "8", "--seconds", "64"),
        live("768-auto", "768², what the card holds, one session of 60 s; a first and a second start", 200,
             "--quality", "auto", "--starts", "2", size=768),
        live("512-four", "512², exact, late start 3, small decoder, four sessions of 60 s", 110,
             *many, "--sessions", "4"),
        live("512-five-fast", "512², fast, late start 3, small decoder, five sessions of 60 s", 110,
             *many, "--tier", "fast", "--sessions", "5"),
        live("512-eight", "512², exact, late start 3, small decoder, eight sessions on two GPUs", 120,
             *both, *many, "--sessions", "8", gpus=2),
        live("512-ten-fast", "512², fast, late start 3, small decoder, ten sessions on two GPUs", 120,
             *both, *many, "--tier", "fast", "--sessions", "10", gpus=2),
        live("512-three-fast", "512², fast, late start 3, small decoder, three sessions that begin together",
             110, *many, "--tier", "fast", "--sessions", "3"),
        live("512-three-4", "512², fast, late start 3, small decoder, clips of 4 frames, three sessions", 110,
             *many, "--tier", "fast", "--clip-frames", "4", "--sessions", "3"),
        live("512-three-apart", "the same with clips of 12 frames, sessions a third of a clip apart", 110,
             *many, "--tier", "fast", "--sessions", "3", "--apart", "0.1667"),
        live("512-tiny", "512², exact, late start 3, small decoder, clips of 4 frames: memory at rest", 130,
             *many, "--clip-frames", "4", "--settle"),
        live("512-6", "512², exact, clips of 6 frames, 60 s", 100, "--clip-frames", "6"),
        live("512-4", "512², exact, clips of 4 frames, 60 s", 100, "--clip-frames", "4"),
        live("512-3", "512², exact, clips of 3 frames, 60 s", 100, "--clip-frames", "3"),
        live("512-2", "512², exact, clips of 2 frames, 60 s", 100, "--clip-frames", "2"),
        live("768-fast", "768², fast tier, one session of 60 s", 120, "--tier", "fast", size=768),
        live("512-two-fast", "512², fast, two sessions of 60 s", 110, "--tier", "fast", "--sessions", "2"),
        Part("decode", "the decode ladder", (*ladder, "--chunks", "2,3,4,6"), 120, 1, (*ladder, "--quick")),
        live("768", "768², exact, one session of 20 s", 70, "--seconds", "20", size=768),
        live("768-late", "768², exact, following clips of three steps (--late-start 3), 60 s", 110,
             "--late-start", "3", size=768),
        live("768-apart", "768², fast, decoding on the second GPU, 60 s", 130, *apart, "--tier", "fast",
             gpus=2, size=768),
        live("768-both", "768², fast, two sessions on two GPUs", 130, *both, "--tier", "fast",
             "--sessions", "2", gpus=2, size=768),
        live("768-team", "768², exact, one session of 60 s on two GPUs that share each clip", 150, *team,
             gpus=2, size=768),
        live("768-team-6", "the same with clips of 6 frames, decoding on both GPUs", 150, *team_decoding,
             "--clip-frames", "6", gpus=2, size=768),
        live("768-team-4", "the same with clips of 4 frames and late start 2", 150, *team_decoding,
             "--clip-frames", "4", "--late-start", "2", gpus=2, size=768),
        live("768-team-2", "the same with clips of 2 frames and late start 2", 150, *team_decoding,
             "--clip-frames", "2", "--late-start", "2", gpus=2, size=768),
        live("768-team-auto", "768², what a team of two holds, one session of 60 s", 200, *team_decoding,
             "--quality", "auto", "--compile-unet", gpus=2, size=768),
        live("512-team", "512², exact, one session of 30 s on two GPUs that share each clip", 110, *team,
             "--seconds", "30", gpus=2),
        live("768-team-four", "768², exact, one session of 60 s on four GPUs that share each clip", 150,
             *team_of_four, gpus=4, size=768),
        live("512-team-four", "512², exact, one session of 30 s on four GPUs that share each clip", 110,
             *team_of_four, "--seconds", "30", gpus=4),
        live("768-teams", "768², exact, two sessions of 60 s on two teams of two GPUs", 150,
             "--gpu-devices", "cuda:0+cuda:1,cuda:2+cuda:3", "--encoder-devices", "cuda:1,cuda:3",
             "--encoders", "2", "--sessions", "2", gpus=4, size=768),
        live("512-twenty-fast", "512², fast, late start 3, small decoder, twenty sessions on four GPUs", 120,
             *all_four, *many, "--tier", "fast", "--sessions", "20", gpus=4),
        live("512-sixteen", "512², exact, late start 3, small decoder, sixteen sessions on four GPUs", 120,
             *all_four, *many, "--sessions", "16", gpus=4),
        live("512-three", "512², exact, late start 3, small decoder, three sessions of 60 s", 110,
             *many, "--sessions", "3"),
        Part("tiles", "the decoder's convolutions, every tile", ("-m", "scripts.bench.gpu.decode_tiles"), 45),
        Part("late", "late starts on the bundled model", ("-m", "demo.factory.evaluate.late_start"), 90, 1,
             ("-m", "demo.factory.evaluate.late_start", "--quick", "--steps", "2")),
        live("512-eager", "512², without --compile-unet, 20 s", 70, "--no-compile-unet", "--seconds", "20"),
        Part("decode-compiled", "torch.compile in the decode ladder",
             (*ladder, "--compile", "--only", "compile", "--sizes", "512"), 100),
    ]  # fmt: skip


def run(part: Part, words: Sequence[str], out: Path) -> str:
    """Runs a part. Its output is shown and kept. Returns how it ended."""
    begin = time.monotonic()
    print(f"\n== {part.name}: {part.text}", flush=True)
    with (out / f"{part.name}.txt").open("w") as kept:
        process = subprocess.Popen(
            [sys.executable, "-u", *words],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        # asked to end, a live run stops its stages itself
        timers = [
            threading.Timer(part.bound, process.terminate),
            threading.Timer(part.bound + 20, process.kill),
        ]
        for timer in timers:
            timer.daemon = True
            timer.start()
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            kept.write(line)
            kept.flush()
        status = process.wait()
        for timer in timers:
            timer.cancel()
    return f"status {status} in {time.monotonic() - begin:.0f} s"


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    begin = time.monotonic()
    ended: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="echomimic-serving-") as scratch:
        out = args.out or Path(scratch) / "out"
        every = parts(out.absolute(), Path(scratch) / "model", Path(scratch) / "caches", args.speech)
        if args.list:
            for part in every:
                print(f"{part.name:<18}{part.seconds:>5.0f} s, {part.gpus} GPU: {part.text}")
            return 0
        out.mkdir(parents=True, exist_ok=True)
        gpus = _gpus()
        for part in every:
            left = args.budget - (time.monotonic() - begin)
            words = part.quick if args.quick else part.words
            if args.only and part.name not in args.only.split(","):
                continue
            if not words or (not args.quick and part.gpus > gpus):
                ended[part.name] = "left out: nothing to see here" if not words else f"left out: {gpus} GPUs"
            elif left < part.seconds:
                ended[part.name] = f"left out: {left:.0f} s left, it takes {part.seconds:.0f}"
            else:
                ended[part.name] = run(part, words, out)
        print()
        for name, how in ended.items():
            print(f"{name:<18}{how}")
    return (
        0 if all(not how.startswith("status") or how.startswith("status 0") for how in ended.values()) else 1
    )


def _gpus() -> int:
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts.bench.gpu.serving",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the output and the JSON")
    parser.add_argument("--only", metavar="PART,…", help="these parts alone")
    parser.add_argument("--budget", type=float, default=3600.0, metavar="S", help="seconds for all of it")
    parser.add_argument("--speech", type=float, metavar="S", help="seconds of speech of each live run")
    parser.add_argument("--list", action="store_true", help="name the parts and their times")
    parser.add_argument("--quick", action="store_true", help="the small versions, for any machine")
    return parser


if __name__ == "__main__":
    sys.exit(main())
