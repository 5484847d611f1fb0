"""The official pipeline over a whole sequence, in windows; the parity tests compare the clip path with it."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpu_worker.denoiser.model import ReferenceCache
from gpu_worker.denoiser.pipeline import ClipDenoiser

#: Frames of a context window and of the overlap of two, as in `pipeline_echomimicv2_acc.py`.
WINDOW, OVERLAP = 12, 3


def gather_tokens(features: NDArray[np.float32], positions: NDArray[np.int64]) -> Tensor:
    """Audio tokens (frames, n·5, width), position-major.

    Args:
        features: Whisper's hidden states (length, 5, width).
        positions: those that each frame attends to, (frames, n).
    """
    return torch.from_numpy(features[positions].reshape(len(positions), -1, features.shape[-1]))


def encode_poses(denoiser: ClipDenoiser, maps: Tensor) -> Tensor:
    """Features (L, c0, h, w) of a long sequence of maps (L, 3, H, W), a window at a time."""
    starts = range(0, len(maps), WINDOW)
    return torch.cat([denoiser.encode_pose(maps[start : start + WINDOW]) for start in starts])


def context_windows(length: int) -> list[list[int]]:
    """Frame numbers of each context window over a closed loop of `length` frames.

    Windows wrap around the end, so each has the full size. A sequence no longer than a window is one window.
    """
    if length <= WINDOW:
        return [list(range(length))]
    return [[(start + i) % length for i in range(WINDOW)] for start in range(0, length, WINDOW - OVERLAP)]


@torch.inference_mode()
def denoise_sequence(
    denoiser: ClipDenoiser, noise: Tensor, tokens: Tensor, pose_features: Tensor, reference: ReferenceCache
) -> Tensor:
    """Denoises a whole sequence in overlapping windows, whose predictions are averaged at each step.

    Args:
        denoiser: in plain torch.
        noise: (L, C, h, w).
        tokens: audio tokens (L, T, 384).
        pose_features: (L, c0, h, w).
        reference: keys and values of the avatar.

    Returns:
        Scaled latents (L, C, h, w).
    """
    length = len(noise)
    latents = noise.float()
    for index, step in enumerate(denoiser.steps):
        shift = index * denoiser.window_shift
        total, count = torch.zeros_like(latents), torch.zeros(length)
        for frames in context_windows(length):
            chosen = torch.tensor([(frame + shift) % length for frame in frames])
            prediction = denoiser.predict(
                latents[chosen].transpose(0, 1)[None],
                index,
                denoiser.project_audio(tokens[chosen]),
                pose_features[chosen].transpose(0, 1)[None],
                reference,
                None,
            )
            total.index_add_(0, chosen, prediction[0].transpose(0, 1).float())
            count.index_add_(0, chosen, torch.ones_like(chosen, dtype=count.dtype))
        latents = step(latents, total / count[:, None, None, None])
    return latents
