"""Measure the greatest inputs of the denoiser's layers that round to eight bits.

The bundled people say the sentences of the evaluation's sample. `demo.factory.calibrate` calls it, with the
decoder's ranges. `python -m demo.factory.calibrate_denoiser` measures the denoiser alone.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from demo.factory.evaluate.command import SAMPLE
from demo.factory.evaluate.path import StreamingPath
from demo.factory.speech.corpus import load
from gpu_worker.engine.cpu_denoiser import CpuDenoiser
from gpu_worker.engine.cpu_networks import DenoiserGraph
from gpu_worker.engine.eight_bits import ranges_of_clips, with_inputs, with_rounding, write_ranges
from gpu_worker.engine.shipped_networks import (
    DENOISER,
    FlatReferenceGraph,
    ShippedNetworks,
    denoiser_tensors,
    network_facts,
    shipped_networks,
)
from protocol.model.config import ModelConfig
from protocol.model.cpu_graph import CpuEngine
from protocol.model.topology import NetworkEnd, ShippedNetwork
from protocol.process.settings import Settings
from protocol.wire.messages import Latents

#: Frames of a clip.
CLIP_FRAMES = 4
#: Every so many clips are looked at. The next one after each tells how far the rounding network is off.
EVERY = 8
#: Share of a layer's inputs of a clip that may be cut off. Without them all others get smaller steps.
#: Ten times as many are too many: the mouth then moves 2 % less.
SHARE = 1e-5

#: Latents, time, tokens, pose, order and reference: what a denoiser's network takes.
ClipArrays = Sequence[NDArray[Any]]


def spoken_clips(path: StreamingPath) -> Iterator[Latents]:
    """Clips of the bundled people, who say the sample's sentences with each pose loop in turn."""
    names = zip(cycle(path.engine.model.avatars.names), cycle(path.engine.model.poses.names), strict=False)
    corpus = load(SAMPLE / "speech.npz")
    for sentence, (avatar, pose) in zip(range(len(corpus.starts) - 1), names, strict=False):
        samples = (corpus.samples(sentence) / np.float32(32768)).astype(np.float32)
        yield from path.latents(avatar, pose, samples)


def denoised_clips(settings: Settings) -> list[ClipArrays]:
    """What the denoiser takes for each clip of the bundled people, at the first step."""
    path = StreamingPath(settings)
    denoiser = path.engine.model.denoiser
    assert isinstance(denoiser, CpuDenoiser)
    time = denoiser.networks.times([denoiser.steps[0].timestep])[0]
    with mock.patch.object(denoiser, "sample", wraps=denoiser.sample) as sampled:
        for _ in spoken_clips(path):
            pass
    made: list[ClipArrays] = []
    for call in sampled.call_args_list:
        latents, tokens, pose, reference, *_ = call.args
        made.append((latents, time, tokens, pose.astype(np.float32), np.arange(len(latents)), reference))
    return made


def predictions(graph: DenoiserGraph, clips: Sequence[ClipArrays]) -> NDArray[np.float32]:
    """The predictions for clips of one length, (clips, F, C, h, w)."""
    return np.stack([graph(*clip).copy() for clip in clips])


def with_other_sound(clips: Sequence[ClipArrays]) -> list[ClipArrays]:
    """The clips, each with the audio tokens of the next one."""
    others = [*clips[1:], clips[0]]
    return [
        (latents, time, other[2], *rest)
        for (latents, time, _, *rest), other in zip(clips, others, strict=True)
    ]


def distance(made: NDArray[np.float32], wanted: NDArray[np.float32]) -> str:
    """Words on how far one is from the other, and how large it is, in shares of the other."""
    size = float(np.square(wanted).sum())
    apart, along = float(np.square(made - wanted).sum()), float((made * wanted).sum())
    return f"{np.sqrt(apart / size):.4f} (size {along / size:.3f})"


def calibrate_denoiser(config_file: Path) -> str:
    """Measure and write the table of a model. Returns words on it."""
    config = ModelConfig.load(config_file)
    facts = network_facts(config)[DENOISER]
    network = ShippedNetwork.find(config.path, DENOISER, lambda: denoiser_tensors(config), facts)
    if network is None:
        return "no denoiser for OpenVINO is shipped, so it has no ranges"
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(
            config=config_file, run_dir=Path(folder), fps=24, clip_frames=CLIP_FRAMES, dtype="float32",
            cpu_engine="openvino", gpu_devices=("cpu",), encoder_devices=("cpu",),
        )  # fmt: skip
        clips = denoised_clips(settings)
        width, height = config.picture_size(settings)
        plain = shipped_networks(config, height, width, "float32", CpuEngine(True, Path(folder), 1))
        assert plain is not None
        latents, _, tokens, *_ = clips[0]
        frames, _, h, w = latents.shape

        def denoiser(networks: ShippedNetworks) -> FlatReferenceGraph:
            return networks.denoiser(frames, h, w, tokens.shape[1], any_length=False)

        _, names = with_inputs(network.topology.model(network.weights))
        watching = denoiser(plain.with_end(NetworkEnd("inputs", lambda model: with_inputs(model)[0])))
        ranges = ranges_of_clips(names, (watching.outputs(*clip) for clip in clips[::EVERY]), SHARE)
        file = write_ranges(config.path, network, ranges)
        rounding = plain.with_end(NetworkEnd("int8", lambda model: with_rounding(model, ranges)))
        others = clips[1::EVERY]
        changed = with_other_sound(others)
        (wanted, wanted_of), (made, made_of) = (
            (predictions(graph, others), predictions(graph, changed))
            for graph in (denoiser(plain), denoiser(rounding))
        )
    return (
        f"{file}: {len(ranges)} ranges of {len(clips[::EVERY])} clips."
        f" Relative error of predictions {distance(made, wanted)},"
        f" of what other sound changes in them {distance(made - made_of, wanted - wanted_of)}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m demo.factory.calibrate_denoiser", description=__doc__)
    parser.add_argument("--config", type=Path, default=Settings().config, help="of the model")
    print(calibrate_denoiser(parser.parse_args(argv).config))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
