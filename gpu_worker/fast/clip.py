"""Clips by the fast network: all steps of one, and on CUDA a graph of them for each shape made ready."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from gpu_worker.denoiser.loading import Models
from gpu_worker.denoiser.model import ReferenceCache
from gpu_worker.denoiser.pipeline import frame_orders
from gpu_worker.denoiser.sampler import Step, make_steps
from gpu_worker.fast.build import build
from gpu_worker.fast.float8 import WatchingOps, layers_of, quantize
from gpu_worker.fast.network import Positions, StepInputs, StepRunner, audio_keys_values
from gpu_worker.fast.ops import Image, TorchOps
from gpu_worker.fast.tiers import TIERS, Tier
from gpu_worker.fast.weights import Network, SpareColumn
from protocol.process.logs import first_line

logger = logging.getLogger(__name__)

#: frames, latent height and width, audio tokens a frame
Shape = tuple[int, int, int, int]


class FastUnavailable(RuntimeError):
    """The fast path does not serve this model or these settings. The text says why."""


@dataclass(eq=False)
class _ShapeBuffers:
    """Buffers of one shape, and on CUDA the graph that reads and writes them."""

    runner: StepRunner
    latents: Tensor  # (frames, channels, h, w), float32: starts in, results out
    tokens: Tensor  # (frames, count, width)
    pose: Tensor  # (frames, positions, channels)
    reference: list[Tensor]  # as `network.StepInputs` has it
    graphs: dict[int, torch.cuda.CUDAGraph] = field(default_factory=dict)  # by the step they start at
    filled_from: ReferenceCache | None = field(default=None, repr=False)


class FastDenoiser:
    """Makes clips of latents as `ClipDenoiser` does, without guidance.

    Args:
        models: from `load_models`. Weights are shared with them where they are the same.
        steps: sampling steps, None for the configuration's.
        tier: which approximations to make.
        ops: how to compute, None for Triton on CUDA and plain torch elsewhere.
        graphs: record CUDA graphs. False runs each kernel by itself, for comparison.

    `prepare` makes a shape ready. `sample` takes prepared shapes alone. Both from one thread.
    Raises FastUnavailable where the model has guidance or Triton is absent.
    """

    def __init__(
        self,
        models: Models,
        *,
        steps: int | None = None,
        guidance_scale: float | None = None,
        tier: Tier = TIERS["exact"],
        ops: TorchOps | None = None,
        graphs: bool = True,
    ) -> None:
        scale = models.config.cfg if guidance_scale is None else guidance_scale
        if scale > 1:
            raise FastUnavailable(f"guidance {scale} needs a second, unconditional half")
        self.models = models
        self.tier = supported(tier, models.device)
        self.steps: tuple[Step, ...] = make_steps(
            models.scheduler, models.config.steps if steps is None else steps
        )
        self.ops = ops or choose_ops(models.device, models.dtype)
        self._graphs = graphs and models.device.type == "cuda"
        self.network: Network = build(
            models.denoiser,
            [step.timestep for step in self.steps],
            self.ops.split,
            fold=not self.tier.fp8,
        )
        # Where torch attends, it does so over [frame ; reference] in one place.
        self._joined = frozenset(
            block.slot for block in self.network.spatials() if not self.ops.two_sources(block.heads)
        )
        self._ready: dict[Shape, _ShapeBuffers] = {}
        self._quantized = False

    def prepare(
        self,
        latents: Tensor,
        tokens: Tensor,
        pose_features: Tensor,
        reference: ReferenceCache,
        *,
        starts: Collection[int] = (0,),
    ) -> None:
        """Makes ready for clips of this one's shape: compiles, chooses convolutions, records the graphs.

        Arguments as for `sample`. With float8, the first such clip gives the scales too.
        starts: the steps that clips may start at.
        """
        shape = _shape(latents, tokens)
        if shape in self._ready:
            return
        with torch.inference_mode():
            buffers = self._make_buffers(shape)
            self._fill(buffers, latents, tokens, pose_features, reference)
            if self.tier.fp8 and not self._quantized:
                self._quantize(buffers)
            if self._graphs:
                for start in starts:
                    buffers.graphs[start] = self._record(buffers, start)
            self._ready[shape] = buffers

    def _quantize(self, buffers: _ShapeBuffers) -> None:
        watching = WatchingOps(self.ops.split)
        runner = buffers.runner
        buffers.runner = StepRunner(self.network, watching, runner.positions, Tier(fp8=True))
        latents = buffers.latents.clone()
        self._run(buffers, 0)
        buffers.latents.copy_(latents)
        buffers.runner = runner
        quantize(layers_of(self.network), watching.largest)
        self._quantized = True

    def prepared(self, frames: int, height: int, width: int, tokens: int) -> bool:
        return (frames, height, width, tokens) in self._ready

    @torch.inference_mode()
    def sample(
        self,
        latents: Tensor,
        tokens: Tensor,
        pose_features: Tensor,
        reference: ReferenceCache,
        start: int = 0,
    ) -> Tensor:
        """One clip from step `start` on: latents (F, C, h, w) → the same shape, float32.

        tokens (F, T, width) of the audio, pose features (F, c0, h, w). Raises KeyError for a shape or a start
        that was not prepared.
        """
        buffers = self._ready[_shape(latents, tokens)]
        self._fill(buffers, latents, tokens, pose_features, reference)
        if self._graphs:
            buffers.graphs[start].replay()
        else:
            self._run(buffers, start)
        return buffers.latents.clone()

    def _make_buffers(self, shape: Shape) -> _ShapeBuffers:
        frames, height, width, count = shape
        models, config = self.models, self.models.denoiser.config
        device, dtype = models.device, models.dtype
        orders = frame_orders(frames, len(self.steps), models.config.window_shift, device)
        positions = Positions.of(self.network, orders, dtype)
        return _ShapeBuffers(
            StepRunner(self.network, self.ops, positions, self.tier),
            latents=torch.zeros(frames, config.in_channels, height, width, device=device),
            tokens=torch.zeros(frames, count, config.cross_attention_dim or 0, device=device, dtype=dtype),
            pose=torch.zeros(
                frames, height * width, config.block_out_channels[0], device=device, dtype=dtype
            ),
            reference=self._empty_reference(frames, height, width),
        )

    def _empty_reference(self, frames: int, height: int, width: int) -> list[Tensor]:
        made = []
        for block in self.network.spatials():
            heads, h, w = block.heads, *halved(height, width, block.level)
            count, rows = (frames, 2 * h * w) if block.slot in self._joined else (1, h * w)
            shape = (count, rows, 2 * heads.count * heads.wide)
            made.append(torch.zeros(shape, device=self.models.device, dtype=self.models.dtype))
        return made

    def _fill(
        self,
        buffers: _ShapeBuffers,
        latents: Tensor,
        tokens: Tensor,
        pose_features: Tensor,
        reference: ReferenceCache,
    ) -> None:
        buffers.latents.copy_(latents)
        buffers.tokens.copy_(tokens)
        buffers.pose.copy_(pose_features.permute(0, 2, 3, 1).flatten(1, 2))
        if buffers.filled_from is not reference:
            self._fill_reference(buffers, reference)

    def _fill_reference(self, buffers: _ShapeBuffers, reference: ReferenceCache) -> None:
        height, width = buffers.latents.shape[2:]
        blocks = self.network.spatials()
        for block, target, source in zip(blocks, buffers.reference, reference.layers, strict=True):
            heads, h, w = block.heads, *halved(height, width, block.level)
            kv = torch.zeros(
                1, h * w, 2, heads.count, heads.wide, device=source[0].device, dtype=source[0].dtype
            )
            for to, x in zip(kv.unbind(2), source, strict=True):
                to[..., : heads.size] = x.unflatten(2, (heads.count, heads.size))
            kv[..., heads.size : heads.size + 1] = 1
            kv = kv.flatten(2)
            target[:, -kv.shape[1] :] = kv  # the end of it where the frame's own come first
        buffers.filled_from = reference

    def _record(self, buffers: _ShapeBuffers, start: int) -> torch.cuda.CUDAGraph:
        """The graph of a clip from step `start` on."""
        stream = torch.cuda.Stream(self.models.device)
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # compiles and chooses, none of which may happen while recording
            self._run(buffers, start)
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize(self.models.device)
        graph = torch.cuda.CUDAGraph()
        # the prefetch thread may use the device meanwhile
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            self._run(buffers, start)
        return graph

    def _run(self, buffers: _ShapeBuffers, start: int) -> None:
        """The steps from `start` on: buffers.latents → buffers.latents."""
        buffers.runner.begin()
        height, width = buffers.latents.shape[2:]
        # cuDNN is off by default here
        with torch.backends.cudnn.flags(enabled=True, benchmark=True):
            audio = audio_keys_values(self.network, buffers.tokens)
            inputs = StepInputs(buffers.pose, audio, buffers.reference, self._joined)
            latents = buffers.latents.permute(0, 2, 3, 1).contiguous().flatten(1, 2)
            for index in range(start, len(self.steps)):
                x = Image(latents.to(self.models.dtype), height, width)
                latents = self.steps[index](latents, buffers.runner.run(x, index, inputs).float())
            buffers.latents.copy_(latents.unflatten(1, (height, width)).permute(0, 3, 1, 2))


def _shape(latents: Tensor, tokens: Tensor) -> Shape:
    return len(latents), latents.shape[2], latents.shape[3], tokens.shape[1]


def halved(height: int, width: int, times: int) -> tuple[int, int]:
    """The sides of an image after `times` convolutions of stride 2."""
    for _ in range(times):
        height, width = (height + 1) // 2, (width + 1) // 2
    return height, width


def supported(tier: Tier, device: torch.device) -> Tier:
    """The tier, without float8 where the device has none."""
    if tier.fp8 and device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 9):
        logger.info("tier %s: no float8 on %s", tier.name, torch.cuda.get_device_name(device))
        return replace(tier, fp8=False)
    return tier


def choose_ops(device: torch.device, dtype: torch.dtype) -> TorchOps:
    """Kernels on CUDA, plain torch elsewhere. GEGLU is QuACK's where that is installed on a Hopper GPU.

    Raises:
        FastUnavailable: Triton is absent, or the arithmetic is float32.
    """
    if device.type != "cuda":
        return TorchOps(SpareColumn())
    if dtype == torch.float32:
        raise FastUnavailable("its kernels are for half precision, --dtype is float32")
    try:
        from gpu_worker.fast.triton_ops import TritonOps
    except ImportError as error:
        raise FastUnavailable(f"Triton cannot be used: {error}") from error
    if torch.cuda.get_device_capability(device) == (9, 0):
        try:
            from gpu_worker.fast.quack_ops import QuackOps

            return QuackOps()
        except Exception as error:  # absent, or its libraries do not load
            logger.info("GEGLU's gate takes a pass of its own, QuACK is not used: %s", first_line(error))
    return TritonOps()
