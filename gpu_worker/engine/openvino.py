"""The denoiser by OpenVINO on a CPU: one network for the shape of most clips, and one for any length.

The second makes the same latents and takes a fifth longer. Networks for three rates would take 65 MiB each.
It repacks the weights for its first clip, which takes 30 MiB and a second clip's time more. Each further
length takes 3 MiB. A pause makes the lengths of service ready (`warm`), so that a machine that falls behind
neither waits nor grows.

The avatar's keys and values are inputs of the network. As constants they would cost a compilation for each
avatar. The sampler's arithmetic stays in torch, so one network serves every step.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpu_worker.denoiser import model as networks
from gpu_worker.denoiser.model import DenoisingUNet3D, ReferenceCache
from gpu_worker.denoiser.model.transformer import BlockConditions
from gpu_worker.denoiser.pipeline import ClipDenoiser, frame_orders
from protocol.model.cpu_convert import load_graph
from protocol.model.cpu_graph import CpuEngine, CpuGraph, GraphUnavailable
from protocol.wire.limits import MAX_CLIP_FRAMES

#: The inputs of `TracedDenoiser` that have a row for each frame: latents, tokens, pose, order.
INPUTS_BY_FRAME = (0, 2, 3, 4)

#: Frames of the clip by which the network for any length is traced. With one, dimensions would be confused.
TRACED_FRAMES = 12

#: Frames, latent height, latent width, tokens of a frame.
Shape = tuple[int, int, int, int]


class TracedDenoiser(nn.Module):
    """The denoiser as a function of tensors alone, for clips of one avatar.

    Args:
        network: in float32.
        reference: gives the shapes of an avatar's keys and values.
    """

    def __init__(self, network: DenoisingUNet3D, reference: ReferenceCache) -> None:
        super().__init__()
        self.network = network
        self._shapes = [x.shape for pair in reference.layers for x in pair]

    def forward(
        self, latents: Tensor, time: Tensor, tokens: Tensor, pose: Tensor, order: Tensor, reference: Tensor
    ) -> Tensor:
        """Predicts v for each frame, (F, C, h, w).

        Args:
            latents: (F, C, h, w).
            time: embedding of the timestep after SiLU, (1, time width).
            tokens: audio tokens (F, T, 384).
            pose: pose features (F, c0, h, w).
            order: positions (F,) of the frames in the motion modules.
            reference: the avatar's keys and values, as `flat_reference` makes them.
        """
        network = self.network
        parts = reference.split([shape.numel() for shape in self._shapes])
        whole = [part.reshape(shape) for part, shape in zip(parts, self._shapes, strict=True)]
        conditions = BlockConditions(
            time=time,
            frames=latents.shape[0],
            audio=tuple(block.attn2.keys_values(tokens) for block in network.transformer_blocks.values()),
            reference=tuple(zip(whole[::2], whole[1::2], strict=True)),
            order=order,
        )
        x = network.run(network.conv_in(latents) + pose, conditions)
        prediction: Tensor = network.conv_out(F.silu(network.conv_norm_out(x)))
        return prediction


def flat_reference(reference: ReferenceCache) -> Tensor:
    """An avatar's keys and values, block after block, as one float32 tensor (N,)."""
    return torch.cat([x.flatten() for pair in reference.layers for x in pair]).float()


