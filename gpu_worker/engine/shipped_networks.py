"""The GPU worker's networks as the model ships them for OpenVINO: no torch is imported.

Denoiser, reference network and pose encoder compute in the worker's arithmetic, the VAE's encoder in float32.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_worker.engine.eight_bits import PAYS, multiplies_fast, rounding_of
from protocol.model.config import ModelConfig
from protocol.model.cpu_graph import CpuEngine, CpuGraph, Floats, best_times
from protocol.model.kept_record import read_record, write_record
from protocol.model.topology import DimensionSize, NetworkEnd, ShippedNetwork, Weights, read_tensors
from protocol.model.vae_folder import HALF_PREFIXES, WEIGHTS_FILES, VaeFolder
from protocol.process.logs import first_line
from protocol.wire.limits import MAX_CLIP_FRAMES, TOKEN_WIDTH

logger = logging.getLogger(__name__)

#: The networks' names.
DENOISER, REFERENCE, POSE_ENCODER, VAE_ENCODER = "denoiser", "reference", "pose_encoder", "vae_encoder"

#: The networks that make an avatar's keys and values: the names of their tensors begin with these.
OF_REFERENCE, OF_DENOISER = "reference.", "denoiser."

#: In the names of a denoiser's tensors that project an avatar's features.
PROJECTIONS = (".attn1.to_k.", ".attn1.to_v.")

#: The place of the frames' order among the denoiser's inputs.
ORDER = 4


# ------------------------------------------------------------------ tensors and numbers of a model


def denoiser_tensors(config: ModelConfig) -> Weights:
    """The denoiser's tensors with its motion modules'. Where both files hold one, the denoiser's counts."""
    own = read_tensors(config.denoising_unet_path)
    if config.motion_module_path is None:
        return own
    return {**read_tensors(config.motion_module_path), **own}


def reference_tensors(config: ModelConfig) -> Weights:
    """The reference network's tensors, and the denoiser's that make keys and values of its features."""
    return with_projections(
        read_tensors(config.reference_unet_path), read_tensors(config.denoising_unet_path)
    )


def with_projections(reference: Weights, denoiser: Weights) -> Weights:
    """The tensors of the network `reference`, from those of the reference network and of the denoiser."""
    projections = {name: x for name, x in denoiser.items() if any(part in name for part in PROJECTIONS)}
    return {
        **{OF_REFERENCE + name: x for name, x in reference.items()},
        **{OF_DENOISER + name: x for name, x in projections.items()},
    }


def vae_tensors(folder: VaeFolder) -> Weights:
    """The tensors of a VAE's encoder."""
    state = read_tensors(folder.path / WEIGHTS_FILES[0])
    return {name: x for name, x in state.items() if not name.startswith(HALF_PREFIXES["decoder"])}


def network_facts(config: ModelConfig) -> dict[str, Mapping[str, Any]]:
    """The numbers that each network must belong to, by the network's name."""
    unet = {"unet": config.base_unet_config(), "additional": config.unet_additional_kwargs}
    return {
        DENOISER: unet,
        REFERENCE: unet,
        POSE_ENCODER: {"pose_encoder": config.inference_config.get("pose_encoder_kwargs")},
        VAE_ENCODER: {"vae": VaeFolder.of(config).config},
    }


def shipped_networks(
    config: ModelConfig, height: int, width: int, dtype: str, engine: CpuEngine
) -> ShippedNetworks | None:
    """The networks of a model, or None where it ships none that belong to it.

    Args:
        config: the model.
        height: of the pictures that are encoded, in pixels.
        width: of them.
        dtype: of the arithmetic, float32 or bfloat16.
        engine: where networks are kept, and how many threads they use.

    Raises:
        SettingsError: weights cannot be read. The text names the file.
    """
    facts, vae = network_facts(config), VaeFolder.of(config)
    tensors = {
        DENOISER: lambda: denoiser_tensors(config),
        REFERENCE: lambda: reference_tensors(config),
        POSE_ENCODER: lambda: read_tensors(config.pose_encoder_path),
        VAE_ENCODER: lambda: vae_tensors(vae),
    }
    found = {
        name: ShippedNetwork.find(config.path, name, read, facts[name]) for name, read in tensors.items()
    }
    networks = {name: network for name, network in found.items() if network is not None}
    if len(networks) < len(found):
        return None
    may_round = engine.eight_bit and multiplies_fast()
    rounding = rounding_of(config.path, networks[DENOISER]) if may_round else None
    return ShippedNetworks(networks, (height, width), vae, dtype, engine, rounding)


# ------------------------------------------------------------------ the networks


