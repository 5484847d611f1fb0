"""Clips by the fast network: all steps of one, and on CUDA a graph of them for each shape made ready."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from gpu_worker.denoiser.model import DenoisingUNet3D, ReferenceCache
from gpu_worker.denoiser.pipeline import frame_orders
from gpu_worker.denoiser.sampler import SchedulerConfig, Step, make_steps
from gpu_worker.fast.build import build
from gpu_worker.fast.exchange import TeamExchange
from gpu_worker.fast.float8 import Tops, WatchingOps, layers_of, quantize
from gpu_worker.fast.network import Positions, StepInputs, StepRunner, audio_keys_values
from gpu_worker.fast.ops import Image, TorchOps, positions_of_part
from gpu_worker.fast.references import ReferenceSpaces, ShapeReferences, halved
from gpu_worker.fast.tiers import TIERS, Tier
from gpu_worker.fast.weights import Linear, Network, SpareColumn

logger = logging.getLogger(__name__)

#: frames, latent height and width, audio tokens a frame
Shape = tuple[int, int, int, int]

#: A clip's latents, tokens and pose features, as `FastDenoiser.sample` takes them
GivenTensors = tuple[Tensor, Tensor, Tensor]


class FastUnavailable(RuntimeError):
    """The fast path does not serve this model or these settings. The text says why."""


class Sampling(Protocol):
    """How a model is sampled where the caller does not say. `ModelConfig` has it."""

    @property
    def cfg(self) -> float: ...

    @property
    def steps(self) -> int: ...

    @property
    def window_shift(self) -> int: ...


class DenoiserModel(Protocol):
    """A denoiser on its device. `Models` is one, with more networks."""

    denoiser: DenoisingUNet3D
    scheduler: SchedulerConfig
    device: torch.device
    dtype: torch.dtype

    @property
    def config(self) -> Sampling: ...


@dataclass(slots=True, eq=False)
class ClipTensors:
    """A clip's inputs and result.

    latents (frames, channels, h, w), float32: starts in, results out. tokens (frames, count, width). pose
    (frames, positions, channels).
    """

    latents: Tensor
    tokens: Tensor
    pose: Tensor

    def fill(self, latents: Tensor, tokens: Tensor, pose_features: Tensor) -> None:
        """pose_features: (frames, channels, h, w)."""
        self.latents.copy_(latents)
        self.tokens.copy_(tokens)
        self.pose.copy_(pose_features.permute(0, 2, 3, 1).flatten(1, 2))


@dataclass(eq=False)
class _ShapeBuffers:
    """Buffers of one shape, and on CUDA the graph that reads and writes them.

    own: of the frames that this process computes. whole: of all frames, which are the same tensors unless a
    team shares them. None in a member that does not lead. references: space for a
    reference.
    """

    runner: StepRunner
    own: ClipTensors
    whole: ClipTensors | None
    references: ShapeReferences
    graphs: dict[int, torch.cuda.CUDAGraph] = field(default_factory=dict)  # by the step they start at


class FastDenoiser:
    """Makes clips of latents as `ClipDenoiser` does, without guidance.

    Args:
        models: from `load_models`. Weights are shared with them where they are the same.
        steps: sampling steps, None for the configuration's.
        tier: which approximations to make.
        ops: how to compute, None for Triton on CUDA and plain torch elsewhere.
        graphs: record CUDA graphs. False runs each kernel by itself, for comparison.
        tops: float8's scales of an earlier start. None: the first clip gives them.

    `prepare` makes a shape ready. `sample` takes prepared shapes alone. Both from one thread.
    Raises FastUnavailable where the model has guidance or Triton is absent.
    """

    #: With the other members, where a team shares each clip. Set before the first `prepare`.
    exchange: TeamExchange | None = None

    def __init__(
        self,
        models: DenoiserModel,
        *,
        steps: int | None = None,
        guidance_scale: float | None = None,
        tier: Tier = TIERS["exact"],
        ops: TorchOps | None = None,
        graphs: bool = True,
        tops: Tops | None = None,
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
        self.graphs = graphs and models.device.type == "cuda"
        self.network: Network = build(
            models.denoiser,
            [step.timestep for step in self.steps],
            self.ops.split,
            fold=not self.tier.fp8,
        )
        self._ready: dict[Shape, _ShapeBuffers] = {}
        # Where torch attends, it does so over [frame ; reference] in one place.
        self._reference_spaces = ReferenceSpaces(
            self.network, self.ops.two_sources, models.device, models.dtype
        )
        #: The memory that all graphs work in. One runs at a time, and its result lies elsewhere.
        self._pool: Any = None
        self._quantized = False
        self._tops = tops
        #: Seconds of clips that came before their graph's recording: compilers, and cuDNN's choice.
        self._first_clips = 0.0

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
        shape = shape_of(latents, tokens)
        if self.has_starts(shape, starts):
            return
        self.prepare_shape(shape, (latents, tokens, pose_features), reference, starts)

    def has_starts(self, shape: Shape, starts: Collection[int]) -> bool:
        """Whether clips of this shape may start at each of these steps."""
        ready = self._ready.get(shape)
        return ready is not None and (not self.graphs or set(starts) <= set(ready.graphs))

    @torch.inference_mode()
    def prepare_shape(
        self, shape: Shape, given: GivenTensors | None, reference: ReferenceCache, starts: Collection[int]
    ) -> None:
        """`prepare` of a new shape, or of more starts.

        given: None in a member that does not lead, the leader's go there.
        """
        begin, self._first_clips = time.monotonic(), 0.0
        buffers = self._ready.get(shape) or self._make_buffers(shape)
        self._fill(buffers, given, reference)
        if self.tier.fp8 and not self._quantized:
            self._quantize(buffers)
        if self.graphs:
            for start in sorted(set(starts) - set(buffers.graphs)):
                buffers.graphs[start] = self._record(buffers, start)
        self._ready[shape] = buffers
        logger.info(
            "fast path, tier %s, %d frames from steps %s: %.1f s, of which first clips %.1f s",
            self.tier.name, shape[0], sorted(starts), time.monotonic() - begin, self._first_clips,
        )  # fmt: skip

    def _quantize(self, buffers: _ShapeBuffers) -> None:
        layers = layers_of(self.network)
        tops = None if self._tops is None else self._tops.load(len(layers))
        if tops is None:
            tops = self._watch(buffers, layers)
            if self._tops is not None:
                self._tops.store(tops)
        quantize(layers, tops)
        self._quantized = True

    def _watch(self, buffers: _ShapeBuffers, layers: list[Linear]) -> list[float]:
        """The largest values that enter each layer in a clip, in any member of a team."""
        watching = WatchingOps(self.ops.split)
        runner = buffers.runner
        buffers.runner = StepRunner(self.network, watching, runner.positions, Tier(fp8=True), runner.exchange)
        whole = buffers.whole
        latents = None if whole is None else whole.latents.clone()
        self._run(buffers, 0)
        if whole is not None and latents is not None:
            whole.latents.copy_(latents)
        buffers.runner = runner
        if not layers:
            return []
        values = torch.stack([watching.largest[id(layer)] for layer in layers])
        if self.exchange is not None:
            self.exchange.largest(values)
        tops: list[float] = values.tolist()
        return tops

    def prepared(self, frames: int, height: int, width: int, tokens: int) -> bool:
        return (frames, height, width, tokens) in self._ready

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
        shape = shape_of(latents, tokens)
        whole = self.sample_shape(shape, (latents, tokens, pose_features), reference, start)
        assert whole is not None
        return whole.latents.clone()

    @torch.inference_mode()
    def sample_shape(
        self, shape: Shape, given: GivenTensors | None, reference: ReferenceCache, start: int
    ) -> ClipTensors | None:
        """`sample` of a prepared shape. given: as for `prepare_shape`. Returns the leader's own buffers."""
        buffers = self._ready[shape]
        self._fill(buffers, given, reference)
        if self.graphs:
            buffers.graphs[start].replay()
        else:
            self._run(buffers, start)
        return buffers.whole

    def _make_buffers(self, shape: Shape) -> _ShapeBuffers:
        frames, height, width, _ = shape
        members = 1 if self.exchange is None else self.exchange.size
        if frames % members:
            raise ValueError(f"{members} members cannot share {frames} frames")
        shift = self.models.config.window_shift
        orders = frame_orders(frames, len(self.steps), shift, self.models.device)
        positions = Positions.of(self.network, orders, self.models.dtype)
        own = self._empty_clip(shape, frames // members)
        whole: ClipTensors | None = own
        if self.exchange is not None:
            whole = self._empty_clip(shape, frames) if self.exchange.leads else None
        if self.exchange is not None:
            self.exchange.reserve(self._largest_crossing(shape), own.pose)
        runner = StepRunner(self.network, self.ops, positions, self.tier, self.exchange)
        references = self._reference_spaces.for_shape(len(own.latents), height, width)
        return _ShapeBuffers(runner, own, whole, references)

    def _largest_crossing(self, shape: Shape) -> int:
        """Values of all frames that the motion modules of a level exchange at most."""
        assert self.exchange is not None
        frames, height, width, _ = shape
        sizes = []
        for level, channels in enumerate(self.models.denoiser.config.block_out_channels):
            h, w = halved(height, width, level)
            sizes.append(frames * positions_of_part(h * w, self.exchange.size) * channels)
        return max(sizes)

    def _empty_clip(self, shape: Shape, frames: int) -> ClipTensors:
        """Tensors for so many frames of a clip of this shape."""
        _, height, width, count = shape
        config = self.models.denoiser.config
        device, dtype = self.models.device, self.models.dtype
        channels = config.block_out_channels[0]
        return ClipTensors(
            latents=torch.zeros(frames, config.in_channels, height, width, device=device),
            tokens=torch.zeros(frames, count, config.cross_attention_dim or 0, device=device, dtype=dtype),
            pose=torch.zeros(frames, height * width, channels, device=device, dtype=dtype),
        )

    def _fill(self, buffers: _ShapeBuffers, given: GivenTensors | None, reference: ReferenceCache) -> None:
        if buffers.whole is not None and given is not None:
            buffers.whole.fill(*given)
        buffers.references.fill(reference)

    def _record(self, buffers: _ShapeBuffers, start: int) -> torch.cuda.CUDAGraph:
        """The graph of a clip from step `start` on."""
        begin = time.monotonic()
        stream = torch.cuda.Stream(self.models.device)
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # compiles and chooses, none of which may happen while recording
            self._run(buffers, start)
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize(self.models.device)
        self._first_clips += time.monotonic() - begin
        if self._pool is None and self.exchange is None:  # a team's collectives know their graph's memory
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        # the prefetch thread may use the device meanwhile
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            self._run(buffers, start)
        buffers.runner.begin()  # lets go of what the steps kept, so that the next graph works there
        return graph

    def _run(self, buffers: _ShapeBuffers, start: int) -> None:
        """The steps from `start` on: the whole clip's latents → the same place."""
        buffers.runner.begin()
        own, whole = buffers.own, buffers.whole
        if self.exchange is not None:
            for name in ("latents", "tokens", "pose"):
                self.exchange.scatter(None if whole is None else getattr(whole, name), getattr(own, name))
        height, width = own.latents.shape[2:]
        # cuDNN is off by default here
        with torch.backends.cudnn.flags(enabled=True, benchmark=True):
            audio = audio_keys_values(self.network, own.tokens)
            references = buffers.references
            inputs = StepInputs(own.pose, audio, references.tensors, references.joined)
            latents = own.latents.permute(0, 2, 3, 1).contiguous().flatten(1, 2)
            for index in range(start, len(self.steps)):
                x = Image(latents.to(self.models.dtype), height, width)
                latents = self.steps[index](latents, buffers.runner.run(x, index, inputs).float())
            own.latents.copy_(latents.unflatten(1, (height, width)).permute(0, 3, 1, 2))
        if self.exchange is not None:
            self.exchange.gather(own.latents, None if whole is None else whole.latents)


def shape_of(latents: Tensor, tokens: Tensor) -> Shape:
    return len(latents), latents.shape[2], latents.shape[3], tokens.shape[1]


def supported(tier: Tier, device: torch.device) -> Tier:
    """The tier, without float8 where the device has none."""
    if tier.fp8 and device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 9):
        logger.info("tier %s: no float8 on %s", tier.name, torch.cuda.get_device_name(device))
        return replace(tier, fp8=False)
    return tier


def choose_ops(device: torch.device, dtype: torch.dtype) -> TorchOps:
    """Kernels on CUDA, plain torch elsewhere.

    Raises:
        FastUnavailable: Triton is absent, or the arithmetic is float32.
    """
    if device.type != "cuda":
        return TorchOps(SpareColumn())
    if dtype == torch.float32:
        raise FastUnavailable("its kernels are for half precision, --dtype is float32")
    try:
        from gpu_worker.fast.cuda_kernels import cuda_kernels
        from gpu_worker.fast.triton_ops import TritonOps
    except ImportError as error:
        raise FastUnavailable(f"Triton cannot be used: {error}") from error
    return TritonOps(cuda_kernels(device))
