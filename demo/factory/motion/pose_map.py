"""Pose maps for training: the GPU worker's own drawing with the standard marks."""

import functools

import torch
from torch import Tensor

from demo.factory.motion.marks import MARKS_COLOR, MARKS_EDGES, MARKS_RADIUS
from gpu_worker.poses import sdf as pose_sdf


@functools.lru_cache(maxsize=1)
def _standard_marks() -> tuple[Tensor, Tensor, Tensor]:
    # Left on the CPU: the drawing reads them as Python numbers, and a copy from a GPU would wait for its
    # queue.
    return torch.from_numpy(MARKS_EDGES), torch.from_numpy(MARKS_COLOR), torch.from_numpy(MARKS_RADIUS)


def draw_pose_maps(hands: Tensor, hands_score: Tensor, marks: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Pose maps (B, 3, height, width) in 0..1.

    Args:
        hands: key points (B, 2, 21, 2) in fractions of the picture.
        hands_score: confidence (B, 2, 21) of each key point.
        marks: points (B, 13, 2) of `life_to_marks`.
        size: side of the maps, or height and width.
    """
    return pose_sdf.draw_pose_maps(hands, hands_score, marks, *_standard_marks(), size)
