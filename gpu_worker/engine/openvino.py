"""Torch's denoiser traced for OpenVINO, for models that ship no networks of their own.

Torch stays in memory, and encodes new avatars and poses. `shipped_networks` does without.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from gpu_worker.denoiser import model as networks
from gpu_worker.denoiser.model import DenoisingUNet3D, ReferenceCache
from gpu_worker.denoiser.model.attention import FOR_OPENVINO, during
from gpu_worker.denoiser.pipeline import ClipDenoiser
from gpu_worker.engine.cpu_denoiser import CpuDenoiser, ModelNumbers
from protocol.model.cpu_convert import load_graph
from protocol.model.cpu_graph import CpuEngine, CpuGraph
from protocol.model.hardware.dtypes import dtype_name
from protocol.wire.limits import MAX_CLIP_FRAMES, TOKEN_WIDTH

Floats = NDArray[np.float32]

#: The inputs of `TracedDenoiser` that have a row for each frame: latents, tokens, pose, order.
INPUTS_BY_FRAME = (0, 2, 3, 4)

#: Frames of the clip by which the network for any length is traced. With one, dimensions would be confused.
TRACED_FRAMES = 12


class TracedDenoiser(nn.Module):
    """The denoiser as a function of tensors alone, for clips of one avatar.

    Args:
        network: in float32.
        shapes: of an avatar's keys and values, block after block.
    """

    def __init__(self, network: DenoisingUNet3D, shapes: Sequence[torch.Size]) -> None:
        super().__init__()
        self.network = network
        self._shapes = list(shapes)

    def forward(
        self, latents: Tensor, time: Tensor, tokens: Tensor, pose: Tensor, order: Tensor, reference: Tensor
    ) -> Tensor:
        """As `DenoisingUNet3D.predict_clip`, with the reference as `flat_reference` makes it."""
        layers = whole_reference(reference, self._shapes).layers
        with during(FOR_OPENVINO):
            return self.network.predict_clip(latents, time, tokens, pose, order, layers)


def flat_reference(reference: ReferenceCache) -> Tensor:
    """An avatar's keys and values, block after block, as one float32 tensor (N,)."""
    return torch.cat([x.flatten() for pair in reference.layers for x in pair]).float()


def whole_reference(flat: Tensor, shapes: Sequence[torch.Size]) -> ReferenceCache:
    """The keys and values of `flat_reference`, in its dtype."""
    parts = flat.split([shape.numel() for shape in shapes])
    whole = [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
    return ReferenceCache(tuple(zip(whole[::2], whole[1::2], strict=True)))


def traced_denoiser(plain: ClipDenoiser, engine: CpuEngine) -> CpuDenoiser:
    """A model of torch by OpenVINO. Torch makes the clips for which a network fails.

    Args:
        plain: the model in torch. Its dtype is that of the arithmetic.
        engine: where compiled networks are kept, and how many threads they use.

    Raises:
        GraphUnavailable: the model needs what OpenVINO's denoiser does not have.
    """
    traced = TracedNetworks(plain, engine)
    numbers = ModelNumbers(
        plain.models.scheduler,
        len(plain.steps),
        plain.guidance_scale,
        plain.window_shift,
        plain.latent_channels,
        plain.max_frames,
        plain.size_multiple,
    )
    return CpuDenoiser(traced, numbers, fallback=traced.by_torch)


class TracedNetworks:
    """Makes OpenVINO's networks by tracing torch's. `CpuNetworks` says what the methods do.

    Args:
        plain: the model in torch. Its dtype is that of the arithmetic.
        engine: where compiled networks are kept, and how many threads they use.
    """

    def __init__(self, plain: ClipDenoiser, engine: CpuEngine) -> None:
        self._plain = plain
        self._engine = engine
        #: The shapes of an avatar's keys and values, by the size of the latents.
        self._shapes: dict[tuple[int, int], list[torch.Size]] = {}

    @property
    def dtype(self) -> str:
        """The arithmetic."""
        return dtype_name(self._plain.models.dtype)

    @torch.inference_mode()
    def times(self, timesteps: Sequence[int]) -> list[Floats]:
        """Embeddings (1, time width). Torch computes the sinusoids in float32: bfloat16 would mix them up."""
        embed = self._plain.models.denoiser.time_embedding
        return [F.silu(embed(torch.tensor([timestep]))).float().numpy() for timestep in timesteps]

    def denoiser(self, frames: int, h: int, w: int, tokens: int, *, any_length: bool) -> CpuGraph:
        """The denoiser for clips of one shape, or of all lengths up to the greatest."""
        models, shapes = self._plain.models, self._reference_shapes(h, w)
        count = TRACED_FRAMES if any_length else frames
        unet = models.denoiser.config
        inputs = (
            torch.zeros(count, self._plain.latent_channels, h, w),
            torch.from_numpy(self.times([0])[0]).clone(),
            torch.zeros(count, tokens, unet.cross_attention_dim or TOKEN_WIDTH),
            torch.zeros(count, unet.block_out_channels[0], h, w),
            torch.arange(count),
            torch.zeros(sum(shape.numel() for shape in shapes)),
        )
        with torch.no_grad():
            module = TracedDenoiser(copy.deepcopy(models.denoiser).float(), shapes).eval()
        shape = "x".join(map(str, ["any" if any_length else frames, h, w, tokens]))
        return load_graph(
            module,
            inputs,
            models.dtype,
            self._engine,
            name=f"denoiser-{shape}",
            sources=Path(networks.__file__).parents[1],
            lengths={index: MAX_CLIP_FRAMES for index in INPUTS_BY_FRAME} if any_length else {},
        )

    def reference(self, picture: NDArray[np.uint8]) -> Floats:
        """An avatar's keys and values, by torch."""
        flat: Floats = flat_reference(self._plain.prepare_reference(picture).reference).numpy()
        return flat

    def pose(self, maps: Floats) -> Floats:
        """Features of pose maps, by torch."""
        features: Floats = self._plain.encode_pose(torch.from_numpy(maps)).float().contiguous().numpy()
        return features

    def put_aside(self) -> None:
        """Torch's weights on a CPU stay where they are."""

    @torch.inference_mode()
    def by_torch(
        self, latents: Floats, tokens: Floats, pose: Floats, reference: Floats, start: int
    ) -> Floats:
        """A clip's latents by torch, with the arguments of `CpuDenoiser.sample`."""
        plain, dtype = self._plain, self._plain.models.dtype
        _, _, h, w = latents.shape
        shapes = self._reference_shapes(h, w)
        made = plain.sample(
            torch.from_numpy(latents),
            plain.project_audio(torch.from_numpy(tokens)),
            torch.from_numpy(pose).to(dtype),
            whole_reference(torch.from_numpy(reference).to(dtype), shapes),
            start,
        )
        latents_made: Floats = made.numpy()
        return latents_made

    @torch.inference_mode()
    def _reference_shapes(self, h: int, w: int) -> list[torch.Size]:
        if (h, w) not in self._shapes:
            made = self._plain.blank_reference(h, w)
            self._shapes[h, w] = [x.shape for pair in made.layers for x in pair]
        return self._shapes[h, w]
