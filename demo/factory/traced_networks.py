"""The networks of a model as functions of tensors alone, for `demo.factory.topologies`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from audio_worker.mel import POSITIONS
from audio_worker.shipped_whisper import WHISPER, whisper_facts
from audio_worker.whisper import load_whisper
from encoder_worker.shipped_decoder import EIGHT_BIT, FINE, PLAIN, decoder_facts
from encoder_worker.vae.decoders import load_decoder
from encoder_worker.vae.int8 import rounding_layers, with_eight_bits
from encoder_worker.vae.ranges import eight_bit_tensors
from gpu_worker.avatars.vae_encoder import load_vae_encoder
from gpu_worker.denoiser.loading import Models, load_models
from gpu_worker.denoiser.model import DenoisingUNet3D, PoseEncoder, ReferenceUNet2D
from gpu_worker.denoiser.model.attention import FOR_OPENVINO, during
from gpu_worker.engine.shipped_networks import (
    DENOISER,
    POSE_ENCODER,
    REFERENCE,
    VAE_ENCODER,
    network_facts,
    with_projections,
)
from protocol.model.config import ModelConfig
from protocol.model.topology import Weights
from protocol.model.vae_folder import VaeFolder
from protocol.wire.limits import TOKEN_WIDTH

#: Side of the latents that networks are traced with. Other sizes try them out.
SIDE = 16

#: Frames of the clip that the denoiser is traced with. With one, dimensions would be confused.
FRAMES = 12

#: Audio tokens of a frame that it is traced with.
TOKENS = 50

Inputs = tuple[Tensor, ...]


@dataclass
class TracedNetwork:
    """A network that is to become a topology.

    Attributes:
        name: of the topology.
        module: takes the inputs in their order.
        example: inputs that it is traced with.
        others: makes inputs of other, smaller shapes, to try it out.
        weights: its tensors by the names of the model's files.
        facts: the numbers that it belongs to.
        notes: numbers that its readers need.
        eight_bit: whether it rounds to eight bits.
        rebuild: makes the module anew with random weights of a seed, where more than weights depends on it.
    """

    name: str
    module: nn.Module
    example: Inputs
    others: Callable[[], Sequence[Inputs]]
    weights: Callable[[], Weights]
    facts: Mapping[str, Any]
    notes: Mapping[str, Any] = field(default_factory=dict)
    eight_bit: bool = False
    rebuild: Callable[[int], nn.Module] | None = None

    def randomise(self, seed: int) -> None:
        """Gives every weight a random value."""
        if self.rebuild is None:
            randomise(self.module, seed)
        else:
            self.module = self.rebuild(seed)


class ClipNetwork(nn.Module):
    """The denoiser's one step for a clip of one avatar."""

    def __init__(self, network: DenoisingUNet3D) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, latents: Tensor, time: Tensor, tokens: Tensor, pose: Tensor, order: Tensor, *reference: Tensor
    ) -> Tensor:
        """As `DenoisingUNet3D.predict_clip`, with the keys and values of each block in turn."""
        layers = tuple(zip(reference[::2], reference[1::2], strict=True))
        with during(FOR_OPENVINO):
            return self.network.predict_clip(latents, time, tokens, pose, order, layers)


class ReferenceNetwork(nn.Module):
    """From an avatar's scaled latents (1, C, h, w) to its keys and values of each block, in turn."""

    def __init__(self, reference: ReferenceUNet2D, denoiser: DenoisingUNet3D) -> None:
        super().__init__()
        self.reference = reference
        self.denoiser = denoiser

    def forward(self, latents: Tensor) -> tuple[Tensor, ...]:
        layers = self.denoiser.project_reference(self.reference(latents)).layers
        return tuple(x for pair in layers for x in pair)


class PoseNetwork(nn.Module):
    """From pose maps (n, 3, H, W) in 0..1 to features (n, c0, h, w)."""

    def __init__(self, encoder: PoseEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, maps: Tensor) -> Tensor:
        features: Tensor = self.encoder(maps.transpose(0, 1)[None])[0].transpose(0, 1)
        return features