class ShippedNetworks:
    """Makes each network when it is first asked for. It is compiled then, or read from the kept file.

    `CpuNetworks` says what the methods do.

    Args:
        networks: by name.
        size: height and width of the pictures that are encoded, in pixels.
        vae: gives the latents' channels and size.
        dtype: of the arithmetic.
        engine: where networks are kept, and how many threads they use.
        rounding: makes the denoiser round to eight bits, where that may serve.
    """

    def __init__(
        self,
        networks: Mapping[str, ShippedNetwork],
        size: tuple[int, int],
        vae: VaeFolder,
        dtype: str,
        engine: CpuEngine,
        rounding: NetworkEnd | None = None,
    ) -> None:
        self.dtype = dtype
        self._networks = networks
        self._size = size
        self._channels = vae.latent_channels
        self._latent_size = size[0] // vae.factor, size[1] // vae.factor
        self._engine = engine
        self.rounding = rounding
        #: Whether the denoiser rounds. None: that is to be timed.
        self.rounds: bool | None = None if rounding is not None else False
        self._loaded: dict[str, CpuGraph] = {}

    def times(self, timesteps: Sequence[int]) -> list[Floats]:
        """The embedding of each timestep after SiLU, (1, time width), in float32."""
        network = self._networks[DENOISER]
        shift = float(network.topology.facts["unet"].get("freq_shift", 0))
        return [time_embedding(network.weights, timestep, shift) for timestep in timesteps]

    def denoiser(self, frames: int, h: int, w: int, tokens: int, *, any_length: bool) -> FlatReferenceGraph:
        """The denoiser for clips of one shape, or of all lengths up to the greatest."""
        network = self._networks[DENOISER]
        blocks = block_shapes(network, h, w)
        count: DimensionSize = (1, MAX_CLIP_FRAMES) if any_length else frames
        pose_width, time_width = (network.topology.notes[key] for key in ("pose_width", "time_width"))
        shapes: list[Sequence[DimensionSize]] = [
            (count, self._channels, h, w),
            (1, time_width),
            (count, tokens, TOKEN_WIDTH),
            (count, pose_width, h, w),
            (count,),
            *blocks,
        ]
        name = "denoiser-" + "x".join(map(str, ["any" if any_length else frames, h, w, tokens]))
        if self.rounds is None:
            self.rounds = self._rounding_pays(name, shapes, _noise(shapes, frames))
        end = self.rounding if self.rounds else None
        graph = network.load(name, shapes, self.dtype, self._engine, end)
        return FlatReferenceGraph(graph, blocks)

    def _rounding_pays(
        self, name: str, shapes: Sequence[Sequence[DimensionSize]], inputs: Sequence[NDArray[Any]]
    ) -> bool:
        """Whether the denoiser is to round: as --cpu-engine asks, as an earlier start found, or timed now."""
        network, engine, dtype = self._networks[DENOISER], self._engine, self.dtype
        if engine.forced:
            return _told(True, dtype, "--cpu-engine asks for it")
        file = network.kept_file(name, shapes, dtype, engine, self.rounding)
        record = f"int8-{engine.threads}-{file.stem}"
        known = (read_record(engine.folder, record) or {}).get("pays")
        if isinstance(known, bool):
            return _told(known, dtype, "as an earlier start found")
        plain = network.load(name, shapes, dtype, engine)
        try:
            rounding = network.load(name, shapes, dtype, engine, self.rounding)
            exact, rounded = best_times([partial(plain, *inputs), partial(rounding, *inputs)])
        except Exception as error:  # whatever a processor's eight bits fail with, the other serves
            return _told(False, dtype, f"int8 cannot serve, {first_line(error)}")
        pays = rounded < PAYS * exact
        write_record(engine.folder, record, {"pays": pays})
        return _told(pays, dtype, f"a clip takes {1e3 * exact:.0f} ms, with int8 {1e3 * rounded:.0f} ms")

    def with_end(self, end: NetworkEnd) -> ShippedNetworks:
        """The same networks, with this added to the denoiser in place of rounding."""
        made = copy.copy(self)
        made.rounding, made.rounds = end, True
        return made

    def reference(self, picture: NDArray[np.uint8]) -> Floats:
        """An avatar's keys and values, block after block, (N,), of its picture (height, width, 3).

        Raises:
            ValueError: the picture has another shape.
            Exception: whatever fails in OpenVINO.
        """
        if picture.shape != (*self._size, 3):
            raise ValueError(f"picture of shape {picture.shape}: needs {(*self._size, 3)}")
        pixels = picture.transpose(2, 0, 1)[None].astype(np.float32) / np.float32(127.5) - np.float32(1)
        encode = self._graph(VAE_ENCODER, (1, 3, *self._size), "float32")
        project = self._graph(REFERENCE, (1, self._channels, *self._latent_size), self.dtype)
        flat: Floats = np.concatenate([x.reshape(-1) for x in project.outputs(encode(pixels))])
        return flat

    def pose(self, maps: Floats) -> Floats:
        """Features (n, c0, h, w) of pose maps (n, 3, height, width) in 0..1. Each map's depend on it alone.

        Raises:
            Exception: whatever fails in OpenVINO.
        """
        graph = self._graph(POSE_ENCODER, (1, 3, *self._size), self.dtype)
        made: Floats = np.concatenate([graph(one[None]).copy() for one in maps])
        return made

    def put_aside(self) -> None:
        """Lets the networks go that only new avatars and poses need, for their memory."""
        self._loaded.clear()

    def _graph(self, name: str, shape: Sequence[int], dtype: str) -> CpuGraph:
        if name not in self._loaded:
            file = f"{name.replace('_', '-')}-{'x'.join(map(str, shape[2:]))}"
            self._loaded[name] = self._networks[name].load(file, [shape], dtype, self._engine)
        return self._loaded[name]


