"""Latents of a clip to 8-bit pictures, a few frames at a time, on any device."""

from __future__ import annotations

import copy
import logging
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from encoder_worker.graph_decoder import CHUNK, GraphDecoder, open_kinds, quickest
from encoder_worker.jpeg import Picture
from encoder_worker.latents import DecodeError, check_latents
from encoder_worker.shipped_decoder import ShippedDecoders
from encoder_worker.vae.decoders import Decoder
from encoder_worker.vae.doubling import fold_doubling
from encoder_worker.vae.openvino import LARGE_DECODER, graph_decoder
from protocol.model.cpu_graph import CpuEngine, best_times, is_faster
from protocol.model.hardware.dtypes import dtype_name, dtypes_to_try
from protocol.model.kernels.ahead import wait_for_kernels
from protocol.model.ranges_table import Ranges
from protocol.process.logs import first_line

if TYPE_CHECKING:
    from encoder_worker.fast.fixed_size import FixedSizeDecoder

logger = logging.getLogger(__name__)

#: Latent side of the timing run: the bundled model's, and small enough that a large VAE times quickly.
TUNING_SIDE = 16
TUNING_ROUNDS = 3
#: Chunks of pictures that lie in pinned memory at once, while they are decoded and become JPEGs.
CHUNKS_HELD = 5
#: A plan replaces the one before it only if it takes less than this part of its time.
CLEARLY = 0.85


@dataclass(frozen=True, slots=True)
class DecoderPlan:
    """How to run the decoder: arithmetic and memory layout."""

    dtype: torch.dtype
    channels_last: bool

    def __str__(self) -> str:
        layout = "channels_last" if self.channels_last else "contiguous"
        return f"{dtype_name(self.dtype)} {layout}"


def plans_for(device: torch.device, dtype: str) -> list[DecoderPlan]:
    """The plans worth timing on `device`. `dtype` "auto" leaves the arithmetic open."""
    dtypes = dtypes_to_try(dtype, device)
    if device.type != "cpu":
        return [DecoderPlan(dtypes[0], True)]
    plans = [DecoderPlan(dtypes[0], True), DecoderPlan(dtypes[0], False)]
    # bfloat16 comes first: a plan replaces the one before it only where it is clearly faster.
    return [DecoderPlan(faster, True) for faster in dtypes[1:]] + plans


