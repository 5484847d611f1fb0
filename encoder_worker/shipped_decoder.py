"""The decoder as a model ships it for OpenVINO: no torch is imported.

Where torch is installed, it is timed against torch's (`head_choices`). Elsewhere it serves.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from encoder_worker.graph_decoder import DecoderFacts, GraphDecoder, open_kinds, quickest
from encoder_worker.vae.pixels import pixels_end, require_finite
from encoder_worker.vae.ranges import ROUNDED, eight_bit_tensors, read_table, tensors_digest
from protocol.model.config import ModelConfig
from protocol.model.cpu_graph import CpuEngine, best_times
from protocol.model.topology import ShippedNetwork, Weights, read_tensors
from protocol.model.vae_folder import HALF_PREFIXES, WEIGHTS_FILES, VaeFolder, latent_scaling

logger = logging.getLogger(__name__)

#: The networks' names: the usual head and the finer one, and what follows for eight bits.
PLAIN, FINE = "decoder", "decoder_fine"
EIGHT_BIT = "_int8"


def decoder_tensors(folder: VaeFolder) -> Weights:
    """The tensors of a VAE's decoder."""
    state = read_tensors(folder.path / WEIGHTS_FILES[0])
    return {name: x for name, x in state.items() if not name.startswith(HALF_PREFIXES["encoder"])}


def decoder_facts(folder: VaeFolder) -> dict[str, Mapping[str, Any]]:
    """The numbers that a decoder must belong to."""
    return {"vae": folder.config}


class ShippedDecoders:
    """The decoder of one head of a VAE, in the worker's arithmetic and in eight bits.

    Args:
        folder: the VAE.
        plain: the network.
        eight_bit: the network that rounds, or None where there is none for these weights.
    """

    def __init__(self, folder: VaeFolder, plain: ShippedNetwork, eight_bit: ShippedNetwork | None) -> None:
        self._folder = folder
        self._networks = {False: plain, True: eight_bit}

    @classmethod
    def find(cls, config: ModelConfig, folder: VaeFolder, *, fine: bool) -> ShippedDecoders | None:
        """The decoder of a model, or None where it ships none that belongs to it.

        Args:
            config: the model.
            folder: the VAE that decodes.
            fine: whether the finer head draws.

        Raises:
            SettingsError: the weights cannot be read. The text names the file.
        """
        if folder.path != config.pretrained_vae_path:
            return None  # a small decoder, of another network
        name, facts = FINE if fine else PLAIN, decoder_facts(folder)
        plain = ShippedNetwork.find(config.path, name, partial(decoder_tensors, folder), facts)
        if plain is None:
            return None
        return cls(folder, plain, cls._eight_bit(config, folder, name + EIGHT_BIT, plain.weights))

    @staticmethod
    def _eight_bit(
        config: ModelConfig, folder: VaeFolder, name: str, weights: Weights
    ) -> ShippedNetwork | None:
        topology = ShippedNetwork.topology_of(config.path, name)
        if topology is None:
            return None
        rounded = [tensor.removesuffix(ROUNDED) for tensor in topology.shapes if tensor.endswith(ROUNDED)]
        order = topology.notes["order"]
        if set(order) != set(weights):
            return None
        digest = tensors_digest((tensor, weights[tensor]) for tensor in order)
        ranges = read_table(folder.path, digest, rounded)
        if ranges is None:
            return None
        own = eight_bit_tensors(weights, ranges)
        return ShippedNetwork.find(config.path, name, lambda: own, decoder_facts(folder))

    @property
    def has_eight_bit(self) -> bool:
        """Whether there is one that rounds."""
        return self._networks[True] is not None

    def load(
        self, frames: int, h: int, w: int, dtype: str, engine: CpuEngine, *, eight_bit: bool
    ) -> GraphDecoder:
        """The decoder for one number of frames and one size, from the kept file or compiled now.

        Args:
            frames: decoded at once. Fewer are padded.
            h: height of the latents.
            w: width of the latents.
            dtype: of the arithmetic, float32 or bfloat16.
            engine: where compiled networks are kept, and how many threads they use.
            eight_bit: take the decoder that rounds to eight bits. `has_eight_bit` must hold.

        Raises:
            ValueError: a weight is not finite.
            Exception: whatever fails in OpenVINO.
        """
        network = self._networks[eight_bit]
        assert network is not None
        channels = self._folder.latent_channels
        name = f"{network.topology.file.stem.replace('_', '-')}-{frames}x{h}x{w}"
        require_finite(network.weights.items())
        graph = network.load(name, [(frames, channels, h, w)], dtype, engine, pixels_end(dtype))
        scaling, shift = latent_scaling(self._folder.config)
        facts = DecoderFacts(
            self._folder.class_name, channels, scaling, shift, dtype, frames, h, w, eight_bit
        )
        return GraphDecoder(graph, facts)

    def chosen(
        self, eight_bit: bool | None, frames: int, h: int, w: int, dtype: str, engine: CpuEngine
    ) -> GraphDecoder:
        """The decoder of a choice: in eight bits, without them, or for None the quickest.

        Other arguments and errors as for `load`.
        """
        if eight_bit is None:
            return self.quickest(frames, h, w, dtype, engine)
        return self.load(frames, h, w, dtype, engine, eight_bit=eight_bit and self.has_eight_bit)

    def quickest(self, frames: int, h: int, w: int, dtype: str, engine: CpuEngine) -> GraphDecoder:
        """The one to take here: in eight bits where they save a quarter of the other arithmetic's time.

        Arguments and errors as for `load`.
        """
        kinds = open_kinds(engine, has_ranges=self.has_eight_bit, dtype=dtype)
        made = [self.load(frames, h, w, dtype, engine, eight_bit=kind) for kind in kinds]
        if len(made) == 1:
            return made[0]
        noise = np.random.default_rng(0).standard_normal((frames, self._folder.latent_channels, h, w))
        times = best_times([partial(each.unscaled, noise.astype(np.float32)) for each in made])
        chosen, _ = quickest(made, times)
        timed = ", ".join(
            f"{each.describe()} {1e3 * seconds / frames:.1f} ms"
            for each, seconds in zip(made, times, strict=True)
        )
        logger.info("decoding by %s: a frame takes %s", chosen.describe(), timed)
        return chosen
