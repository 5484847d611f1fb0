"""One clip on several GPUs: its time against one GPU's, where it goes, and that the numbers are the same.

    python -m scripts.bench.gpu.team --sizes 512,768 --members 1,2,4
    python -m scripts.bench.gpu.team --quick --members 1,2,3          a tiny model, by processes on a CPU

The model is the ladder's, with random weights. Each number of members has a process of its own, since a
process is in one team at most. Errors are ‖difference‖ over ‖latents‖ after all steps: against one GPU, and
at sizes up to 512 against the faithful modules in float32.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from gpu_worker.denoiser.loading import Models, channels_last
from gpu_worker.denoiser.pipeline import ClipDenoiser
from gpu_worker.engine_api import DeviceLost
from gpu_worker.fast import FastDenoiser
from gpu_worker.fast.tiers import TIERS
from gpu_worker.team.denoiser import TeamDenoiser
from gpu_worker.team.members import Members, end_process
from protocol.process.logs import set_up_logging
from protocol.process.settings import ROOT
from scripts.bench.gpu.ladder.model import ClipInputs, as_type, make_clip, make_models, to_half
from scripts.bench.gpu.ladder.profile import class_of

FRAMES, STEPS = 12, 6
#: Largest picture whose float32 reference fits any card.
FLOAT32_UP_TO = 512
#: Clips before the first that counts.
WARM_UP = 2
#: Seconds between the beginnings of paced clips.
PERIOD = 0.5


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    if args.folder is not None:
        measure_team(int(args.members), args)
        end_process(0)  # at an interpreter's usual end NCCL would wait for members that are gone
    results: dict[str, Any] = {}
    failed = 0
    with tempfile.TemporaryDirectory(prefix="echomimic-team-bench-") as folder:
        for members in args.members.split(","):
            words = [*(argv if argv is not None else sys.argv[1:]), "--members", members, "--folder", folder]
            command = [sys.executable, "-m", "scripts.bench.gpu.team", *words]
            try:
                failed += subprocess.run(command, cwd=ROOT, timeout=args.timeout, check=False).returncode != 0
            except subprocess.TimeoutExpired:
                say(f"{members} members: not done in {args.timeout} s")
                failed += 1
            written = Path(folder) / f"{members}.json"
            if written.is_file():
                results[members] = json.loads(written.read_text())
    _say_table(results)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1))
    return 1 if failed else 0


def measure_team(members: int, args: argparse.Namespace) -> None:
    """Everything about one number of members, written to `args.folder`."""
    set_up_logging("bench", str(members), "WARNING")
    cuda = torch.cuda.is_available() and not args.cpu
    device = torch.device("cuda", 0) if cuda else torch.device("cpu")
    sizes = [64] if args.quick else [int(size) for size in args.sizes.split(",")]
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    begin = time.perf_counter()
    models = make_models(device, 2 if args.quick else STEPS, tiny=args.quick)
    clips = {size: make_clip(models, size // 8, FRAMES) for size in sizes}
    if members == 1:
        for size in (size for size in sizes if size <= FLOAT32_UP_TO):
            torch.save(_faithful(models, clips[size]), args.folder / f"float32-{size}.pt")
    dtype = torch.float16 if cuda else torch.float32
    to_half(models, dtype)
    channels_last(models.denoiser)
    torch.cuda.empty_cache()
    say(f"{members} members: model made in {time.perf_counter() - begin:.1f} s")
    found: dict[str, Any] = {"machine": _machine(device)}
    with _denoiser(models, members, args) as denoiser:
        for size, clip in clips.items():
            found[str(size)] = _measure(denoiser, as_type(clip, dtype), members, size, args)
            (args.folder / f"{members}.json").write_text(json.dumps(found))


@contextmanager
def _denoiser(models: Models, members: int, args: argparse.Namespace) -> Iterator[FastDenoiser]:
    options: dict[str, Any] = {"tier": TIERS[args.tier], "graphs": not args.no_graphs}
    if members == 1:
        yield FastDenoiser(models, **options)
        return
    kind = models.device.type
    team = Members([torch.device(kind, i) if kind == "cuda" else models.device for i in range(members)])
    try:
        begin = time.perf_counter()
        threading.Thread(target=_end_when_lost, args=(team,), daemon=True).start()
        denoiser = TeamDenoiser(models, team, direct=False if args.collective else None, **options)
        say(f"{members} members: joined in {time.perf_counter() - begin:.1f} s")
        yield denoiser
    finally:
        team.close()


def _end_when_lost(team: Members) -> None:
    """Ends this process when a member is lost: the leader may wait for it for ever."""
    while True:
        time.sleep(PERIOD)
        try:
            team.check()
        except DeviceLost as error:
            say(f"failed: {error}")
            faulthandler.dump_traceback()
            end_process(1)


def _measure(
    denoiser: FastDenoiser, clip: ClipInputs, members: int, size: int, args: argparse.Namespace
) -> dict[str, Any]:
    given = (clip.noise, clip.tokens, clip.pose, clip.reference)
    begin = time.perf_counter()
    denoiser.prepare(*given)
    ready = time.perf_counter() - begin

    def sample() -> Tensor:
        return denoiser.sample(*given)

    latents = sample()
    for _ in range(WARM_UP):
        _seconds(sample)
    times = [_seconds(sample) for _ in range(args.clips)]
    paced = _paced(sample, args.paced)
    again = sample()
    torch.save(latents.cpu(), args.folder / f"{members}-{size}.pt")
    found = {
        "ready": ready, "times": times, "paced": paced, "again": _error(again.cpu(), latents.cpu()),
        "of_one": _error_to(args.folder / f"1-{size}.pt", latents),
        "of_float32": _error_to(args.folder / f"float32-{size}.pt", latents),
        "peak": torch.cuda.max_memory_allocated() if clip.noise.is_cuda else 0,
    }  # fmt: skip
    say(f"{members} members, {size}²: {_spread(times)} s a clip, ready in {ready:.1f} s")
    if args.profile and clip.noise.is_cuda:
        found["profile"] = _profile(sample, len(denoiser.steps), f"{members} members, {size}²")
    return found


def _faithful(models: Models, clip: ClipInputs) -> Tensor:
    denoiser = ClipDenoiser(models)
    audio = denoiser.project_audio(clip.tokens)
    return denoiser.sample(clip.noise, audio, clip.pose, clip.reference).cpu()


def _seconds(sample: Callable[[], Tensor]) -> float:
    """From the inputs to latents in the host's memory, as the worker needs them."""
    begin = time.perf_counter()
    sample().cpu()
    return time.perf_counter() - begin


