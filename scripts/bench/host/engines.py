"""`python -m scripts.bench.host.engines`: denoiser and decoder by torch and by OpenVINO on this CPU.

A row for each engine: processor time of a clip of 12 frames (median, engines in turn), the ratio to torch in
the same arithmetic, and the distance from torch in float32. The decoder has rows of each of its heads.
`taskset -c 0` takes cores away, and `ONEDNN_MAX_CPU_ISA=AVX2` takes bfloat16 away from torch.
"""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from protocol.model.hardware.cpu_features import cpu_has_bfloat16
from protocol.model.hardware.threads import let_waiting_threads_sleep, thread_count
from protocol.process.c_allocator import keep_freed_memory
from protocol.process.settings import Settings, settings_from_command_line

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch
    from torch import Tensor

    from encoder_worker.decode import ClipDecoder
    from gpu_worker.denoiser.model import ReferenceCache
    from gpu_worker.denoiser.pipeline import ClipDenoiser
    from gpu_worker.engine.cpu_denoiser import CpuDenoiser
    from protocol.model.config import ModelConfig
    from protocol.model.cpu_graph import CpuEngine
    from protocol.model.vae_folder import VaeFolder

FRAMES = 12
ROUNDS = 7


def medians(tasks: dict[str, Callable[[], Tensor]]) -> dict[str, float]:
    """Median seconds of processor time of each task, all of them in turn, after a first run."""
    spent: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(1 + ROUNDS):
        for name, task in tasks.items():
            begin = time.process_time()
            task()
            spent[name].append(time.process_time() - begin)
    return {name: statistics.median(times[1:]) for name, times in spent.items()}


def denoisers(
    settings: Settings, engine: CpuEngine, dtypes: Sequence[torch.dtype]
) -> dict[str, Callable[[], Tensor]]:
    """Functions that denoise one clip, by library and arithmetic. The clip is the same for all."""
    from gpu_worker.engine.openvino import traced_denoiser

    tasks: dict[str, Callable[[], Tensor]] = {}
    for dtype in dtypes:
        plain, inputs = drawn_clip(settings, dtype)
        frames, _, h, w = inputs[0].shape
        by_openvino = traced_denoiser(plain, engine)
        by_openvino.prepare(frames, h, w, inputs[1].shape[1])
        name = _named(dtype)
        tasks[f"torch {name}"] = partial(_by_torch, plain, *inputs)
        tasks[f"OpenVINO {name}"] = partial(_by_openvino, by_openvino, *arrays_of(*inputs))
    return tasks


def drawn_clip(
    settings: Settings, dtype: torch.dtype
) -> tuple[ClipDenoiser, tuple[Tensor, Tensor, Tensor, ReferenceCache]]:
    """The model in torch, and the same random clip each time: noise, tokens, pose features and reference."""
    import numpy as np
    import torch

    from gpu_worker.denoiser.loading import load_models
    from gpu_worker.denoiser.pipeline import ClipDenoiser
    from protocol.model.audio_tokens import tokens_per_frame
    from protocol.model.config import ModelConfig
    from protocol.wire.limits import TOKEN_WIDTH

    config = ModelConfig.load(settings.config)
    width, height = config.picture_size(settings)
    draw = torch.Generator().manual_seed(0)
    picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    maps = torch.rand(FRAMES, 3, height, width, generator=draw)
    tokens = torch.randn(FRAMES, tokens_per_frame(settings.audio_margin), TOKEN_WIDTH, generator=draw)
    plain = ClipDenoiser(load_models(config, torch.device("cpu"), dtype))
    reference, pose = plain.prepare_reference(picture).reference, plain.encode_pose(maps)
    noise = torch.randn(FRAMES, plain.latent_channels, *pose.shape[2:], generator=draw)
    return plain, (noise, tokens, pose, reference)


def _by_torch(
    plain: ClipDenoiser, noise: Tensor, tokens: Tensor, pose: Tensor, reference: ReferenceCache
) -> Tensor:
    return plain.sample(noise, plain.project_audio(tokens), pose, reference)


def _by_openvino(denoiser: CpuDenoiser, *inputs: npt.NDArray[np.float32]) -> Tensor:
    import torch

    noise, tokens, pose, reference = inputs
    return torch.from_numpy(denoiser.sample(noise, tokens, pose, reference))


def arrays_of(
    noise: Tensor, tokens: Tensor, pose: Tensor, reference: ReferenceCache
) -> tuple[npt.NDArray[np.float32], ...]:
    """A clip of `drawn_clip` as `CpuDenoiser` takes it."""
    from gpu_worker.engine.openvino import flat_reference

    return tuple(x.float().numpy() for x in (noise, tokens, pose, flat_reference(reference)))