class OpenVinoDenoiser:
    """Samples clips by OpenVINO. Belongs to the compute thread.

    Args:
        plain: the model in torch. Its dtype is that of the arithmetic.
        engine: where compiled networks are kept, and how many threads they use.

    Raises:
        GraphUnavailable: guidance needs a second, unconditional half, which is not compiled.
    """

    def __init__(self, plain: ClipDenoiser, engine: CpuEngine) -> None:
        if plain.guidance_scale > 1:
            raise GraphUnavailable(f"guidance {plain.guidance_scale} needs an unconditional half")
        if plain.models.denoiser.config.motion is None:
            raise GraphUnavailable("a denoiser without motion modules")
        self.steps = plain.steps
        self._plain = plain
        self._engine = engine
        self._favoured: tuple[Shape, CpuGraph] | None = None
        #: For clips of any length: the shape but for its frames, and the network.
        self._any_length: tuple[Shape, CpuGraph] | None = None
        #: Lengths of clips that it has made.
        self._lengths_made: set[int] = set()
        self._orders: dict[int, list[Tensor]] = {}
        # In torch, which computes the sinusoids in float32. Bfloat16 cannot tell timesteps apart.
        network = plain.models.denoiser
        with torch.no_grad():
            self._times = [
                F.silu(network.time_embedding(torch.tensor([step.timestep]))).float() for step in plain.steps
            ]

    def prepare(self, latents: Tensor, tokens: Tensor, pose: Tensor, reference: ReferenceCache) -> None:
        """Compiles for clips of this one's shape, and forgets the shape before. Arguments as for `sample`.

        Raises:
            Exception: whatever fails in OpenVINO. torch can serve instead.
        """
        shape = _shape(latents, tokens)
        if self._favoured is None or self._favoured[0] != shape:
            self._favoured = None  # first, so that two are never in memory
            self._favoured = shape, self._compiled(latents, tokens, pose, reference, any_length=False)

    def prepare_any_length(
        self, latents: Tensor, tokens: Tensor, pose: Tensor, reference: ReferenceCache
    ) -> None:
        """Compiles for clips of all lengths and of this one's size. Arguments and errors as for `prepare`."""
        shape = _shape(latents, tokens)
        if self._any_length is None or self._any_length[0][1:] != shape[1:]:
            self._any_length = None
            self._lengths_made.clear()
            self._any_length = shape, self._compiled(latents, tokens, pose, reference, any_length=True)

    def _compiled(
        self,
        latents: Tensor,
        tokens: Tensor,
        pose: Tensor,
        reference: ReferenceCache,
        *,
        any_length: bool,
    ) -> CpuGraph:
        if any_length:
            latents, tokens, pose = (_of_length(x, TRACED_FRAMES) for x in (latents, tokens, pose))
        models = self._plain.models
        with torch.no_grad():
            module = TracedDenoiser(copy.deepcopy(models.denoiser).float(), reference).eval()
            inputs = self._inputs(latents, tokens, pose, reference, 0)
            # Inference tensors cannot be traced, their copies can.
            inputs = tuple(x.clone() for x in inputs)
        frames, *size = _shape(latents, tokens)
        shape = "x".join(map(str, ["any" if any_length else frames, *size]))
        return load_graph(
            module,
            inputs,
            models.dtype,
            self._engine,
            name=f"denoiser-{shape}",
            sources=Path(networks.__file__).parents[1],
            lengths={index: MAX_CLIP_FRAMES for index in INPUTS_BY_FRAME} if any_length else {},
        )

    def _graph_for(self, shape: Shape) -> CpuGraph | None:
        if self._favoured is not None and self._favoured[0] == shape:
            return self._favoured[1]
        if self._any_length is not None and self._any_length[0][1:] == shape[1:]:
            return self._any_length[1] if shape[0] <= MAX_CLIP_FRAMES else None
        return None

    def cold(self, lengths: Sequence[int]) -> list[int]:
        """Those of these lengths that the network for any length is to make, and has not made yet."""
        if self._any_length is None:
            return []
        own = None if self._favoured is None else self._favoured[0][0]
        return [frames for frames in lengths if frames != own and frames not in self._lengths_made]

    def warm(self, latents: Tensor, tokens: Tensor, pose: Tensor, reference: ReferenceCache) -> None:
        """Runs one step for clips of this one's shape. Arguments as for `sample`."""
        self.sample(latents, tokens, pose, reference, len(self.steps) - 1)
        if self._any_length is not None:
            self._any_length[1].release_file()

    def prepared(self, frames: int, height: int, width: int, tokens: int) -> bool:
        """Whether `sample` can make clips of this shape."""
        return self._graph_for((frames, height, width, tokens)) is not None

    def prepared_frames(self, frames: int) -> bool:
        """Whether `sample` can make clips of so many frames."""
        networks = (self._favoured, self._any_length)
        return any(self.prepared(frames, *network[0][1:]) for network in networks if network is not None)

    @torch.inference_mode()
    def sample(
        self, latents: Tensor, tokens: Tensor, pose: Tensor, reference: ReferenceCache, start: int = 0
    ) -> Tensor:
        """The sampling loop of one clip.

        Args:
            latents: starting latents (F, C, h, w), float32.
            tokens: audio tokens (F, T, 384).
            pose: pose features (F, c0, h, w).
            reference: the avatar's keys and values.
            start: number of the first step.

        Returns:
            Scaled latents (F, C, h, w), float32.
        """
        graph = self._graph_for(_shape(latents, tokens))
        assert graph is not None, "sample is called for shapes that are prepared"
        if self._any_length is not None and graph is self._any_length[1]:
            self._lengths_made.add(len(latents))
        _, *conditions = self._inputs(latents, tokens, pose, reference, start)
        for index in range(start, len(self.steps)):
            conditions[0], conditions[3] = self._times[index], self._order(len(latents))[index]
            made = graph(*(x.numpy() for x in (latents, *conditions)))
            latents = self.steps[index](latents, torch.from_numpy(made))
        return latents

    def _inputs(
        self, latents: Tensor, tokens: Tensor, pose: Tensor, reference: ReferenceCache, index: int
    ) -> tuple[Tensor, ...]:
        order = self._order(len(latents))[index]
        return (
            latents.float().contiguous(),
            self._times[index],
            tokens.float().contiguous(),
            pose.float().contiguous(),
            order,
            flat_reference(reference),
        )

    def _order(self, frames: int) -> list[Tensor]:
        if frames not in self._orders:
            shift = self._plain.window_shift
            device = self._plain.models.device
            self._orders[frames] = frame_orders(frames, len(self.steps), shift, device)
        return self._orders[frames]


def _of_length(rows: Tensor, length: int) -> Tensor:
    """The rows over and over, (length, …)."""
    return rows[torch.arange(length) % len(rows)]


def _shape(latents: Tensor, tokens: Tensor) -> Shape:
    frames, _, height, width = latents.shape
    return frames, height, width, tokens.shape[1]
