"""Where a clip's time goes, by class of kernel, and how far each class is from its floor."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from gpu_worker.denoiser.loading import Models
from gpu_worker.denoiser.model import DenoisingUNet3D
from gpu_worker.fast.build import build
from gpu_worker.fast.network import Positions, StepInputs, StepRunner
from gpu_worker.fast.ops import Image, TorchOps
from gpu_worker.fast.tiers import Tier
from gpu_worker.fast.weights import Heads, Linear, Norm
from scripts.bench.gpu.ladder.model import ClipInputs
from scripts.bench.gpu.ladder.rows import ROWS

#: An H200's, measured: bf16 products a second, bytes a second.
MATRIX_RATE, MEMORY_RATE = 790e12, 4.3e12

CLASSES = ("attention", "temporal", "conv", "linear", "pointwise and norms")


def class_of(kernel: str) -> str:
    name = kernel.lower()
    if "temporal" in name:
        return "temporal"
    if any(word in name for word in ("attention", "sdpa", "flash", "fmha", "mha_", "spatial")):
        return "attention"
    if any(word in name for word in ("conv", "fprop", "implicit", "winograd", "dgrad", "cudnn")):
        return "conv"
    if any(word in name for word in ("gemm", "nvjet", "cutlass", "gated", "splitk", "linear")):
        return "linear"
    return "pointwise and norms"


def profile_step(
    models: Models, clip: ClipInputs, keys: list[str], say: Callable[[str], None], results: dict[str, Any]
) -> None:
    """Prints the milliseconds of one step (a clip's over its steps) of each row in `keys`, by class."""
    floors = step_floors(models.denoiser, clip)
    steps = models.config.steps
    activity = ProfilerActivity.CUDA if models.device.type == "cuda" else ProfilerActivity.CPU
    for key in keys:
        row = next(row for row in ROWS if row.key == key)
        with row.make(models, clip) as sample:
            sample()
            with profile(activities=[activity]) as recorded:
                sample()
                if activity == ProfilerActivity.CUDA:
                    torch.cuda.synchronize()
        kernels: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        for event in recorded.key_averages():
            ms = getattr(event, "self_device_time_total", 0.0) / 1e3 / steps
            if activity == ProfilerActivity.CUDA and ms and not event.key.startswith("Activity"):
                kernels[event.key][0] += ms
                kernels[event.key][1] += event.count / steps
        by_class: dict[str, float] = defaultdict(float)
        for name, (ms, _) in kernels.items():
            by_class[class_of(name)] += ms
        total = sum(by_class.values()) or 1e-9
        side = 8 * clip.noise.shape[-1]
        say(f"\nOne step at {side}² ({row.text}): {total:.2f} ms of kernels\n")
        say("| class | ms | share | floor, ms | of the floor's rate |\n|---|---|---|---|---|")
        for name in CLASSES:
            ms, floor = by_class[name], 1e3 * floors[name]
            rate = f"{floor / ms:.0%}" if ms else ""
            say(f"| {name} | {ms:.2f} | {ms / total:.0%} | {floor:.2f} | {rate} |")
        say("\n| kernel | ms | times |\n|---|---|---|")
        for name, (ms, count) in sorted(kernels.items(), key=lambda item: -item[1][0])[:40]:
            say(f"| {class_of(name)[:9]}: {name[:100]} | {ms:.3f} | {count:.1f} |")
        results.setdefault("profile", {})[f"{side}/{key}"] = dict(by_class)


class CountingOps(TorchOps):
    """Counts each stage's operations and the fewest bytes it moves. Meant for tensors without data."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: dict[str, float] = defaultdict(float)

    def matrix(self, kind: str, operations: float) -> None:
        self.seconds[kind] += operations / MATRIX_RATE

    def moved(self, kind: str, *tensors: Tensor | None) -> None:
        size = sum(x.numel() * x.element_size() for x in tensors if x is not None)
        self.seconds[kind] += size / MEMORY_RATE

    def conv(self, image: Image, weight: Tensor, stride: int = 1) -> Image:
        made = super().conv(image, weight, stride)
        self.matrix("conv", 2.0 * made.data.numel() * weight[0].numel())
        return made

    def phases(self, image: Image, weight: Tensor) -> Tensor:
        made = super().phases(image, weight)
        self.matrix("conv", 2.0 * image.data.shape[0] * image.data.shape[1] * weight.numel())
        return made

    def add(self, image: Image, other: Tensor | None, shift: Tensor) -> Image:
        made = super().add(image, other, shift)
        self.moved(CLASSES[4], image.data, other, made.data)
        return made

    def group_norm(self, image: Image, norm: Norm, **options: Any) -> Image:
        made = super().group_norm(image, norm, **options)
        # read for the statistics, read for the result
        self.moved(CLASSES[4], made.data, made.data, made.data)
        return made

    def layer_norm(self, x: Tensor, norm: Norm, bias: Tensor | None = None, repeat: int = 1) -> Tensor:
        self.moved(CLASSES[4], x, x)
        return super().layer_norm(x, norm, bias, repeat)

    def linear(self, x: Tensor, layer: Linear) -> Tensor:
        self.matrix("linear", 2.0 * len(x) * layer.weight.numel())
        return super().linear(x, layer)

    def add_linear(self, into: Tensor, x: Tensor, layer: Linear) -> None:
        self.matrix("linear", 2.0 * len(x) * layer.weight.numel())

    def linear_into(self, out: Tensor, x: Tensor, weight: Tensor) -> None:
        self.matrix("linear", 2.0 * len(x) * weight.numel())

    def project(self, out: Tensor, x: Tensor, weight: Tensor) -> None:
        self.matrix("linear", 2.0 * len(x) * weight.numel())

    def attention(
        self, q: Tensor, k: Tensor, v: Tensor, heads: Heads, ref: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        keys = k.shape[1] + (0 if ref is None else ref[0].shape[1])
        self.matrix("attention", 4.0 * q.shape[0] * q.shape[1] * keys * heads.count * heads.size)
        return q[..., : heads.count * heads.size].contiguous()

    def temporal(self, qkv: Tensor, frames: int, heads: int) -> Tensor:
        made = qkv[..., : qkv.shape[2] // 3].contiguous()
        self.moved("temporal", qkv, made)
        return made


@torch.inference_mode()
def step_floors(denoiser: DenoisingUNet3D, clip: ClipInputs) -> dict[str, float]:
    """Seconds that each class of an exact step takes at least, at the rates above, in half precision."""
    with torch.device("meta"):
        bare = DenoisingUNet3D(denoiser.config)
    bare = bare.to("meta", torch.float16)
    ops = CountingOps()
    network = build(bare, [0], ops.split)
    frames, channels, height, width = clip.noise.shape

    def empty(*shape: int) -> Tensor:
        return torch.empty(shape, device="meta", dtype=torch.float16)

    columns = [block.heads.count * block.heads.wide for block in network.spatials()]
    reference = [
        empty(1, k.shape[1], 2 * c) for (k, _), c in zip(clip.reference.layers, columns, strict=True)
    ]
    audio = [empty(frames, clip.tokens.shape[1], c) for c in columns]
    pose = empty(frames, height * width, denoiser.config.block_out_channels[0])
    latents = Image(empty(frames, height * width, channels), height, width)
    runner = StepRunner(network, ops, Positions({}), Tier())
    runner.run(latents, 0, StepInputs(pose, [(x, x) for x in audio], reference))
    return ops.seconds
