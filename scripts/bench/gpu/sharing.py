"""What the stages cost each other on one GPU: the denoiser alone, and beside the decoder and Whisper.

    python -m scripts.bench.gpu.sharing --ways slices,mps,mps-below     about 90 s on an H200
    python -m scripts.bench.gpu.sharing --model tiny --seconds 1        small, on a CPU as well
    python -m scripts.bench.gpu.sharing --ways mps --then python -m scripts.bench.gpu.serving --only 512-four

Each stage is a process of its own, with the code that serves and a model of random weights. The denoiser
makes one clip straight after the other. The others make as many clips a second as `--every` says.

Ways: `slices` is a GPU that gives its processes slices of time in turn. `mps` is CUDA's multi-process
service, where kernels run beside each other. With `mps-below` the denoiser's kernels come after the others'.
`--then` runs a command under the last way, such as a live run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from protocol.process.settings import ROOT, Settings, load_settings
from scripts.bench.common.tools import machine
from scripts.bench.gpu.live import caches, model_flags
from scripts.bench.gpu.mps import PRIORITY, multi_process_service

WAYS = ("slices", "mps", "mps-below")
#: Processes of the rows. The denoiser is timed in each.
ROWS: tuple[tuple[str, ...], ...] = (
    ("denoiser",),
    ("denoiser", "decoder"),
    ("denoiser", "whisper"),
    ("denoiser", "whisper-half"),
    ("denoiser", "decoder", "whisper"),
    ("decoder",),
    ("whisper",),
    ("whisper-half",),
)
#: Sessions whose demand is worked out.
SESSIONS = 4
#: Makes one clip and returns the seconds that it took.
OneClip = Callable[[], float]


# ---------------------------------------------------------------------- one stage's process


def denoiser(settings: Settings) -> OneClip:
    """The GPU worker's engine. Clips of one session, each with its inputs prepared before."""
    from gpu_worker.engine.serve import DenoiserEngine

    engine = DenoiserEngine(settings)
    engine.load()
    fps = settings.fps or 24
    engine.make_ready_for(fps)
    seq = 0

    def make() -> float:
        nonlocal seq
        inputs = engine.prepare(engine.trial_clip("bench", seq, fps))
        seq += 1
        begin = time.perf_counter()
        engine.denoise(inputs)
        return time.perf_counter() - begin

    return make


