"""The ladder's rows: each adds something to the one before and makes a clip of latents."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from gpu_worker.denoiser.loading import Models, channels_last
from gpu_worker.denoiser.model import ReferenceCache, attention
from gpu_worker.denoiser.pipeline import ClipDenoiser, frame_orders
from gpu_worker.fast import FastDenoiser
from gpu_worker.fast.clip import choose_ops
from gpu_worker.fast.ops import TorchOps
from gpu_worker.fast.tiers import TIERS, Tier
from gpu_worker.fast.weights import SplitRule
from scripts.bench.gpu.ladder.model import ClipInputs
from scripts.bench.gpu.ladder.official import features_cache, projecting_everything

Sample = Callable[[], Tensor]
#: Entered as a context, it gives the function that makes the clip.
Maker = Callable[[Models, ClipInputs], AbstractContextManager[Sample]]


@dataclass(frozen=True)
class Rung:
    """A way to make a clip. cuda: it needs a GPU. slow: its start takes long, so it runs only on demand."""

    key: str
    text: str
    make: Maker
    cuda: bool = False
    slow: bool = False


@contextmanager
def _official(models: Models, clip: ClipInputs) -> Iterator[Sample]:
    denoiser = ClipDenoiser(models)
    cache = features_cache(models.denoiser, clip.bank)
    with projecting_everything():
        yield lambda: _sample_with_tokens(denoiser, clip, cache)


def _eager(audio_each_step: bool, compiled: str = "") -> Maker:
    @contextmanager
    def make(models: Models, clip: ClipInputs) -> Iterator[Sample]:
        own = models
        if compiled:
            torch.compiler.reset()
        if compiled == "default":
            network: Any = torch.compile(models.denoiser, dynamic=False)
            own = replace(models, denoiser=network)
        denoiser = ClipDenoiser(own, compile_unet=compiled == "reduce-overhead")

        def sample() -> Tensor:
            if audio_each_step:
                return _sample_with_tokens(denoiser, clip, clip.reference)
            return denoiser.sample(clip.noise, denoiser.project_audio(clip.tokens), clip.pose, clip.reference)

        yield sample

    return make


@torch.inference_mode()
def _sample_with_tokens(denoiser: ClipDenoiser, clip: ClipInputs, reference: ReferenceCache) -> Tensor:
    """A clip whose audio is projected at every step. Returns latents (F, C, h, w)."""
    models = denoiser.models
    latents, pose = clip.noise.transpose(0, 1)[None], clip.pose.transpose(0, 1)[None]
    orders = frame_orders(len(clip.noise), len(denoiser.steps), denoiser.window_shift, models.device)
    for step, order in zip(denoiser.steps, orders, strict=True):
        x = latents.to(models.dtype)
        made = models.denoiser(x, step.timestep, clip.tokens[None], pose, reference, order)
        latents = step(latents, made.float())
    return latents[0].transpose(0, 1)


@contextmanager
def _channels(models: Models, clip: ClipInputs) -> Iterator[Sample]:
    channels_last(models.denoiser)  # stays so for the rows below
    with _eager(False)(models, clip) as sample:
        yield sample


def _with_cudnn(inner: Maker) -> Maker:
    """`inner` with cuDNN's attention everywhere but over the frames, where it is slow."""

    def attend(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
        with sdpa_kernel([SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION], set_priority=True):
            return attention.sdpa(q, k, v, heads)

    @contextmanager
    def make(models: Models, clip: ClipInputs) -> Iterator[Sample]:
        attention.activate(attention.Backend("cudnn", "cuDNN attention", attend=attend))
        try:
            with inner(models, clip) as sample:
                yield sample
        finally:
            attention.activate(attention.SDPA)

    return make


def _fast(
    tier: Tier = TIERS["exact"], ops: Callable[[Models], TorchOps] | None = None, graph: bool = True
) -> Maker:
    """The fast path with these stages, by default those that are served."""

    @contextmanager
    def make(models: Models, clip: ClipInputs) -> Iterator[Sample]:
        channels_last(models.denoiser)  # as loading does: otherwise convolutions have weights of their own
        chosen = (ops or _served)(models)
        denoiser = FastDenoiser(models, ops=chosen, tier=tier, graphs=graph)
        given = (clip.noise, clip.tokens, clip.pose, clip.reference)
        denoiser.prepare(*given)
        yield lambda: denoiser.sample(*given)

    return make


def _served(models: Models) -> TorchOps:
    return choose_ops(models.device, models.dtype)


def _plain(models: Models) -> TorchOps:
    return TorchOps()


#: The methods of the operations that make each stage.
STAGES: dict[str, tuple[str, ...]] = {
    "norms": ("add", "group_norm", "layer_norm"),
    "double": ("double",),
    "temporal": ("temporal",),
    "gate": ("geglu", "geglu_into"),
    "attention": ("attention",),
}


def _without(*stages: str) -> Callable[[Models], TorchOps]:
    """The Triton stages, but these in plain torch."""

    def make(models: Models) -> TorchOps:
        from gpu_worker.fast.triton_ops import TritonOps

        plain = {name: getattr(TorchOps, name) for stage in stages for name in STAGES[stage]}
        ops: TorchOps = type("PartlyTritonOps", (TritonOps,), plain)()
        if "attention" in stages:
            ops.split = SplitRule()
        return ops

    return make


def _attending(**options: bool) -> Callable[[Models], TorchOps]:
    """The Triton stages, with other ways of spatial attention (`kernels.attention.AttentionTile`)."""

    def make(models: Models) -> TorchOps:
        from gpu_worker.fast.triton_ops import TritonOps

        ops = TritonOps()
        ops.spatial_tile = replace(ops.spatial_tile, **options)
        return ops

    return make


def _in_cuda(models: Models, sizes: tuple[int, ...] | None = None, **without: None) -> TorchOps:
    """The Triton stages, and the kernels in CUDA C++ that serve on this card, but for those set to None.

    sizes: of heads, for spatial attention. None: all that it serves.
    """
    from gpu_worker.fast.cuda_kernels import cuda_kernels
    from gpu_worker.fast.triton_ops import TritonOps

    kernels = replace(cuda_kernels(models.device), **without)
    if kernels.spatial is not None and sizes is not None:
        kernels.spatial.sizes = sizes
    return TritonOps(kernels)


ODD = frozenset({1, 3, 5})
TRIALS: list[tuple[str, str, dict[str, Any]]] = [
    ("fp8", "qkv and feed-forwards in float8", {"fp8": True}),
    ("frame", "the frame's keys merged 2×2 there", {"merge_frame": True}),
    ("reuse", "self-attention there reused at steps 2, 4 and 6", {"reuse_attention": ODD}),
    ("shallow", "only the highest level at steps 2, 4 and 6", {"shallow": ODD}),
    ("noreuse", "the fast tier without self-attention reused at step 2",
     {"merge_frame": True, "fp8": True, "shallow": ODD}),
    *((f"{kind}-{step}", f"{text} at step {step}", {option: frozenset({step - 1})})
      for kind, text, option in (
          ("reuse", "self-attention of the highest resolution reused", "reuse_attention"),
          ("shallow", "only the highest level", "shallow"))
      for step in range(2, 7)),
]  # fmt: skip
ROWS = [
    Rung("official", "faithful eager, all projected at every step and frame, as officially", _official),
    Rung("reference", "+ reference keys and values once per avatar", _eager(True)),
    Rung("audio", "+ audio keys and values once per clip", _eager(False)),
    Rung("channels", "+ channels_last", _channels),
    Rung("cudnn", "+ cuDNN attention", _with_cudnn(_eager(False)), cuda=True),
    Rung("compile", "+ torch.compile, default mode", _with_cudnn(_eager(False, "default")),
        cuda=True, slow=True),
    Rung("reduce", "torch.compile, reduce-overhead instead", _with_cudnn(_eager(False, "reduce-overhead")),
        cuda=True, slow=True),
    Rung("fused", "fast path: fused weights, plain torch stages", _fast(ops=_plain, graph=False)),
    Rung("graph", "+ six steps in one CUDA graph", _fast(ops=_without(*STAGES)), cuda=True),
    Rung("norms", "+ norms by Triton", _fast(ops=_without("double", "temporal", "gate", "attention")),
        cuda=True),
    Rung("double", "+ up-sampling convolutions in four phases",
        _fast(ops=_without("temporal", "gate", "attention")), cuda=True),
    Rung("temporal", "+ temporal attention by Triton", _fast(ops=_without("gate", "attention")), cuda=True),
    Rung("gate", "+ GEGLU's gate in one pass by Triton", _fast(ops=_without("attention")), cuda=True),
    Rung("attention", "+ spatial and audio attention of small heads by Triton",
        _fast(ops=_attending(narrow=False, sampled=False)), cuda=True),
    Rung("sampled", "+ spatial softmax without a running maximum", _fast(ops=_attending(narrow=False)),
        cuda=True),
    Rung("narrow", "+ its logits from 48 columns of 64", _fast(ops=_attending()), cuda=True),
    Rung("cuda", "+ temporal attention in CUDA C++",
        _fast(ops=partial(_in_cuda, spatial=None, gated=None)), cuda=True),
    Rung("spatial", "+ spatial attention in CUDA C++",
        _fast(ops=partial(_in_cuda, sizes=(40,), gated=None)), cuda=True),
    Rung("gated", "+ GEGLU within its product in CUDA C++", _fast(ops=partial(_in_cuda, sizes=(40,))),
        cuda=True),
    Rung("large", "+ spatial attention of larger heads in CUDA C++", _fast(ops=_in_cuda), cuda=True),
    Rung("exact", "the exact tier", _fast(), cuda=True),
    Rung("nograph", "exact, without the graph", _fast(graph=False), cuda=True),
    *(Rung(f"try-{key}", f"exact, but {text}", _fast(tier=Tier(key, text, **options)),
          slow="-" in key)  # one step by itself
      for key, text, options in TRIALS),
    *(Rung(f"tier-{name}", tier.text, _fast(tier=tier)) for name, tier in TIERS.items() if name != "exact"),
]  # fmt: skip
