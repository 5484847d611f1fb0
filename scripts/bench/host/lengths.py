"""`python -m scripts.bench.host.lengths`: a second of speech by the denoiser, in clips of several lengths.

A row for each length and each of OpenVINO's networks: the one for that length alone, and the one for any
length. Milliseconds of processor time a second of speech, median of eight, all in turn. A clip
has half of its frames, or a quarter, where the rate has fallen to 12 or 6.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from protocol.model.hardware.threads import let_waiting_threads_sleep, thread_count
from protocol.process.c_allocator import keep_freed_memory
from protocol.process.settings import Settings, settings_from_command_line
from protocol.wire.clock import FULL_RATE
from scripts.bench.host.engines import arrays_of, drawn_clip

if TYPE_CHECKING:
    import torch

    from protocol.model.cpu_graph import CpuEngine

#: (frames of a call, whether the network is the one for any length).
CALLS = ((12, False), (4, False), (12, True), (6, True), (4, True), (3, True), (2, True), (1, True))
ROUNDS = 8


def calls(
    settings: Settings, engine: CpuEngine, dtype: torch.dtype
) -> dict[tuple[int, bool], Callable[[], object]]:
    """Functions that denoise one clip, by its frames and its network."""
    from gpu_worker.engine.openvino import traced_denoiser

    plain, inputs = drawn_clip(settings, dtype)
    noise, tokens, pose, reference = arrays_of(*inputs)
    made: dict[tuple[int, bool], Callable[[], object]] = {}
    _, _, h, w = noise.shape
    for frames, any_length in CALLS:
        network = traced_denoiser(plain, engine)
        prepare = network.prepare_any_length if any_length else network.prepare
        prepare(frames, h, w, tokens.shape[1])
        given = noise[:frames], tokens[:frames], pose[:frames], reference
        made[frames, any_length] = partial(network.sample, *given)
    return made


def main() -> None:
    """Print the rows in the arithmetic of the settings and in float32."""
    settings = settings_from_command_line()
    let_waiting_threads_sleep()
    keep_freed_memory()
    import torch

    from protocol.model.cpu_graph import CpuEngine
    from protocol.model.hardware.dtypes import dtype_name, dtypes_to_try

    torch.set_num_threads(thread_count(settings))
    for dtype in dict.fromkeys((dtypes_to_try(settings.dtype, torch.device("cpu"))[-1], torch.float32)):
        with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
            tasks = calls(settings, CpuEngine(True, Path(folder), torch.get_num_threads()), dtype)
            spent: dict[tuple[int, bool], list[float]] = {call: [] for call in tasks}
            for _ in range(1 + ROUNDS):
                for call, task in tasks.items():
                    begin = time.process_time()
                    task()
                    spent[call].append(time.process_time() - begin)
        print(f"{dtype_name(dtype)}, {torch.get_num_threads()} threads", flush=True)
        for (frames, any_length), times in spent.items():
            milliseconds = 1e3 * statistics.median(times[1:])
            network = "any length" if any_length else "its own"
            second = milliseconds * FULL_RATE / frames
            print(
                f"  {frames:2d} frames, network of {network:10s}: {milliseconds:4.0f} ms a call,"
                f" {second:4.0f} ms a second at 24 fps",
                flush=True,
            )


if __name__ == "__main__":
    main()
