"""A pose folder as the official repository has them: pickled dictionaries in `.npy`."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def write_official_pose(folder: Path, frames: int = 3) -> Path:
    """Two open hands that drift upwards, `frames` files 0.npy, 1.npy, …"""
    folder.mkdir(parents=True)
    fingers = np.linspace(0, 0.1, 21)
    for number in range(frames):
        hands = np.stack([np.stack([side + fingers, 0.7 - fingers], axis=-1) for side in (0.25, 0.65)])
        hands[..., 1] -= number * 0.002
        pose = {
            "hands": hands,
            "hands_score": np.ones((2, 21)),
            "draw_pose_params": np.array([800, 800, 0, 800, 0, 800]),
        }
        np.save(folder / f"{number}.npy", np.array(pose, dtype=object), allow_pickle=True)
    return folder
