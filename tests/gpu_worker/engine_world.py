"""A tiny random model in the official layout, with avatars and poses, and clips for its engine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gpu_worker.engine.serve import DenoiserEngine
from protocol.process.settings import Settings, load_settings
from protocol.wire.messages import Clip
from tests.helpers.official_layout import write_official_layout

SIDE = 64
TOKENS = 50
QUICK = ("--fps", "24", "--clip-frames", "4")  # one shape, and a small one, to warm


def write_world(folder: Path) -> list[str]:
    """Writes a model, three avatars and two poses, and returns the flags that name them."""
    config = write_official_layout(folder, width=SIDE, height=SIDE, steps=2)
    avatars, poses = folder / "avatars", folder / "poses"
    avatars.mkdir()
    poses.mkdir()
    rng = np.random.default_rng(0)
    for name in ("ann", "bob", "cat"):
        pixels = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(avatars / f"{name}.png")
    for name in ("rest", "wave"):
        hands = rng.random((24, 2, 21, 2)).astype(np.float32)
        np.savez(poses / f"{name}.npz", hands=hands, hands_score=np.ones((24, 2, 21), np.float32), fps=24)
    return [
        *("--config", str(config), "--avatar-dir", str(avatars), "--pose-dir", str(poses)),
        *("--dtype", "float32", "--gpu-devices", "cpu", "--threads", "1"),
        *("--cpu-engine", "torch"),
    ]


def settings_for(world: list[str], *argv: str) -> Settings:
    return load_settings([*world, *argv], env={})


def clip(session: str, seq: int, *, frames: int = 12, seed: int = 0, **changes: Any) -> Clip:
    tokens = np.random.default_rng(seed).standard_normal((frames, TOKENS, 384)).astype(np.float16)
    made = Clip(session, 0, seq, seq * 8000, 24, "ann", "rest", tokens)
    return replace(made, **changes)


def make(engine: DenoiserEngine, wanted: Clip) -> np.ndarray:
    return engine.denoise(engine.prepare(wanted))


def differ(a: np.ndarray, b: np.ndarray) -> float:
    """Relative difference of two clips' latents."""
    a, b = a.astype(np.float32), b.astype(np.float32)
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))