def decoder(settings: Settings) -> OneClip:
    """The encoder worker's decoder, without JPEGs."""
    from encoder_worker.by_name import chunk_of, fast_kind, own_name
    from encoder_worker.decode import ClipDecoder
    from encoder_worker.vae.decoders import load_decoder
    from protocol.model.config import ModelConfig
    from protocol.model.hardware.devices import decoder_device
    from protocol.model.vae_folder import VaeFolder

    config, name = ModelConfig.load(settings.config), own_name(settings)
    folder = VaeFolder.small_of(config) if name == "tiny" else VaeFolder.of(config)
    frames = settings.frames_a_clip
    made = ClipDecoder(
        load_decoder(folder),
        decoder_device(settings),
        settings.dtype,
        chunk_of(name, frames),
        fast_kind(name),
    )
    width, height = config.picture_size(settings)
    size = (height // folder.factor, width // folder.factor)
    made.warm_up(*size)
    latents = np.random.default_rng(0).standard_normal((frames, made.channels, *size)).astype(np.float16)

    def make() -> float:
        begin = time.perf_counter()
        for _ in made.decode(latents):
            pass
        return time.perf_counter() - begin

    return make


def whisper(settings: Settings) -> OneClip:
    """The audio worker's features of a clip."""
    from audio_worker.features import FeatureExtractor
    from audio_worker.gpu_features import load_on_gpu
    from audio_worker.ring import WINDOW
    from audio_worker.sessions import DueClip
    from protocol.model.config import ModelConfig

    config = ModelConfig.load(settings.config)
    features = load_on_gpu(config, settings) or FeatureExtractor.load(config, settings)
    features.warm_up(1)
    sound = np.random.default_rng(0).standard_normal(WINDOW, np.float32) * np.float32(0.1)
    clip = DueClip("bench", 0, 0, 0, 24, settings.frames_a_clip, "none", "none", sound, 0.0)

    def make() -> float:
        begin = time.perf_counter()
        features.tokens([clip])
        return time.perf_counter() - begin

    return make


def whisper_half(settings: Settings) -> OneClip:
    """The same in half precision."""
    return whisper(replace(settings, dtype="float16"))


STAGES: Mapping[str, Callable[[Settings], OneClip]] = {
    "denoiser": denoiser, "decoder": decoder, "whisper": whisper, "whisper-half": whisper_half,
}  # fmt: skip


def serve(stage: str, flags: Sequence[str]) -> None:
    """Makes the stage ready, then does the orders of standard input: seconds to go on, and seconds a clip."""
    from protocol.model.hardware.gpu_allocator import use_expandable_segments
    from protocol.process.c_allocator import keep_freed_memory

    use_expandable_segments()
    keep_freed_memory()
    # Libraries print, so the answers have a channel of their own.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    one_clip = STAGES[stage](load_settings(flags))
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        times: list[float] = []
        begin, due = time.monotonic(), 0.0
        while (now := time.monotonic() - begin) < order["seconds"]:
            if now < due:
                time.sleep(min(due - now, order["seconds"] - now))
                continue
            times.append(one_clip())
            due += order["every"]
        print(json.dumps({"times": times, "seconds": time.monotonic() - begin}), file=answers, flush=True)


# ---------------------------------------------------------------------- the measurement


class TimedStage:
    """A stage's process, from its start until `close`."""

    def __init__(self, stage: str, flags: Sequence[str], environment: Mapping[str, str]) -> None:
        self.stage = stage
        words = [sys.executable, "-m", "scripts.bench.gpu.sharing", "--stage", stage, *flags]
        self._process = subprocess.Popen(
            words, cwd=ROOT, env=dict(environment), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def wait_ready(self) -> None:
        """Waits until the stage can make clips."""
        if self._line() != "ready":
            raise RuntimeError(f"the process of {self.stage} ended with status {self._process.wait()}")

    def begin(self, seconds: float, every: float) -> None:
        """Has it make clips for so many seconds, one each `every` seconds, 0 for one after the other."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"seconds": seconds, "every": every}) + "\n")
        self._process.stdin.flush()

    def end(self) -> dict[str, Any]:
        """The seconds of each clip, and of all together."""
        return dict(json.loads(self._line()))

    def close(self) -> None:
        """Ends the process."""
        with contextlib.suppress(OSError):
            self._pipe(self._process.stdin).close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _line(self) -> str:
        return self._pipe(self._process.stdout).readline().strip()

    @staticmethod
    def _pipe(pipe: IO[str] | None) -> IO[str]:
        assert pipe is not None
        return pipe


@contextlib.contextmanager
def stages(
    flags: Sequence[str], environment: Mapping[str, str], below: bool
) -> Iterator[dict[str, TimedStage]]:
    """All stages, ready. below: whether the denoiser's kernels come after the others'."""
    started: dict[str, TimedStage] = {}
    try:
        for stage in STAGES:
            own = {PRIORITY: "1"} if below and stage == "denoiser" else {}
            started[stage] = TimedStage(stage, flags, {**environment, **own})
        for each in started.values():
            each.wait_ready()
        yield started
    finally:
        for each in started.values():
            each.close()


def measure(started: Mapping[str, TimedStage], seconds: float, every: float) -> list[dict[str, Any]]:
    """Every row, printed as it comes."""
    print(f"  {'processes':<30}{'stage':<10}{'clips':>6}{'median':>11}{'p95':>11}{'a clip':>11}", flush=True)
    rows = []
    for names in ROWS:
        for name in names:
            started[name].begin(seconds, 0.0 if name == names[0] else every)
        for name in names:
            told = started[name].end()
            times = told["times"]
            row = {
                "processes": list(names), "stage": name, "clips": len(times),
                "median": statistics.median(times), "p95": float(np.percentile(times, 95)),
                "seconds_a_clip": told["seconds"] / len(times),
            }  # fmt: skip
            rows.append(row)
            shown = "".join(f"{row[k] * 1e3:>8.1f} ms" for k in ("median", "p95", "seconds_a_clip"))
            print(f"  {'+'.join(names):<30}{name:<10}{len(times):>6}{shown}", flush=True)
    return rows


def demand(rows: Sequence[Mapping[str, Any]], lasts: float) -> str:
    """The part of the denoiser's process that some sessions take, beside the other stages."""
    # By medians: single clips at a row's beginning take half as long again.
    alone = next(row["median"] for row in rows if row["processes"] == ["denoiser"])
    beside = next(row["median"] for row in rows if len(row["processes"]) > 2)
    return (
        f"  the others cost {beside / alone - 1:.1%} of a clip; {SESSIONS} sessions take"
        f" {SESSIONS * beside:.3f} of {lasts:.3f} s ({SESSIONS * beside / lasts:.0%})"
    )


@contextlib.contextmanager
def way_of_sharing(way: str) -> Iterator[dict[str, str] | None]:
    """The environment of processes that share the GPU in this way, or None where they cannot."""
    environment = dict(os.environ)
    if way == "slices":
        yield environment
        return
    with multi_process_service(environment) as clients:
        yield None if clients is None else environment | clients


def main(argv: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["--stage"]:
        serve(words[1], words[2:])
        return 0
    args, flags = _parser().parse_known_args(words)
    import logging

    logging.basicConfig(level=logging.INFO, format="  %(message)s")
    print(f"{machine()}; {time.strftime('%Y-%m-%d')}", flush=True)
    result: dict[str, Any] = {"machine": machine(), "date": time.strftime("%Y-%m-%d"), "ways": {}}
    status = 0
    with tempfile.TemporaryDirectory(prefix="echomimic-sharing-") as folder, caches(args.caches or folder):
        flags = [*model_flags(args, Path(folder)), *_flags_of(args), *flags]
        settings = load_settings(flags)
        lasts = settings.frames_a_clip / 24
        for way in args.ways.split(","):
            print(f"\n{way}", flush=True)
            with way_of_sharing(way) as environment:
                if environment is None:
                    continue
                if not args.only_then:
                    begin = time.monotonic()
                    with stages(flags, environment, way == "mps-below") as started:
                        print(f"  ready in {time.monotonic() - begin:.1f} s", flush=True)
                        rows = measure(started, args.seconds, args.every or lasts / SESSIONS)
                    print(demand(rows, lasts), flush=True)
                    result["ways"][way] = rows
                if args.then and way == args.ways.split(",")[-1]:
                    status = subprocess.run(args.then, cwd=ROOT, env=environment, check=False).returncode
    if args.json:
        args.json.write_text(json.dumps(result, indent=1))
    return status


def _flags_of(args: argparse.Namespace) -> list[str]:
    """Four exact sessions: late start 3, small decoder, twelve frames."""
    if args.model != "full":
        return ["--gpu-devices", "cpu", "--encoder-devices", "cpu", "--fps", "24", "--quality", "fixed"]
    return [
        "--quality", "fixed", "--fps", "24", "--compile-unet", "--late-start", "3", "--decoder", "tiny",
        "--clip-frames", "12", "--gpu-devices", "cuda:0", "--encoder-devices", "cuda:0",
    ]  # fmt: skip


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts.bench.gpu.sharing", description=__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--ways", default="slices", help=f"of {', '.join(WAYS)}, with commas")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each row")
    parser.add_argument(
        "--every", type=float, default=0.0, metavar="S",
        help=f"seconds between the clips of decoder and Whisper; those of {SESSIONS} sessions if not given",
    )  # fmt: skip
    parser.add_argument("--model", choices=("full", "tiny"), default="full")
    parser.add_argument("--model-dir", type=Path, help="where the random model is, or is written and stays")
    parser.add_argument("--config", type=Path, help="a model's configuration instead of --model")
    parser.add_argument("--width", type=int, default=None)
    parser.add_argument("--height", type=int, default=None)
    parser.add_argument("--caches", type=Path, help="folder of compiled code; a fresh one if not given")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything as JSON")
    parser.add_argument("--only-then", action="store_true", help="only run the command of --then")
    parser.add_argument(
        "--then", nargs=argparse.REMAINDER, metavar="COMMAND", help="run this under the last way"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
