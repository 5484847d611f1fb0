"""One row per optimisation of the denoiser, each with its time, memory and error.

Run it as `python -m scripts.bench.gpu.ladder`.

Errors are those of the latents after all steps against the faithful denoiser, eager, in float32 (TF32 off),
with the same random weights before they are rounded. A row has the larger of the first and the last clip's.
`--quick` runs a tiny model, as on a CPU.
Clips are timed back to back. `--paced` also times some as live serving makes them: one each half second. The
GPU is idle between them, and no lasting load lowers its clock.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import json
import statistics
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpu_worker.denoiser.loading import Models
from gpu_worker.denoiser.model import attention
from gpu_worker.denoiser.pipeline import ClipDenoiser
from scripts.bench.gpu.ladder.model import ClipInputs, as_type, make_clip, make_models, to_half
from scripts.bench.gpu.ladder.profile import profile_step
from scripts.bench.gpu.ladder.rows import ROWS, Rung

FRAMES, STEPS = 12, 6
PACED = 12
#: Seconds between the beginnings of paced clips: 12 frames at 24 a second.
PERIOD = 0.5


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    device = torch.device("cuda" if torch.cuda.is_available() and not args.cpu else "cpu")
    sides = [8] if args.quick else [int(size) // 8 for size in args.sizes.split(",")]
    frames, steps = (4, 2) if args.quick else (args.frames, STEPS)
    rows = _chosen(args.rows, args.slow, device)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    say(_heading(device))
    _keep_to(args.memory)
    models = make_models(device, steps, tiny=args.quick)
    clips = {side: make_clip(models, side, frames) for side in sides}
    wanted = {side: _reference(models, clip, side) for side, clip in clips.items()}
    dtype = getattr(torch, args.dtype)
    to_half(models, dtype)
    _free()
    results: dict[str, Any] = {"machine": _heading(device), "dtype": args.dtype, "rows": {}}
    for side in sides:
        clip = as_type(clips[side], dtype)
        say(f"\n{8 * side}², {frames} frames, {steps} steps, {args.dtype}\n")
        say(
            "| row | s a clip, median (least–most) | of eager | peak GB | error | cosine | ready s |"
            + (" at one clip each half second |" if args.paced else "")
        )
        say("|---" * (8 if args.paced else 7) + "|")
        first = None
        for row in rows:
            paced = PACED if args.paced == "all" or row.key in args.paced.split(",") else 0
            made = _measure(row, models, clip, wanted[side], args.repeat, paced)
            first = first or made.get("median")
            say(_line(row, made, first) + (f" {_spread(made.get('paced'))} |" if args.paced else ""))
            results["rows"][f"{8 * side}/{row.key}"] = made
            _free()
        if args.profile:
            profile_step(models, clip, args.profile.split(","), say, results)
        if args.json:
            Path(args.json).write_text(json.dumps(results, indent=1))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.bench.gpu.ladder",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--sizes", default="512,768", help="sides of the picture (default %(default)s)")
    parser.add_argument(
        "--rows", default="", help=f"of {', '.join(row.key for row in ROWS)}; all if not given"
    )
    parser.add_argument(
        "--slow",
        action="store_true",
        help="with the rows that torch.compile the whole network, and each step's reuse by itself",
    )
    parser.add_argument("--frames", type=int, default=FRAMES, help="of a clip (default %(default)s)")
    parser.add_argument(
        "--memory",
        type=float,
        default=76,
        help="gigabytes of the card to use, 0 for all (default %(default)s)",
    )
    parser.add_argument("--repeat", type=int, default=5, help="clips timed a row (default %(default)s)")
    parser.add_argument(
        "--paced", nargs="?", const="all", default="", metavar="ROWS",
        help=f"rows also timed by {PACED} clips begun every {PERIOD} s, 7 s a row; all if none is named",
    )  # fmt: skip
    parser.add_argument("--dtype", default="float16", help="arithmetic of all rows (default %(default)s)")
    parser.add_argument("--profile", default="", help="rows whose clip is profiled by class of kernel")
    parser.add_argument("--json", help="file for the figures")
    parser.add_argument("--quick", action="store_true", help="a tiny model, one small size")
    parser.add_argument("--cpu", action="store_true", help="on the CPU, whatever there is")
    return parser


def _chosen(keys: str, slow: bool, device: torch.device) -> list[Rung]:
    if keys:
        by_key = {row.key: row for row in ROWS}
        unknown = [key for key in keys.split(",") if key not in by_key]
        if unknown:
            raise SystemExit(f"no row {unknown[0]}; there are {', '.join(by_key)}")
        return [by_key[key] for key in keys.split(",")]
    return [row for row in ROWS if (slow or not row.slow) and (device.type == "cuda" or not row.cuda)]


def _heading(device: torch.device) -> str:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    versions = f"torch {torch.__version__}"
    if device.type == "cuda":
        import triton

        versions += f", cuDNN {torch.backends.cudnn.version()}, Triton {triton.__version__}"
    return f"{name}, {versions}, {datetime.date.today().isoformat()}"


def _reference(models: Models, clip: ClipInputs, side: int) -> Tensor:
    begin = time.perf_counter()
    denoiser = ClipDenoiser(models)
    # frame by frame, since in float32 torch's attention of all frames at once takes tens of gigabytes
    attention.activate(attention.Backend("framewise", "one frame at a time", attend=_framewise))
    try:
        latents = denoiser.sample(clip.noise, denoiser.project_audio(clip.tokens), clip.pose, clip.reference)
    finally:
        attention.activate(attention.SDPA)
    seconds, size = time.perf_counter() - begin, latents.std().item()
    held = f", {torch.cuda.max_memory_reserved() / 1e9:.1f} GB held" if models.device.type == "cuda" else ""
    say(f"float32 eager, {8 * side}²: {seconds:.1f} s, latents' standard deviation {size:.3f}{held}")
    _free()
    return latents.double()


def _framewise(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """torch's attention, (batch, tokens, width) in and out, one of the batch at a time."""
    each = zip(q.split(1), k.split(1), v.split(1), strict=True)
    return torch.cat([attention.sdpa(*one, heads) for one in each])