def randomise(module: nn.Module, seed: int) -> None:
    """Gives every weight of a module a random value."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            # As small as a layer's weights are, so that values stay in range behind many layers.
            scale = 0.5 / max(parameter[0].numel(), 4) ** 0.5 if parameter.ndim > 1 else 0.3
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))


def state_of(module: nn.Module) -> Weights:
    """A module's tensors that lie in a model's files: all but tables that are computed."""
    return {name: x.numpy() for name, x in module.state_dict().items() if not name.endswith("pos_encoder.pe")}


def traced_networks(config: ModelConfig) -> Iterator[TracedNetwork]:
    """The networks of a model, with its weights in them."""
    models = load_models(config, torch.device("cpu"), torch.float32)
    facts = network_facts(config)
    yield _clip_network(models, facts[DENOISER])
    yield _reference_network(models, facts[REFERENCE])
    pose = PoseNetwork(models.pose_encoder)
    yield TracedNetwork(
        POSE_ENCODER,
        pose,
        (torch.rand(2, 3, 256, 256),),
        lambda: [(torch.rand(1, 3, 96, 160),), (torch.rand(3, 3, 64, 64),)],
        lambda: state_of(models.pose_encoder),
        facts[POSE_ENCODER],
    )
    vae = load_vae_encoder(VaeFolder.of(config))
    yield TracedNetwork(
        VAE_ENCODER,
        vae,
        (2 * torch.rand(1, 3, 256, 256) - 1,),
        lambda: [(2 * torch.rand(1, 3, 96, 160) - 1,)],
        lambda: state_of(vae),
        facts[VAE_ENCODER],
    )
    for fine in (False, True):
        if not fine or config.has_fine_head:
            yield from _decoders(config, fine=fine)
    yield _whisper(config)


def _clip_network(models: Models, facts: Mapping[str, Any]) -> TracedNetwork:
    denoiser, channels = models.denoiser, models.denoiser.config.in_channels
    blocks = [(block.width, _level(denoiser, name)) for name, block in denoiser.transformer_blocks.items()]
    pose_width = denoiser.config.block_out_channels[0]
    time_width = 4 * pose_width

    def inputs(frames: int, h: int, w: int, tokens: int) -> Inputs:
        sizes = [(-(-h // 2**level) * -(-w // 2**level), width) for width, level in blocks for _ in range(2)]
        return (
            torch.randn(frames, channels, h, w),
            torch.randn(1, time_width),
            torch.randn(frames, tokens, TOKEN_WIDTH),
            torch.randn(frames, pose_width, h, w),
            torch.arange(frames).roll(1),
            *(torch.randn(1, count, width) for count, width in sizes),
        )

    return TracedNetwork(
        DENOISER,
        ClipNetwork(denoiser).eval(),
        inputs(FRAMES, SIDE, SIDE, TOKENS),
        lambda: [inputs(1, 8, 10, 20), inputs(5, 14, 6, TOKENS)],
        lambda: state_of(denoiser),
        facts,
        {"blocks": blocks, "pose_width": pose_width, "time_width": time_width},
    )


def _decoders(config: ModelConfig, *, fine: bool) -> Iterator[TracedNetwork]:
    """A head of the decoder, and the same in eight bits."""
    folder = VaeFolder.of(config)
    decoder = load_decoder(folder, fine=fine)
    name, facts, channels = FINE if fine else PLAIN, decoder_facts(folder), decoder.channels
    example = (torch.randn(2, channels, SIDE, SIDE),)

    def others() -> Sequence[Inputs]:
        return [(torch.randn(1, channels, 6, 10),)]

    yield TracedNetwork(name, decoder, example, others, lambda: state_of(decoder), facts)
    ranges: dict[str, float] = {}

    def rounding(seed: int) -> nn.Module:
        randomise(decoder, seed)
        for number, (layer, _) in enumerate(rounding_layers(decoder)):
            ranges[layer] = 2 + seed + 0.37 * number
        return with_eight_bits(decoder, ranges).eval()

    yield TracedNetwork(
        name + EIGHT_BIT,
        rounding(0),
        example,
        others,
        lambda: eight_bit_tensors(state_of(decoder), ranges),
        facts,
        {"order": list(decoder.state_dict())},
        eight_bit=True,
        rebuild=rounding,
    )


def _whisper(config: ModelConfig) -> TracedNetwork:
    encoder = load_whisper(config.audio_model_path, "short")
    mel = encoder.encoder.conv1.weight.shape[1]

    def weights() -> Weights:
        return state_of(encoder.encoder)

    def inputs() -> Inputs:
        return (torch.randn(1, mel, 2 * POSITIONS),)

    return TracedNetwork(WHISPER, encoder, inputs(), lambda: [inputs()], weights, whisper_facts(config))


def _level(network: DenoisingUNet3D, name: str) -> int:
    """The level of a block, 0 for the highest resolution."""
    part, _, rest = name.partition(".")
    last = network.config.levels - 1
    if part == "mid_block":
        return last
    index = int(rest.partition(".")[0])
    return index if part == "down_blocks" else last - index


def _reference_network(models: Models, facts: Mapping[str, Any]) -> TracedNetwork:
    channels = models.denoiser.config.in_channels
    return TracedNetwork(
        REFERENCE,
        ReferenceNetwork(models.reference, models.denoiser).eval(),
        (torch.randn(1, channels, SIDE, SIDE),),
        lambda: [(torch.randn(1, channels, 8, 14),)],
        lambda: with_projections(state_of(models.reference), state_of(models.denoiser)),
        facts,
    )
