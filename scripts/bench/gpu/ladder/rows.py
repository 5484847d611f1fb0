"""The ladder's rows: what each adds to the one before, as a function that makes a clip of latents."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from gpu_worker.denoiser.loading import Models, _channels_last
from gpu_worker.denoiser.model import attention
from gpu_worker.denoiser.pipeline import ClipDenoiser
from gpu_worker.fast import FastDenoiser
from gpu_worker.fast.clip import choose_ops
from gpu_worker.fast.ops import TorchOps
from gpu_worker.fast.tiers import TIERS, Tier
from gpu_worker.fast.weights import SpareColumn
from scripts.bench.gpu.ladder.model import Clip
from scripts.bench.gpu.ladder.official import features_cache, projecting_everything

Sample = Callable[[], Tensor]


@dataclass(frozen=True)
class Row:
    """`make(models, clip)` is entered as a context and gives what makes the clip."""

    key: str
    text: str
    make: Callable[[Models, Clip], object]
    cuda: bool = False
    slow: bool = False  # takes long to get ready; only where asked for


@contextmanager
def _official(models: Models, clip: Clip) -> Iterator[Sample]:
    denoiser = ClipDenoiser(models)
    cache = features_cache(models.denoiser, clip.bank)

    def sample() -> Tensor:
        latents, pose = clip.noise.transpose(0, 1)[None], clip.pose.transpose(0, 1)[None]
        with torch.inference_mode():
            for index, (step, order) in enumerate(
                zip(denoiser.steps, denoiser._order(len(clip.noise)), strict=True)
            ):
                x = latents.to(models.dtype)
                made = models.denoiser(x, step.timestep, clip.tokens[None], pose, cache, order)
                latents = step(latents, made.float())
                del made, index
        return latents[0].transpose(0, 1)

    with projecting_everything():
        yield sample


def _eager(audio_each_step: bool, compiled: str = "") -> Callable[[Models, Clip], object]:
    @contextmanager
    def make(models: Models, clip: Clip) -> Iterator[Sample]:
        denoiser = ClipDenoiser(models)
        if compiled:
            torch._dynamo.reset()
            denoiser._forward = torch.compile(models.denoiser, mode=compiled, dynamic=False)
            denoiser._graphs = compiled == "reduce-overhead"

        def sample() -> Tensor:
            if audio_each_step:
                return _sample_with_tokens(denoiser, clip)
            return denoiser.sample(clip.noise, denoiser.project_audio(clip.tokens), clip.pose, clip.reference)

        yield sample

    return make


@torch.inference_mode()
def _sample_with_tokens(denoiser: ClipDenoiser, clip: Clip) -> Tensor:
    latents, pose = clip.noise.transpose(0, 1)[None], clip.pose.transpose(0, 1)[None]
    for step, order in zip(denoiser.steps, denoiser._order(len(clip.noise)), strict=True):
        x = latents.to(denoiser.models.dtype)
        made = denoiser.models.denoiser(x, step.timestep, clip.tokens[None], pose, clip.reference, order)
        latents = step(latents, made.float())
    return latents[0].transpose(0, 1)


@contextmanager
def _channels(models: Models, clip: Clip) -> Iterator[Sample]:
    _channels_last(models.denoiser)  # stays so for the rows below
    with _eager(False)(models, clip) as sample:  # type: ignore[attr-defined]
        yield sample


def _with_cudnn(inner: Callable[[Models, Clip], object]) -> Callable[[Models, Clip], object]:
    """`inner` with cuDNN's attention everywhere but over the frames, where it is slow."""

    def attend(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
        with sdpa_kernel([SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION], set_priority=True):
            return attention.sdpa(q, k, v, heads)

    @contextmanager
    def make(models: Models, clip: Clip) -> Iterator[Sample]:
        attention.activate(attention.Backend("cudnn", "cuDNN attention", attend=attend))
        try:
            with inner(models, clip) as sample:  # type: ignore[attr-defined]
                yield sample
        finally:
            attention.activate(attention.SDPA)

    return make


def _fast(
    *without: str,
    tier: Tier = TIERS["exact"],
    graph: bool = True,
    torch_ops: bool = False,
    gated: bool = True,
    **options: bool,
) -> Callable[[Models, Clip], object]:
    """The fast path; `without` and `options` as `TritonOps` takes them, gated as `choose_ops` does."""

    @contextmanager
    def make(models: Models, clip: Clip) -> Iterator[Sample]:
        _channels_last(models.denoiser)  # as loading does: otherwise convolutions have weights of their own
        ops: TorchOps = TorchOps(None if tier == TIERS["exact"] else SpareColumn())
        if models.device.type == "cuda" and not torch_ops:
            given_ops: dict[str, Any] = {**dict.fromkeys(("direct", "parts", "fold"), not without), **options}
            own = gated and not without
            ops = choose_ops(models.device, models.dtype, gated=own, without=without, **given_ops)
        denoiser = FastDenoiser(models, ops=ops, tier=tier, graphs=graph)
        given = (clip.noise, clip.tokens, clip.pose, clip.reference)
        denoiser.prepare(*given)
        yield lambda: denoiser.sample(*given)

    return make


def _with_cublaslt(inner: Callable[[Models, Clip], object]) -> Callable[[Models, Clip], object]:
    """`inner` with every matrix product by cuBLASLt; otherwise only those with a bias are."""

    @contextmanager
    def make(models: Models, clip: Clip) -> Iterator[Sample]:
        before = torch.backends.cuda.preferred_blas_library()
        torch.backends.cuda.preferred_blas_library("cublaslt")
        try:
            with inner(models, clip) as sample:  # type: ignore[attr-defined]
                yield sample
        finally:
            torch.backends.cuda.preferred_blas_library(before)

    return make


ODD = frozenset({1, 3, 5})
BEFORE: dict[str, Any] = {"parts": False, "fold": False, "gated": False}  # rows above those
TRIALS: list[tuple[str, str, dict[str, Any]]] = [
    ("fp8", "qkv and feed-forwards in float8", {"fp8": True}),
    ("reference", "reference keys merged 2×2 at the highest resolution", {"merge_reference": True}),
    ("frame", "the frame's keys merged 2×2 there", {"merge_frame": True}),
    ("reuse", "self-attention there reused at steps 2, 4 and 6", {"reuse_attention": ODD}),
    ("shallow", "only the highest level at steps 2, 4 and 6", {"shallow": ODD}),
    ("shallow2", "only the two highest levels at steps 2, 4 and 6", {"shallow": ODD, "depth": 2}),
    ("noreuse", "the fast tier without self-attention reused at step 2",
     {"merge_frame": True, "fp8": True, "shallow": ODD}),
    *((f"{kind}-{step}", f"{text} at step {step}", {**more, key: frozenset({step - 1})})
      for kind, text, key, more in (
          ("reuse", "self-attention of the highest resolution reused", "reuse_attention", {}),
          ("shallow", "only the highest level", "shallow", {}),
          ("shallow2", "only the two highest levels", "shallow", {"depth": 2}))
      for step in range(2, 7)),
]  # fmt: skip
ROWS = [
    Row("official", "faithful eager, all projected at every step and frame, as officially", _official),
    Row("reference", "+ reference keys and values once per avatar", _eager(True)),
    Row("audio", "+ audio keys and values once per clip", _eager(False)),
    Row("channels", "+ channels_last", _channels),
    Row("cudnn", "+ cuDNN attention", _with_cudnn(_eager(False)), cuda=True),
    Row("compile", "+ torch.compile, default mode", _with_cudnn(_eager(False, "default")),
        cuda=True, slow=True),
    Row("reduce", "torch.compile, reduce-overhead instead", _with_cudnn(_eager(False, "reduce-overhead")),
        cuda=True, slow=True),
    Row("fused", "fast path: fused weights, plain torch stages", _fast(torch_ops=True, graph=False)),
    Row("graph", "+ six steps in one CUDA graph", _fast("norms", "double", "temporal", "gate", "attention"),
        cuda=True),
    Row("norms", "+ norms by Triton", _fast("double", "temporal", "gate", "attention"), cuda=True),
    Row("double", "+ up-sampling convolutions in four phases", _fast("temporal", "gate", "attention"),
        cuda=True),
    Row("temporal", "+ temporal attention by Triton", _fast("gate", "attention"), cuda=True),
    Row("gate", "+ GEGLU's gate in one pass by Triton", _fast("attention"), cuda=True),
    Row("attention", "+ spatial and audio attention of small heads by Triton",
        _fast(**BEFORE, sampled=False, narrow=False, direct=False), cuda=True),
    Row("sampled", "+ spatial softmax without a running maximum",
        _fast(**BEFORE, narrow=False, direct=False), cuda=True),
    Row("narrow", "+ its logits from 48 columns of 64", _fast(**BEFORE, direct=False), cuda=True),
    Row("direct", "+ keys and values of large heads made where they are read", _fast(**BEFORE), cuda=True),
    Row("parts", "+ layer norms in five parts of a row", _fast(fold=False, gated=False), cuda=True),
    Row("folded", "+ a transformer's last feed-forward and projection in one product", _fast(gated=False),
        cuda=True),
    Row("exact", "+ GEGLU within a matrix product by QuACK: the exact tier", _fast(), cuda=True),
    Row("early", "exact, Triton's kernels by programmatic dependent launch", _fast(early=True), cuda=True),
    Row("whole", "exact, group norms of small images in one kernel each", _fast(whole=True), cuda=True),
    Row("cublaslt", "exact, all other matrix products by cuBLASLt", _with_cublaslt(_fast()), cuda=True),
    Row("nograph", "exact, without the graph", _fast(graph=False), cuda=True),
    Row("geglu", "folded, GEGLU within a matrix product by Triton", _fast(fused_geglu=True, gated=False),
        cuda=True),
    *(Row(f"try-{key}", f"exact, but {text}", _fast(tier=Tier(key, text, **options)),
          slow="-" in key)  # one step by itself
      for key, text, options in TRIALS),
    *(Row(f"tier-{name}", tier.text, _fast(tier=tier)) for name, tier in TIERS.items() if name != "exact"),
]  # fmt: skip