def decoders(
    settings: Settings, engine: CpuEngine, dtypes: Sequence[torch.dtype], *, fine: bool
) -> dict[str, Callable[[], Tensor]]:
    """Functions that decode one clip, by library and arithmetic, each to pictures in 0..255 as float32.

    Args:
        settings: of the workers.
        engine: where networks are kept, and how many threads they use.
        dtypes: of the arithmetic.
        fine: whether the VAE's finer head draws.
    """
    import numpy as np
    import torch

    from encoder_worker.load import load_clip_decoder
    from protocol.model.config import ModelConfig
    from protocol.model.vae_folder import VaeFolder

    config = ModelConfig.load(settings.config)
    folder = VaeFolder.of(config)
    latents = latents_of_avatars(settings, config, folder)
    h, w = latents.shape[2:]

    def decode(decoder: ClipDecoder) -> Tensor:
        return torch.from_numpy(np.concatenate(list(decoder.decode(latents)))).float()

    tasks: dict[str, Callable[[], Tensor]] = {}
    engines = {"torch": None, "OpenVINO": engine, "int8": replace(engine, eight_bit=True)}
    for dtype in dtypes:
        for library, used in engines.items():
            decoder = load_clip_decoder(
                config, folder, torch.device("cpu"), _named(dtype), fine=fine, engine=used
            )
            if library != "int8" or decoder.has_eight_bit:
                decoder.warm_up(h, w)
                tasks[f"{library} {_named(dtype)}"] = partial(decode, decoder)
    return tasks


def latents_of_avatars(settings: Settings, config: ModelConfig, folder: VaeFolder) -> npt.NDArray[np.float16]:
    """Scaled latents (12, C, h, w) of the avatars' pictures, since the ranges of eight bits fit faces."""
    import numpy as np
    import torch

    from gpu_worker.avatars.vae_encoder import load_vae_encoder
    from protocol.model.assets import avatar_paths, picture_files
    from protocol.model.pictures import read_picture

    files = list(picture_files(avatar_paths(settings)).values())
    size = config.picture_size(settings)
    pictures = [np.asarray(read_picture(file, size), np.float32) for file in files]
    made = load_vae_encoder(folder)(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 127.5 - 1)
    return np.resize(made.numpy(), (FRAMES, *made.shape[1:])).astype(np.float16)


def rows(tasks: dict[str, Callable[[], Tensor]], *, pictures: bool) -> list[str]:
    """A line for each task. The first one is torch in float32.

    Args:
        tasks: by library and arithmetic.
        pictures: whether the results are pictures, compared by PSNR, or latents, by the relative error.
    """
    results = {name: task().clone() for name, task in tasks.items()}
    exact = next(iter(results.values()))
    lines = []
    times = medians(tasks)
    for name, seconds in times.items():
        ratio = seconds / times[f"torch {name.split()[1]}"]
        square = float((results[name] - exact).square().mean())
        if pictures:
            distance = f"{10 * math.log10(255**2 / square):.1f} dB" if square else "equal"
        else:
            distance = f"{math.sqrt(square / float(exact.square().mean())):.1e}"
        lines.append(f"  {name:<18} {1e3 * seconds:6.0f} ms   {ratio:.2f}   {distance}")
    return lines


def main() -> None:
    """Prints the rows of both networks."""
    settings = settings_from_command_line()
    let_waiting_threads_sleep()
    keep_freed_memory()
    import torch

    from protocol.model.config import ModelConfig
    from protocol.model.cpu_graph import CpuEngine

    torch.set_num_threads(thread_count(settings))
    dtypes = [torch.float32, torch.bfloat16] if cpu_has_bfloat16() else [torch.float32]
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        engine = CpuEngine(True, Path(folder), torch.get_num_threads())
        print(f"{torch.get_num_threads()} threads, torch {torch.__version__}: ms a clip, ratio, distance")
        print("denoiser", *rows(denoisers(settings, engine, dtypes), pictures=False), sep="\n", flush=True)
        for fine in (False, True)[: 1 + ModelConfig.load(settings.config).has_fine_head]:
            name = "decoder, its finer head" if fine else "decoder"
            made = rows(decoders(settings, engine, dtypes, fine=fine), pictures=True)
            print(name, *made, sep="\n", flush=True)


def _named(dtype: torch.dtype) -> str:
    from protocol.model.hardware.dtypes import dtype_name

    return dtype_name(dtype)


if __name__ == "__main__":
    main()