def _paced(sample: Callable[[], Tensor], count: int) -> list[float]:
    times = []
    due = time.perf_counter()
    for _ in range(count):
        due += PERIOD
        time.sleep(max(0.0, due - time.perf_counter()))
        times.append(_seconds(sample))
    return times


def _profile(sample: Callable[[], Tensor], steps: int, title: str) -> dict[str, Any]:
    """The leader's milliseconds a step by class of kernel. An exchange includes its wait for the others."""
    with profile(activities=[ProfilerActivity.CUDA]) as recorded:
        sample().cpu()
    kernels: dict[str, tuple[float, float]] = {}
    by_class: dict[str, float] = defaultdict(float)
    for event in recorded.key_averages():
        ms = getattr(event, "self_device_time_total", 0.0) / 1e3 / steps
        if ms:
            kernels[event.key] = ms, event.count / steps
            by_class["exchange" if "nccl" in event.key.lower() else class_of(event.key)] += ms
    say(f"\n{title}: one step has {sum(by_class.values()):.2f} ms of kernels")
    for name, ms in sorted(by_class.items(), key=lambda item: -item[1]):
        say(f"  {name:<20}{ms:8.2f} ms")
    for name, (ms, count) in sorted(kernels.items(), key=lambda item: -item[1][0])[:30]:
        say(f"    {ms:7.3f} ms {count:6.1f} × {name[:110]}")
    return dict(by_class)


def _error(made: Tensor, wanted: Tensor) -> float:
    return float((made.double() - wanted.double()).norm() / wanted.double().norm())


def _error_to(file: Path, latents: Tensor) -> float | None:
    return _error(latents.cpu(), torch.load(file, weights_only=True)) if file.is_file() else None


def _spread(times: Sequence[float]) -> str:
    return f"{statistics.median(times):.4f} ({min(times):.4f}–{max(times):.4f})"


def _machine(device: torch.device) -> str:
    name = f"{torch.cuda.get_device_name(device)}" if device.type == "cuda" else "CPU"
    nccl = ".".join(map(str, torch.cuda.nccl.version())) if device.type == "cuda" else "none"
    return f"{name}, torch {torch.__version__}, NCCL {nccl}, {time.strftime('%Y-%m-%d')}"


def _say_table(results: dict[str, Any]) -> None:
    for found in results.values():
        say(f"\n{found['machine']}")
        break
    say("\n| size | members | s a clip | paced | of one GPU | error to one | to float32 | exchange, ms |")
    say("|---|---|---|---|---|---|---|---|")
    for size in sorted({size for found in results.values() for size in found if size.isdigit()}, key=int):
        one = results.get("1", {}).get(size)
        for members, found in results.items():
            if size not in found:
                continue
            row = found[size]
            ratio = statistics.median(row["times"]) / statistics.median(one["times"]) if one else None
            paced = _spread(row["paced"]) if row["paced"] else ""
            exchange = row.get("profile", {}).get("exchange")
            cells = [
                _number(ratio, ".3f"), _number(row["of_one"], ".1e"), _number(row["of_float32"], ".1e"),
                _number(exchange, ".2f"),
            ]  # fmt: skip
            say(f"| {size}² | {members} | {_spread(row['times'])} | {paced} | {' | '.join(cells)} |")


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.bench.gpu.team",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--sizes", default="512,768", help="sides of the picture (default %(default)s)")
    parser.add_argument("--members", default="1,2", help="numbers of GPUs (default %(default)s)")
    parser.add_argument("--tier", default="exact", choices=tuple(TIERS), help="default %(default)s")
    parser.add_argument("--clips", type=int, default=9, help="clips timed back to back (default %(default)s)")
    parser.add_argument("--paced", type=int, default=0, help=f"clips timed each {PERIOD} s as well")
    parser.add_argument("--profile", action="store_true", help="also show a step by class of kernel")
    parser.add_argument("--no-graphs", action="store_true", help="without CUDA graphs")
    parser.add_argument(
        "--collective", action="store_true", help="exchange by NCCL wherever that is possible"
    )
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds for one number of members")
    parser.add_argument("--json", type=Path, metavar="FILE", help="file for the figures")
    parser.add_argument("--quick", action="store_true", help="a tiny model, on a CPU as well")
    parser.add_argument("--cpu", action="store_true", help="on the CPU, whatever there is")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