class ClipDecoder:
    """Decodes clips in chunks, so that a clip's first frames leave before its last are made.

    Args:
        decoder: from `load_decoder`.
        device: where it runs.
        dtype: "float32", "bfloat16", "float16" or "auto": float16 on CUDA, and the fastest on a CPU.
        chunk: frames decoded at once.
        fast: the decoder that `warm_up` builds for its size on a GPU: "exact", "eight_bit", or "" for none.
        engine: how `warm_up` may use OpenVINO on a CPU, or None for torch alone.
        ranges: of the convolutions that may round to eight bits, or None where none may.
        shipped: the decoder as its model ships it for OpenVINO. None: the one in torch is converted.
    """

    def __init__(
        self,
        decoder: Decoder,
        device: torch.device,
        dtype: str = "auto",
        chunk: int = CHUNK,
        fast: str = "exact",
        engine: CpuEngine | None = None,
        ranges: Ranges | None = None,
        shipped: ShippedDecoders | None = None,
    ) -> None:
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", torch.cuda.current_device())
        self.device = device
        self._decoder = decoder
        self._fast_kind = fast
        self._fast: FixedSizeDecoder | None = None
        self._dtype = dtype
        self._engine = engine if device.type == "cpu" else None
        self._ranges = ranges
        self._shipped = shipped
        #: The decoder by OpenVINO, where that serves.
        self.openvino: GraphDecoder | None = None
        #: Whether `warm_up` has timed OpenVINO against torch.
        self.was_timed = False
        self.chunk = chunk
        self.channels = decoder.channels
        self.factor = decoder.factor
        self._scaling, self._shift = decoder.scaling, decoder.shift
        plans = plans_for(device, dtype)
        modules = {plan: _prepared(decoder, device, plan) for plan in plans}
        self.plan = plans[0] if len(plans) == 1 else self._fastest(modules)
        self._module = modules[self.plan]

    def decode(self, latents: npt.NDArray[np.float16]) -> Iterator[Picture]:
        """Scaled latents (frames, C, h, w) → (n, H, W, 3) uint8 RGB, n ≤ chunk, in order.

        Raises:
            DecodeError: wrong number of channels, or values that are not finite.
        """
        check_latents(latents, self.channels)
        if self._fast is not None and latents.shape[2:] == self._fast.latents.shape[2:]:
            yield from self._decode_fast(self._fast, latents)
            return
        if self.openvino is not None and latents.shape[2:] == self.openvino.size:
            yield from self.openvino.decode(latents)
            return
        for start in range(0, len(latents), self.chunk):
            yield self._decode(latents[start : start + self.chunk])

    def warm_up(self, h: int, w: int) -> float:
        """Make ready for latents of this size by decoding noise. Returns seconds for a chunk once warm."""
        if self._fast_kind and self.device.type == "cuda":
            self._build_fast(h, w)
        if self._engine is not None:
            self._build_openvino(self._engine, h, w)
        noise = np.random.default_rng(0).standard_normal((self.chunk, self.channels, h, w))
        latents = noise.astype(np.float16)
        taken = 0.0
        for _ in range(2):
            start = time.perf_counter()
            list(self.decode(latents))
            taken = time.perf_counter() - start
        return taken

    @property
    def is_fast(self) -> bool:
        """Whether `warm_up` could make the fast decoder ready."""
        return self._fast is not None

    @property
    def has_eight_bit(self) -> bool:
        """Whether OpenVINO can decode in eight bits."""
        return self._ranges is not None if self._shipped is None else self._shipped.has_eight_bit

    @property
    def is_eight_bit(self) -> bool:
        """Whether OpenVINO decodes in eight bits."""
        return self.openvino is not None and self.openvino.is_eight_bit

    def describe(self) -> str:
        """How it decodes, for people."""
        if self.openvino is not None:
            return self.openvino.describe()
        return str(self.plan) if self._fast is None else f"{self._fast}"

    # ------------------------------------------------------------------ OpenVINO

    @torch.inference_mode()
    def _build_openvino(self, engine: CpuEngine, h: int, w: int) -> None:
        """OpenVINO for this size, if it is faster than torch. If anything fails there, torch decodes.

        Eight bits serve where they save a quarter of the time of OpenVINO's other arithmetic.
        """
        if not engine.forced and sum(p.numel() for p in self._decoder.parameters()) > LARGE_DECODER:
            return
        dtype = dtypes_to_try(self._dtype, self.device)[-1]  # bfloat16 where the processor has it
        noise = torch.randn(self.chunk, self.channels, h, w)
        try:
            candidates = self._graphs(engine, h, w, dtype)
            own = partial(self._by_torch, self._module, self.plan, noise)
            tasks = [partial(made.unscaled, noise.numpy()) for made in candidates]
            *times, by_torch = best_times([*tasks, own])
        except Exception as error:  # a library that is not there, a conversion that fails
            logger.warning("decoding by torch, OpenVINO cannot serve: %s", first_line(error))
            return
        made, best = quickest(candidates, times)
        self.openvino = made if engine.forced or is_faster(best, by_torch) else None
        self.was_timed = True
        timed = {"torch": by_torch}
        timed |= dict(zip((each.describe() for each in candidates), times, strict=True))
        logger.info(
            "decoding by %s: a frame takes %s",
            "torch" if self.openvino is None else made.describe(),
            ", ".join(f"{name} {1e3 * seconds / self.chunk:.1f} ms" for name, seconds in timed.items()),
        )

    def _graphs(self, engine: CpuEngine, h: int, w: int, dtype: torch.dtype) -> list[GraphDecoder]:
        """The decoders by OpenVINO that may serve: without eight bits, with them, or one that is forced."""
        name = dtype_name(dtype)
        first, *others = open_kinds(engine, has_ranges=self.has_eight_bit, dtype=name)

        def make(eight_bit: bool) -> GraphDecoder:
            if self._shipped is not None:
                return self._shipped.load(self.chunk, h, w, name, engine, eight_bit=eight_bit)
            ranges = self._ranges if eight_bit else None
            return graph_decoder(self._decoder, self.chunk, h, w, dtype, engine, ranges)

        made = [make(first)]
        for kind in others:
            try:
                made.append(make(kind))
            except Exception as error:  # whatever a processor's eight bits fail with, the others serve
                logger.warning("decoding without int8: %s", first_line(error))
        return made

    # ------------------------------------------------------------------ the fast decoder

    def _build_fast(self, h: int, w: int) -> None:
        """Build a CUDA graph for this size. A failure leaves the decoder as it was."""
        begin = time.perf_counter()
        try:
            from encoder_worker.fast.choice import fast_decoder

            wait_for_kernels(self._fast_kind)
            eight_bit = self._fast_kind == "eight_bit"
            self._fast = fast_decoder(
                self._decoder, self.device, self.plan.dtype, self.chunk, h, w, eight_bit=eight_bit
            )
            self._take_pinned(self._fast)
            logger.info("decoder: %s, recorded in %.1f s", self._fast, time.perf_counter() - begin)
        except Exception as error:  # compilers and drivers fail in any way; the plain module always works
            logger.warning(
                "the fast decoder cannot be used, decoding by %s: %s", self.plan, first_line(error)
            )

    @staticmethod
    def _take_pinned(fast: FixedSizeDecoder) -> None:
        """Has torch take the pinned memory of a few chunks. It keeps what is freed.

        Taking some stops the device, which a clip would wait for.
        """
        chunks = [
            torch.empty(fast.pixels.shape, dtype=torch.uint8, pin_memory=True) for _ in range(CHUNKS_HELD)
        ]
        chunks.clear()

    def _decode_fast(self, fast: FixedSizeDecoder, latents: npt.NDArray[np.float16]) -> Iterator[Picture]:
        """While a chunk's pictures are used (encoded, as a rule) the next one is being decoded."""
        begun: deque[tuple[torch.cuda.Event, torch.Tensor, torch.Tensor, int]] = deque()
        for start in range(0, len(latents), self.chunk):
            begun.append(self._begin(fast, latents[start : start + self.chunk]))
            if len(begun) > 1:
                yield self._end(latents, start - self.chunk, *begun.popleft())
        start = (len(latents) - 1) // self.chunk * self.chunk
        while begun:
            yield self._end(latents, start, *begun.popleft())

    @torch.inference_mode()
    def _begin(
        self, fast: FixedSizeDecoder, latents: npt.NDArray[np.float16]
    ) -> tuple[torch.cuda.Event, torch.Tensor, torch.Tensor, int]:
        """Starts a chunk → the event of its end, pixels and error count in pinned memory, its frames."""
        count = len(latents)
        scaled = torch.zeros(fast.latents.shape, pin_memory=True)
        scaled[:count] = torch.from_numpy(np.array(latents)).float() / self._scaling + self._shift
        with torch.cuda.device(self.device):
            fast.latents.copy_(scaled, non_blocking=True)
            fast.run()
            pixels = torch.empty(fast.pixels.shape, dtype=torch.uint8, pin_memory=True)
            bad = torch.empty(fast.bad.shape, dtype=torch.int32, pin_memory=True)
            pixels.copy_(fast.pixels, non_blocking=True)
            bad.copy_(fast.bad, non_blocking=True)
            done = torch.cuda.Event()
            done.record()
        return done, pixels, bad, count

    def _end(
        self,
        latents: npt.NDArray[np.float16],
        start: int,
        done: torch.cuda.Event,
        pixels: torch.Tensor,
        bad: torch.Tensor,
        count: int,
    ) -> Picture:
        done.synchronize()
        if int(bad) == 0:
            array: Picture = pixels[:count].numpy()
            return array
        if self._fast is not None:
            self._fast = None
            logger.warning("values beyond %s: decoding goes on in float32, slower", self.plan.dtype)
            self.plan = DecoderPlan(torch.float32, True)
            self._module = _prepared(self._decoder, self.device, self.plan)
        return self._decode(latents[start : start + count])

    # ------------------------------------------------------------------ the plain one

    @torch.inference_mode()
    def _decode(self, latents: npt.NDArray[np.float16]) -> Picture:
        x = torch.from_numpy(np.array(latents)).to(self.device, torch.float32)
        x = x / self._scaling + self._shift
        pictures = self._by_torch(self._module, self.plan, x)
        if not bool(pictures.sum().isfinite()):
            raise DecodeError(f"the decoder's output is not finite in {self.plan.dtype}; try --dtype float32")
        pixels = pictures.mul(127.5).add_(127.5).round_().clamp_(0, 255).to(torch.uint8)
        array: Picture = pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
        return array

    def _by_torch(self, module: Decoder, plan: DecoderPlan, latents: torch.Tensor) -> torch.Tensor:
        """Unscaled latents → pictures, float32."""
        x = latents.to(plan.dtype)
        pictures: torch.Tensor = module(x.contiguous(memory_format=_layout(plan)))
        return pictures.float()

    @torch.inference_mode()
    def _fastest(self, modules: dict[DecoderPlan, Decoder]) -> DecoderPlan:
        """The plan that takes least time here. Among near equals it is the first."""
        noise = torch.randn(1, self.channels, TUNING_SIDE, TUNING_SIDE)
        times: dict[DecoderPlan, float] = {}
        for turn in range(1 + TUNING_ROUNDS):
            # in turns, so that other work at start-up slows each of them alike
            for plan, module in modules.items():
                start = time.perf_counter()
                self._by_torch(module, plan, noise)
                taken = time.perf_counter() - start
                times[plan] = taken if turn <= 1 else min(times[plan], taken)
        best = next(iter(times))
        for plan, taken in times.items():
            if taken < CLEARLY * times[best]:
                best = plan
        logger.info("decoding by %s: %s", best, _shown(times))
        return best


def _prepared(decoder: Decoder, device: torch.device, plan: DecoderPlan) -> Decoder:
    """A copy of the decoder as the plan wants it."""
    module: Any = copy.deepcopy(decoder)  # torch's stubs do not know `memory_format` below
    fold_doubling(module)
    prepared: Decoder = module.to(device, plan.dtype, memory_format=_layout(plan))
    return prepared


def _layout(plan: DecoderPlan) -> torch.memory_format:
    return torch.channels_last if plan.channels_last else torch.contiguous_format


def _shown(times: dict[DecoderPlan, float]) -> str:
    return ", ".join(f"{plan} {seconds * 1e3:.1f} ms" for plan, seconds in times.items()) + " a frame"