class FlatReferenceGraph:
    """A denoiser that takes an avatar's keys and values as one array.

    Args:
        graph: takes those of each block by themselves, after all other inputs.
        blocks: their shapes, in order.
    """

    def __init__(self, graph: CpuGraph, blocks: Sequence[Sequence[int]]) -> None:
        self._graph = graph
        self._shapes = [tuple(shape) for shape in blocks]
        self._ends = np.cumsum([math.prod(shape) for shape in blocks])[:-1]

    @property
    def file(self) -> Path:
        """Where the network is kept."""
        return self._graph.file

    def release_file(self) -> None:
        """Lets the pages of the kept file go."""
        self._graph.release_file()

    def __call__(self, *inputs: NDArray[Any]) -> Floats:
        """The prediction for latents, time, tokens, pose, order and reference (N,).

        The next call writes over it.
        """
        first: Floats = self.outputs(*inputs)[0]
        return first

    def outputs(self, *inputs: NDArray[Any]) -> tuple[NDArray[Any], ...]:
        """All outputs of the network. As the call otherwise."""
        *first, reference = inputs
        parts = np.split(reference, self._ends)
        own = [part.reshape(shape) for part, shape in zip(parts, self._shapes, strict=True)]
        return self._graph.outputs(*first, *own)


def _told(rounds: bool, dtype: str, reason: str) -> bool:
    """Logs whether the denoiser rounds, and why."""
    logger.info("denoising by %s%s: %s", "int8 and " if rounds else "", dtype, reason)
    return rounds


def _noise(shapes: Sequence[Sequence[DimensionSize]], frames: int) -> list[NDArray[Any]]:
    """Inputs of a denoiser for a clip of so many frames."""
    random = np.random.default_rng(0)
    made: list[NDArray[Any]] = []
    for shape in shapes:
        sides = [side if isinstance(side, int) else frames for side in shape]
        made.append(random.standard_normal(sides).astype(np.float32))
    made[ORDER] = np.arange(frames)
    return made


def block_shapes(network: ShippedNetwork, h: int, w: int) -> list[tuple[int, int, int]]:
    """The shapes (1, tokens, width) of an avatar's keys and values of each block, for latents of this size.

    The keys come first in each block, and the values have their shape.
    """
    shapes = []
    for width, level in network.topology.notes["blocks"]:
        tokens = -(-h // 2**level) * -(-w // 2**level)  # each level halves the sides, rounded up
        shapes += [(1, tokens, width)] * 2
    return shapes


def time_embedding(weights: Weights, timestep: int, freq_shift: float) -> Floats:
    """A timestep's embedding after SiLU, as `resnet.TimestepEmbedding` makes it, (1, time width).

    It is computed here, since OpenVINO's sines of large angles are off by 1e-5. Angles are float32 as torch's
    are, and functions of them float64: numpy's float32 ones are less exact than torch's.
    """

    def linear(x: Floats, name: str) -> Floats:
        weight, bias = (
            weights[f"time_embedding.{name}.{part}"].astype(np.float32) for part in ("weight", "bias")
        )
        made: Floats = x @ weight.T + bias
        return made

    half = weights["time_embedding.linear_1.weight"].shape[1] // 2
    exponents = np.arange(half, dtype=np.float32) * np.float32(-math.log(10000.0) / (half - freq_shift))
    rates = np.exp(exponents.astype(np.float64)).astype(np.float32)
    angles = (np.float32(timestep) * rates).astype(np.float64)
    wave = np.concatenate([np.cos(angles), np.sin(angles)])[None].astype(np.float32)
    return _silu(linear(_silu(linear(wave, "linear_1")), "linear_2"))


def _silu(x: Floats) -> Floats:
    made: Floats = x / (1 + np.exp(-x))
    return made
