"""A decoder converted for OpenVINO on a CPU, for one number of frames and one size."""

from __future__ import annotations

from pathlib import Path

import torch

from encoder_worker.graph_decoder import DecoderFacts, GraphDecoder
from encoder_worker.vae.decoders import Decoder, LiteVaeDecoder
from encoder_worker.vae.int8 import with_eight_bits
from encoder_worker.vae.pixels import pixels_end, require_finite
from protocol.model.cpu_convert import load_graph
from protocol.model.cpu_graph import CpuEngine
from protocol.model.hardware.dtypes import dtype_name
from protocol.model.ranges_table import Ranges

#: Parameters above which OpenVINO serves only where it is asked for: the second copy costs too much memory.
LARGE_DECODER = 20_000_000


def graph_decoder(
    decoder: Decoder,
    frames: int,
    h: int,
    w: int,
    dtype: torch.dtype,
    engine: CpuEngine,
    ranges: Ranges | None = None,
) -> GraphDecoder:
    """The decoder by OpenVINO, from the kept file or converted now.

    Args:
        decoder: float32, on the CPU.
        frames: decoded at once. Fewer are padded.
        h: height of the latents.
        w: width of the latents.
        dtype: of the arithmetic, float32 or bfloat16.
        engine: where compiled networks are kept, and how many threads they use.
        ranges: of the convolutions that round to eight bits. None leaves all in `dtype`.

    Raises:
        ValueError: a weight is not finite.
        Exception: whatever fails in OpenVINO. torch can decode instead.
    """
    require_finite((name, value.numpy()) for name, value in decoder.state_dict().items())
    own = decoder if ranges is None else with_eight_bits(decoder, ranges)
    # Both heads have the same weights, so the name tells them apart.
    name = "decoder-fine" if isinstance(decoder, LiteVaeDecoder) and decoder.is_fine else "decoder"
    name += "" if ranges is None else "-int8"
    example = torch.zeros(frames, decoder.channels, h, w)
    sources = Path(__file__).parent
    arithmetic, name = dtype_name(dtype), f"{name}-{frames}x{h}x{w}"
    graph = load_graph(own, [example], dtype, engine, name=name, sources=sources, end=pixels_end(arithmetic))
    facts = DecoderFacts(
        decoder.kind, decoder.channels, decoder.scaling, decoder.shift, arithmetic, frames, h, w,
        ranges is not None,
    )  # fmt: skip
    return GraphDecoder(graph, facts)
