"""The denoiser made fast: the same numbers from the same weights in fewer passes over memory.

`FastDenoiser` serves clips; `docs/guide/gpu.md` says how much each measure gains.
"""

from gpu_worker.fast.clip import FastDenoiser, FastUnavailable
from gpu_worker.fast.tiers import TIERS, Tier

__all__ = ["TIERS", "FastDenoiser", "FastUnavailable", "Tier"]