def _keep_to(gigabytes: float) -> None:
    """Holds this process to so much of a larger card's memory, by giving back what is held unused."""
    if torch.cuda.is_available() and gigabytes:
        whole = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, gigabytes * 1e9 / whole))


def _measure(
    row: Rung, models: Models, clip: ClipInputs, wanted: Tensor, repeat: int, paced: int = 0
) -> dict[str, Any]:
    cuda = models.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    begin = time.perf_counter()
    try:
        with row.make(models, clip) as sample:
            latents = sample().double()
            _wait(cuda)
            ready = time.perf_counter() - begin
            error = _error(latents, wanted)
            cosine = torch.nn.functional.cosine_similarity(latents.flatten(), wanted.flatten(), 0).item()
            times = [_seconds(sample, cuda) for _ in range(repeat + 1)][1:]
            slow = _paced(sample, cuda, paced)
            error = max(error, _error(sample().double(), wanted))  # kernels that race differ by clip
            del latents
    except Exception as problem:  # one row's failure leaves the others
        traceback.print_exc()
        return {"failed": f"{type(problem).__name__}: {problem}"}
    return {
        "times": times, "median": statistics.median(times), "least": min(times), "most": max(times),
        "error": error, "cosine": cosine, "ready": ready, "paced": slow,
        "peak": torch.cuda.max_memory_allocated() if cuda else 0,
    }  # fmt: skip


def _error(made: Tensor, wanted: Tensor) -> float:
    return float((made - wanted).norm() / wanted.norm())


def _seconds(sample: Callable[[], Tensor], cuda: bool) -> float:
    begin = time.perf_counter()
    sample()
    _wait(cuda)
    return time.perf_counter() - begin


def _paced(sample: Callable[[], Tensor], cuda: bool, count: int) -> list[float]:
    """Seconds of each of `count` clips that begin every PERIOD, or when the one before ends if that is later.

    One more comes first: it still has the clock that the load before it left.
    """
    times = []
    due = time.perf_counter() + PERIOD
    for _ in range(count + 1 if count else 0):
        time.sleep(max(0.0, due - time.perf_counter()))
        due = max(due, time.perf_counter()) + PERIOD
        times.append(_seconds(sample, cuda))
    return times[1:]


def _spread(times: list[float] | None) -> str:
    if not times:
        return ""
    return f"{statistics.median(times):.4f} ({min(times):.4f}–{max(times):.4f})"


def _line(row: Rung, made: dict[str, Any], first: float | None) -> str:
    if "failed" in made:
        return f"| {row.text} | failed: {made['failed'].splitlines()[0][:100]} | | | | | |"
    ratio = made["median"] / first if first else 1.0
    return (
        f"| {row.text} | {_spread(made['times'])} | {ratio:.3f} "
        f"| {made['peak'] / 1e9:.2f} | {made['error']:.2e} | {made['cosine']:.6f} | {made['ready']:.1f} |"
    )


def _wait(cuda: bool) -> None:
    if cuda:
        torch.cuda.synchronize()


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


if __name__ == "__main__":
    raise SystemExit(main())
