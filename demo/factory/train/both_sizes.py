"""The loss of pictures of both sizes, against truth that is drawn at the larger one."""

from __future__ import annotations

import torch
from torch import Tensor

from demo.factory.evaluate.scores import edges_kept, inside
from demo.factory.train.config import FINE_SIZE, SIZE
from demo.factory.train.data import Material, halved
from demo.factory.train.vae import picture_loss, picture_weights, strength_loss

FINE_SHARE = 1.0  # weight of the larger pictures' loss, where the smaller ones' has 1
SQUARED, STRENGTH = 0.5, 1.0  # of the loss: squared differences, which blur, and the outlines' strength
HAND_MARGIN, HAND_WEIGHT = 0.03, 2.0  # of the picture's side around a hand's points; its weight in pictures


def hand_weights(hands: Tensor, size: int) -> Tensor:
    """Weights (n, 1, size, size): `HAND_WEIGHT` in the boxes around hands (n, 2, 21, 2), 1 elsewhere."""
    low, high = hands.amin(2) - HAND_MARGIN, hands.amax(2) + HAND_MARGIN
    boxes = torch.cat([low, high], 2) * size - 0.5  # of pixels' centres
    return 1 + (HAND_WEIGHT - 1) * inside(boxes, size)[:, None].float()


class BothSizes:
    """Compares the pictures of both heads with drawn ones.

    Args:
        material: draws at `FINE_SIZE`.
        squared: weight of squared differences, which blur.
        strength: weight of the outlines' strength.
        kept: weight of the share of outlines that the larger pictures lose, at the mouth and at hands.

    Raises:
        ValueError: the material draws at `SIZE`.
    """

    def __init__(
        self, material: Material, *, squared: float = SQUARED, strength: float = STRENGTH, kept: float = 0.0
    ) -> None:
        if not material.fine:
            raise ValueError("material that is drawn at the smaller size has no truth for the finer head")
        self._weights = {size: picture_weights(material, size) for size in (SIZE, FINE_SIZE)}
        self._squared, self._strength, self._kept = squared, strength, kept
        self._mouth = self._weights[FINE_SIZE][:, 0] > 1  # (1, FINE_SIZE, FINE_SIZE)

    def loss(self, plain: Tensor, fine: Tensor, truth: Tensor, hands: Tensor) -> Tensor:
        """The loss of N pictures.

        Args:
            plain: pictures (N, 3, SIZE, SIZE) of the one head, nominally in 0..1.
            fine: pictures (N, 3, FINE_SIZE, FINE_SIZE) of the other.
            truth: drawn pictures, float32 (N, 3, FINE_SIZE, FINE_SIZE) in 0..1.
            hands: key points (N, 2, 21, 2) in fractions of the picture.
        """
        loss = self._of(plain, halved(truth), hands) + FINE_SHARE * self._of(fine, truth, hands)
        return loss + self._kept * self._lost(fine, truth, hands) if self._kept else loss

    def _lost(self, output: Tensor, truth: Tensor, hands: Tensor) -> Tensor:
        """Mean share of the outlines at mouth and hands that the output lacks (see `edges_kept`)."""
        places = self._mouth.expand(len(output), -1, -1), hand_weights(hands, truth.shape[-1])[:, 0] > 1
        kept = torch.stack([edges_kept(output.float(), truth, where) for where in places])
        return (1 - kept).clamp_min(0).mean()

    def _of(self, output: Tensor, truth: Tensor, hands: Tensor) -> Tensor:
        size = truth.shape[-1]
        weights = self._weights[size] * hand_weights(hands, size)
        loss = picture_loss(output, truth, weights, squared_share=self._squared)
        if not self._strength:
            return loss
        return loss + self._strength * strength_loss(output, truth, weights)


def pictures_of(kept: Tensor) -> Tensor:
    """Pictures, uint8 (N, 3, H, W), as float32 in 0..1 in the memory order that convolutions like best."""
    return (kept.float() / 255).contiguous(memory_format=torch.channels_last)
