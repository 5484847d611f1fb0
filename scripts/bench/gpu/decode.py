"""A ladder of ways to decode a clip with Stable Diffusion's VAE, from diffusers' module to the served one.

    python -m scripts.bench.gpu.decode --sizes 512,768      on a GPU
    python -m scripts.bench.gpu.decode --quick              small and fast, on a CPU as well

The weights are random, in the shapes of sd-vae-ft-mse, or of TAESD with `--decoder tiny`. Each row has:

- median and spread of the time for a clip, pixels on the host included
- the ratio to the first row
- peak memory
- the pixels' error against the same decoder in float32

Rows with JPEG in their name encode too, as the encoder worker does.
"""

from __future__ import annotations

import argparse
import copy
import logging
import os
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from encoder_worker.decode import ClipDecoder
from encoder_worker.fast.graphed import GraphedDecoder
from encoder_worker.jpeg import JpegEncoder
from encoder_worker.jpeg_pool import JpegPool, threads_for
from encoder_worker.vae.decoders import Decoder, KLDecoder, TinyDecoder
from encoder_worker.vae.doubling import fold_doubling
from protocol.process.c_allocator import keep_freed_memory
from scripts.bench.common.tools import machine
from scripts.random_model import FULL_VAE, TAESD, VAE

FRAMES = 12
Pixels = npt.NDArray[np.uint8]
Halves = npt.NDArray[np.float16]


class Decode(Protocol):
    """Latents of a clip to pixels, a chunk at a time. Without `keep` they may be given back at once."""

    def __call__(self, latents: Halves, /, keep: bool = True) -> list[Pixels]: ...


@dataclass(frozen=True)
class DecoderRow:
    """A way to decode. make(decoder, latents) gives the function that does. gpu: whether it needs one."""

    name: str
    make: Callable[[Decoder, Halves], Decode]
    gpu: bool = False


def random_decoder(config: dict[str, Any], seed: int = 0) -> Decoder:
    """A decoder with random weights, float32 on the CPU. Its pictures have contrast."""
    torch.manual_seed(seed)
    if config["_class_name"] == "AutoencoderTiny":
        tiny = TinyDecoder(config).to_empty(device="cpu")
        for parameter in tiny.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=(1 / parameter[0].numel()) ** 0.5)
            else:
                torch.nn.init.normal_(parameter, std=0.02)
        tiny.decoder.layers[-1].weight.data.mul_(0.1)
        return tiny.eval().requires_grad_(False)
    decoder = KLDecoder(config).to_empty(device="cpu")
    for name, parameter in decoder.named_parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=(1.5 / parameter[0].numel()) ** 0.5)
        elif name.endswith("weight"):
            torch.nn.init.ones_(parameter)
        else:
            torch.nn.init.normal_(parameter, std=0.02)
    decoder.decoder.conv_out.weight.data.mul_(0.3)
    return decoder.eval().requires_grad_(False)


