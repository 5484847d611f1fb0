"""The helper that compiles the fast path's kernels while the worker loads. It takes the worker's flags."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, partial

import torch
from torch import Tensor

from gpu_worker.denoiser.model import DenoisingUNet3D
from gpu_worker.denoiser.numbers import scheduler_config, unet_configs
from gpu_worker.denoiser.sampler import SchedulerConfig
from gpu_worker.engine.device import keep_compiled_code
from gpu_worker.engine.load import LARGE_MODEL
from gpu_worker.fast.clip import FastDenoiser, Shape
from gpu_worker.fast.cuda_kernels import HOPPER, CudaKernels
from gpu_worker.fast.exchange import Crossing, TeamExchange
from gpu_worker.fast.float8 import layers_of
from gpu_worker.fast.kernels.spatial_cuda import SHAPES, CudaSpatial
from gpu_worker.fast.tiers import TIERS, Tier, clips_name
from gpu_worker.fast.triton_ops import OWN_ATTENTION, TritonOps
from gpu_worker.fast.weights import Float8
from protocol.model.audio_tokens import tokens_per_frame
from protocol.model.config import ModelConfig
from protocol.model.hardware.devices import PLUS
from protocol.model.hardware.dtypes import DTYPES
from protocol.model.kernels.helper import Part, run_helper
from protocol.model.vae_folder import VaeFolder
from protocol.process.settings import Settings, settings_from_command_line

META = torch.device("meta")

#: Steps that launch every kernel: a tier with shallow steps has them at every other one.
STEPS = 2

#: The least compute capability with float8.
FLOAT8_FROM = 89

#: Tiers and frames that --quality auto may serve, about in the order in which it tries them. On a Hopper card
#: 512² ends with the first, and 768² with the second or third.
SEARCHED = [
    *(("exact", 2), ("fast", 4), ("fast", 6), ("exact", 4), ("exact", 6)),
    *(("fast", 2), ("fast", 3), ("exact", 3), ("fast", 12), ("exact", 12)),
]


@dataclass
class BlankModel:
    """A denoiser without values, as `clip.DenoiserModel`."""

    denoiser: DenoisingUNet3D
    scheduler: SchedulerConfig
    config: ModelConfig
    dtype: torch.dtype
    device: torch.device = META


class BlankExchange(TeamExchange):
    """Exchanges of the leader of a team that exchanges nothing.

    Args:
        size: members.
    """

    def __init__(self, size: int) -> None:
        self.rank, self.size, self.direct = 0, size, False

    def reserve(self, values: int, like: Tensor) -> None:
        pass

    def crossing(self, frames: int, positions: int, channels: int, like: Tensor) -> Crossing:
        sent, received = (like.new_empty(self.size, frames, positions, channels) for _ in range(2))
        arrived, made = (torch.empty_like(sent).flatten(0, 1) for _ in range(2))
        return Crossing(sent.unbind(0), _nothing, arrived, made, _nothing, received.unbind(0))

    def scatter(self, whole: Tensor | None, own: Tensor) -> None:
        pass

    def gather(self, own: Tensor, whole: Tensor | None) -> None:
        pass


def _nothing() -> None:
    pass


class BlankSpatial(CudaSpatial):
    """Takes the larger heads, for which Triton's kernel only makes blocks anew. It launches nothing."""

    sizes = tuple(size for size in SHAPES if size > OWN_ATTENTION)

    def __init__(self) -> None:
        pass

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, ref_k: Tensor, ref_v: Tensor, out: Tensor, heads: int
    ) -> Tensor:
        return self.blocks(q, heads)


class BlankDenoiser(FastDenoiser):
    """Launches a clip's kernels on tensors without values.

    Args:
        model: without values too.
        tier: of the clips.
        members: of the team that shares each clip, or 1.
        hopper: whether it is for a Hopper card.
    """

    def __init__(self, model: BlankModel, tier: Tier, members: int = 1, *, hopper: bool = False) -> None:
        ops = TritonOps(CudaKernels(spatial=BlankSpatial() if hopper else None))
        super().__init__(model, steps=STEPS, guidance_scale=1.0, tier=tier, ops=ops, graphs=False)
        self.exchange = BlankExchange(members) if members > 1 else None
        if tier.fp8:
            for layer in layers_of(self.network):
                scale = torch.empty((), device=META)
                weight = torch.empty_like(layer.weight, dtype=torch.float8_e4m3fn)
                layer.float8 = Float8(weight, 1.0, 1.0, (scale, scale))

    @torch.inference_mode()
    def launch_all(self, shape: Shape) -> None:
        """Launches what a clip of this shape needs."""
        self._run(self._make_buffers(shape), 0)


def parts_of(settings: Settings, capability: int) -> Iterator[Part]:
    """The kernels of clips of each tier and length that may serve, those that --quality auto tries first.

    Raises:
        ConfigError: a number of the model is missing or impossible.
    """
    config = ModelConfig.load(settings.config)
    dtype = DTYPES["float16" if settings.dtype == "auto" else settings.dtype]
    with torch.inference_mode(), META:
        denoiser = DenoisingUNet3D(unet_configs(config)[0]).to(META, dtype)
    large = sum(p.numel() for p in denoiser.parameters()) > LARGE_MODEL
    model = BlankModel(denoiser.eval().requires_grad_(False), scheduler_config(config), config, dtype)
    factor = VaeFolder.of(config).factor
    width, height = (side // factor for side in config.picture_size(settings))
    tokens = tokens_per_frame(settings.audio_margin)
    members = len(settings.gpu_devices[settings.worker_index].split(PLUS))

    @cache
    def blank(name: str) -> BlankDenoiser:
        tier = TIERS[name]
        fp8 = tier.fp8 and capability >= FLOAT8_FROM
        return BlankDenoiser(model, replace(tier, fp8=fp8), members, hopper=divmod(capability, 10) == HOPPER)

    def launch(tier: str, frames: int) -> None:
        blank(tier).launch_all((frames, height, width, tokens))

    for tier, frames in clips_of(settings, config.cfg, members, large=large):
        yield clips_name(tier, frames), partial(launch, tier, frames)


def clips_of(settings: Settings, cfg: float, members: int, *, large: bool) -> list[tuple[str, int]]:
    """Tiers and frames of the clips that the fast path may make, in the order in which a start wants them.

    Args:
        settings: of the worker.
        cfg: guidance of the model.
        members: of the worker's team, or 1.
        large: whether the model is one for which --quality auto picks.
    """
    guided = (settings.cfg or cfg) > 1
    if settings.compile_unet is False or guided or settings.dtype == "float32":
        return []
    given = settings.tier or "exact", settings.frames_a_clip
    alone = len(settings.gpu_devices) == 1  # workers side by side have clips of the usual length
    length = settings.clip_frames if alone else settings.frames_a_clip
    if settings.quality != "auto" or not large:
        wanted = [given] if settings.compile_unet else []
    else:
        # a team keeps its tier
        wanted = [
            (tier, frames)
            for tier, frames in SEARCHED
            if settings.tier in (None, tier) and length in (None, frames)
            if members == 1 or tier == given[0]
        ] or [given]
    return [(tier, frames) for tier, frames in wanted if frames % members == 0]


def main() -> None:
    settings = settings_from_command_line()
    keep_compiled_code(settings)
    devices = settings.gpu_devices
    run_helper(partial(parts_of, settings), devices[settings.worker_index], len(devices))


if __name__ == "__main__":
    main()
