"""The denoiser made fast: the same numbers from the same weights in fewer passes over memory.

`FastDenoiser` serves clips; `docs/gpu-speed.md` says what each measure brings.
"""

from gpu_worker.fast.clip import FastDenoiser, FastUnavailable

__all__ = ["FastDenoiser", "FastUnavailable"]