def plain(
    device: torch.device, dtype: torch.dtype, *, batch: int, channels_last: bool, **options: Any
) -> Callable[[Decoder, Halves], Decode]:
    """diffusers' module. options: fold (the doublings), compiled, benchmark (cuDNN times its algorithms)."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    benchmark = bool(options.get("benchmark"))

    def make(decoder: Decoder, _latents: Halves) -> Decode:
        module: Any = copy.deepcopy(decoder)
        if options.get("fold"):
            fold_doubling(module)
        module.to(device, dtype, memory_format=layout)
        run = torch.compile(module, dynamic=False) if options.get("compiled") else module

        @torch.inference_mode()
        def decode(latents: Halves, keep: bool = True) -> list[Pixels]:
            made = []
            for start in range(0, len(latents), batch):
                x = torch.from_numpy(latents[start : start + batch]).to(device).float() / decoder.scaling
                # cuDNN is off in here unless told otherwise
                with torch.backends.cudnn.flags(enabled=True, benchmark=benchmark, allow_tf32=False):
                    pictures = run(x.to(dtype).contiguous(memory_format=layout)).float()
                pixels = pictures.mul(127.5).add_(127.5).round_().clamp_(0, 255).to(torch.uint8)
                made.append(pixels.permute(0, 2, 3, 1).contiguous())
            return [pixels.cpu().numpy() for pixels in made]

        return decode

    return make


def served(
    device: torch.device,
    *,
    chunk: int,
    fast: str,
    jpeg: bool,
    dtype: str = "auto",
) -> Callable[[Decoder, Halves], Decode]:
    """The encoder worker's own decoder. `jpeg`: pictures are encoded as they come."""

    def make(decoder: Decoder, latents: Halves) -> Decode:
        clip_decoder = ClipDecoder(decoder, device, dtype, chunk, fast)
        clip_decoder.warm_up(*latents.shape[2:])
        if fast and device.type == "cuda" and not clip_decoder.is_fast:
            raise RuntimeError("the fast decoder could not be built")
        pool = JpegPool(JpegEncoder(90), threads_for(os.cpu_count() or 1, gpu=device.type == "cuda"))

        def decode(clip: Halves, keep: bool = True) -> list[Pixels]:
            made = []
            for pictures in clip_decoder.decode(clip):
                if jpeg:
                    pool(pictures)
                if keep:
                    made.append(pictures)
            return made

        return decode

    return make


def in_graph(device: torch.device, *, chunk: int) -> Callable[[Decoder, Halves], Decode]:
    """AutoencoderTiny's own modules in a CUDA graph."""

    def make(decoder: Decoder, latents: Halves) -> Decode:
        graph = GraphedDecoder(decoder, device, torch.float16, chunk, *latents.shape[2:], fused=False)

        @torch.inference_mode()
        def decode(clip: Halves, keep: bool = True) -> list[Pixels]:
            made = []
            for start in range(0, len(clip), chunk):
                part = torch.from_numpy(clip[start : start + chunk]).float() / decoder.scaling
                graph.latents[: len(part)].copy_(part)
                graph.run()
                made.append(graph.pixels[: len(part)].cpu().numpy())
            return made

        return decode

    return make


def ladder(device: torch.device, args: argparse.Namespace) -> Iterator[DecoderRow]:
    """The rows, slowest first."""
    chunks: Sequence[int] = args.chunks
    half = torch.float16 if device.type == "cuda" else torch.bfloat16
    yield DecoderRow("diffusers, eager, one by one", plain(device, half, batch=1, channels_last=False))
    yield DecoderRow("batched", plain(device, half, batch=FRAMES, channels_last=False))
    yield DecoderRow("channels_last", plain(device, half, batch=FRAMES, channels_last=True))
    folded: dict[str, Any] = {"channels_last": True, "fold": True}
    yield DecoderRow("doublings folded", plain(device, half, batch=FRAMES, **folded))
    yield DecoderRow(
        "cuDNN times its algorithms", plain(device, half, batch=FRAMES, benchmark=True, **folded)
    )
    yield DecoderRow("the same, 4 at once", plain(device, half, batch=4, benchmark=True, **folded))
    if args.compile:
        yield DecoderRow("torch.compile", plain(device, half, batch=4, channels_last=True, compiled=True))
        yield DecoderRow("torch.compile, folded", plain(device, half, batch=4, compiled=True, **folded))
    for chunk in chunks if args.decoder == "tiny" else ():
        name = f"own modules in a CUDA graph, {chunk} at once"
        yield DecoderRow(name, in_graph(device, chunk=chunk), gpu=True)
    best = chunks[len(chunks) // 2]
    for chunk in chunks:
        yield DecoderRow(
            f"served, {chunk} at once", served(device, chunk=chunk, fast="exact", jpeg=False), gpu=True
        )
    yield DecoderRow(
        f"served in bfloat16, {best} at once",
        served(device, chunk=best, fast="exact", jpeg=False, dtype="bfloat16"),
        gpu=True,
    )
    for chunk in chunks:
        name = f"served with the fast tier, {chunk} at once"
        yield DecoderRow(name, served(device, chunk=chunk, fast="eight_bit", jpeg=False), gpu=True)
    for chunk in chunks:
        yield DecoderRow(
            f"served + JPEG, {chunk} at once", served(device, chunk=chunk, fast="exact", jpeg=True)
        )
        name = f"served with the fast tier + JPEG, {chunk} at once"
        yield DecoderRow(name, served(device, chunk=chunk, fast="eight_bit", jpeg=True), gpu=True)


def measure(
    row: DecoderRow, decoder: Decoder, latents: Halves, rounds: int
) -> tuple[list[float], Pixels, float]:
    """Seconds of each round, the pixels, and peak memory in MiB."""
    device = torch.device("cuda") if torch.cuda.is_available() else None
    if device:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    decode = row.make(decoder, latents)
    for _ in range(2):
        pixels = np.concatenate(decode(latents))
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        decode(latents, keep=False)
        times.append(time.perf_counter() - begin)
    return times, pixels, torch.cuda.max_memory_allocated() / 2**20 if device else float("nan")


def climb(side: int, config: dict[str, Any], args: argparse.Namespace) -> None:
    """One size's ladder, printed row by row."""
    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    decoder = random_decoder(config)
    h = side // decoder.factor
    latents = (np.random.default_rng(0).standard_normal((FRAMES, 4, h, h)) * decoder.scaling).astype(
        np.float16
    )
    exact = np.concatenate(
        plain(device, torch.float32, batch=1, channels_last=False)(decoder, latents)(latents)
    )
    print(
        f"\n{side}², {FRAMES} frames, {args.rounds} rounds; contrast of the pictures {exact.std():.0f} levels"
    )
    print(f"  {'':<44}{'median':>9}{'spread':>9}{'ratio':>7}{'MiB':>7}{'PSNR':>7}{'mean':>7}{'worst':>6}")
    first = 0.0
    for row in ladder(device, args):
        if (row.gpu and not cuda) or (args.only and args.only not in row.name):
            continue
        try:
            times, pixels, memory = measure(row, decoder, latents, args.rounds)
        except Exception:
            print(f"  {row.name:<44} failed:\n{traceback.format_exc(limit=-6)}", flush=True)
            continue
        median = statistics.median(times)
        first = first or median
        off = np.abs(pixels.astype(np.float32) - exact)
        psnr = 20 * np.log10(255 / max(1e-9, float(np.sqrt((off**2).mean()))))
        print(
            f"  {row.name:<44}{median * 1e3:>6.1f} ms{(max(times) - min(times)) * 1e3:>6.1f} ms"
            f"{first / median:>7.2f}{memory:>7.0f}{psnr:>7.1f}{off.mean():>7.3f}{off.max():>6.0f}",
            flush=True,
        )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="scripts.bench.gpu.decode",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--decoder", choices=("kl", "tiny"), default="kl", help="AutoencoderKL or AutoencoderTiny"
    )
    parser.add_argument("--quick", action="store_true", help="a small decoder and picture")
    parser.add_argument("--sizes", default="512,768", help="picture sides (default %(default)s)")
    parser.add_argument("--chunks", default="2,4,6", help="frames at once to try (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--compile", action="store_true", help="with torch.compile, which takes a minute")
    parser.add_argument("--only", help="only rows whose name has this in it")
    args = parser.parse_args(argv)
    args.chunks = [int(word) for word in args.chunks.split(",")]
    logging.basicConfig(level=logging.WARNING, stream=sys.stdout, format="    %(message)s")
    logging.getLogger("encoder_worker.decode").setLevel(logging.INFO)
    print(f"{machine()}; {time.strftime('%Y-%m-%d')}", flush=True)
    keep_freed_memory()  # as the encoder worker
    torch.backends.cudnn.allow_tf32 = False
    if args.quick:
        args.rounds = 2
    config = TAESD if args.decoder == "tiny" else {**VAE, **({} if args.quick else FULL_VAE)}
    for side in (64,) if args.quick else map(int, args.sizes.split(",")):
        climb(side, config, args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
