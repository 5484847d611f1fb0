"""The loss of pictures of both sizes, against truth that is drawn at the larger one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from demo.factory.evaluate.scores import differing, edges, inside, rest_of
from demo.factory.figure.measure import BOX_DOWN, BOX_HALF_WIDTH, BOX_UP, mouth_center
from demo.factory.figure.renderer import Renderer
from demo.factory.train.data import Material, Moments, halved
from demo.factory.train.vae import at_outlines, weighted_difference, weighted_strength

FINE_SHARE = 1.0  # weight of the larger pictures' loss, where the smaller ones' has 1
SQUARED, STRENGTH = 0.5, 1.0  # of the loss: squared differences, which blur, and the outlines' strength
HAND_MARGIN, HAND_WEIGHT = 0.03, 4.0  # of the picture's side around a hand's points; its weight in pictures
MOUTH_MARGIN, MOUTH_WEIGHT = 2.0, 8.0  # units around the box of the mouth; its weight in pictures
MORE_PRESSED = (
    2.0  # how many times more the mouth counts where lips are pressed together: such moments are rare
)
GOALS = 0.2  # weight of the goals of mouth and hands, where they count
HANDS_SHARE = 1.5  # weight of the goals of hands, where those of the mouth have 1
EXCESS = 1.0  # weight of outlines that are too strong, where lost ones have 1
#: Weight of the mouth's error on the scale of decibels, so that a pale mouth counts as much as a plain one.
MOUTH_ERROR = 1.0
UNLIKE = 0.3  # weight of what differs between twins away from the hands, on the scale of decades
SAME = 1e-4  # difference of two values under which nobody sees any
FEW = 5.0  # edges, as a sum of squares, under which a place shows next to nothing, such as a hidden hand
FAINT = 1e-4  # squared error of a mouth under which less is hardly seen


class Goal(NamedTuple):
    """Outlines of a place, as shares of the drawing's."""

    kept: float  # up to this, those that are lost cost
    strength: float  # from this on, strength costs


MOUTH_GOAL, HANDS_GOAL = Goal(0.95, 1.12), Goal(0.9, 1.03)


def hand_weights(hands: Tensor, size: int) -> Tensor:
    """Weights (n, 1, size, size): `HAND_WEIGHT` in the boxes around hands (n, 2, 21, 2), 1 elsewhere."""
    low, high = hands.amin(2) - HAND_MARGIN, hands.amax(2) + HAND_MARGIN
    boxes = torch.cat([low, high], 2) * size - 0.5  # of pixels' centres
    return 1 + (HAND_WEIGHT - 1) * inside(boxes, size)[:, None].float()


def mouth_places(renderer: Renderer, head: Tensor, size: int) -> Tensor:
    """Pixels, bool (n, size, size), of the box that `demo.factory.figure.measure.mouth_box` judges.

    Args:
        renderer: knows where faces are.
        head: the head's motions (n, 3).
        size: side of the pictures.
    """
    unit = size / renderer.view  # pixels
    x, y = (mouth_center(renderer, head) * (size / renderer.size)).unbind(1)
    wide, up, down = (unit * (reach + MOUTH_MARGIN) for reach in (BOX_HALF_WIDTH, BOX_UP, BOX_DOWN))
    return inside(torch.stack([x - wide, y - up, x + wide, y + down], 1)[:, None], size)


class BothSizes:
    """Compares the pictures of both heads with drawn ones.

    Args:
        material: draws at `FINE_SIZE`.
        squared: weight of squared differences, which blur.
        strength: weight of the outlines' strength.
        goals: weight of the goals of both sizes: outlines at the mouth and at hands that are as many
            and as strong as drawn ones, and a small error of the mouth.

    Where the material draws twins, other hands should leave the rest of a picture as it is. So what differs
    there costs too.

    Raises:
        ValueError: the material draws at `SIZE`.
    """

    def __init__(
        self, material: Material, *, squared: float = SQUARED, strength: float = STRENGTH, goals: float = 0.0
    ) -> None:
        if not material.fine:
            raise ValueError("material that is drawn at the smaller size has no truth for the finer head")
        self._renderer = material.renderer
        self._squared, self._strength, self._goals = squared, strength, goals
        self._twins = material.twins

    def loss(
        self, plain: Tensor, fine: Tensor, truth: Tensor, moments: Moments, *, frames: int = 1
    ) -> Tensor:
        """The loss of N pictures, all frames of a clip side by side.

        Args:
            plain: pictures (N, 3, SIZE, SIZE) of the one head, nominally in 0..1.
            fine: pictures (N, 3, FINE_SIZE, FINE_SIZE) of the other.
            truth: drawn pictures, float32 (N, 3, FINE_SIZE, FINE_SIZE) in 0..1.
            moments: of the pictures.
            frames: pictures of a clip.
        """
        small = halved(truth)
        loss = self._of(plain, small, moments) + FINE_SHARE * self._of(fine, truth, moments)
        if self._twins:
            loss = loss + UNLIKE * unlike(plain.float(), small, moments.twin, frames)
        if self._goals:
            for output, drawn in ((plain, small), (fine, truth)):
                loss = loss + self._goals * self._missed(output, drawn, moments)
        return loss

    def _missed(self, output: Tensor, truth: Tensor, moments: Moments) -> Tensor:
        """How far pictures are from the goals."""
        output, size = output.float(), truth.shape[-1]
        mouth = mouth_places(self._renderer, moments.head, size)
        hands = hand_weights(moments.hands, size)[:, 0] > 1
        missed = MOUTH_ERROR * _decades(output, truth, mouth)
        for where, goal, share in ((mouth, MOUTH_GOAL, 1.0), (hands, HANDS_GOAL, HANDS_SHARE)):
            kept, energy = edges(output, truth, where, least=FEW)
            too_strong = (energy - goal.strength**2).clamp_min(0)
            missed = missed + share * ((goal.kept - kept).clamp_min(0) + EXCESS * too_strong).mean()
        return missed

    def _of(self, output: Tensor, truth: Tensor, moments: Moments) -> Tensor:
        size = truth.shape[-1]
        mouth = mouth_places(self._renderer, moments.head, size)[:, None]
        more = (MOUTH_WEIGHT - 1) * (1 + MORE_PRESSED * moments.pressed)
        weights = hand_weights(moments.hands, size) + more[:, None, None, None] * mouth
        weights = at_outlines(weights, truth)
        loss = weighted_difference(output, truth, weights, squared_share=self._squared)
        if not self._strength:
            return loss
        return loss + self._strength * weighted_strength(output, truth, weights)


def unlike(output: Tensor, truth: Tensor, twin: Tensor, frames: int) -> Tensor:
    """Mean logarithm to base 10 of how far twins are apart where the drawn ones are the same.

    Absolute differences count, not squared ones. Most of these lie far below a level, and a rounding, be it
    of 8 bits or JPEG's, makes of such a difference now a whole step and now none. So the squared error behind
    it is in proportion to the difference itself.

    Args:
        output: pictures (N, 3, h, w), clip by clip.
        truth: the drawn ones, in 0..1.
        twin: (N,) whether a picture's pair are twins.
        frames: pictures of a clip.
    """
    first, second = output.unflatten(0, (-1, 2, frames)).unbind(1)
    there, here = (pictures.flatten(0, 1) for pictures in truth.unflatten(0, (-1, 2, frames)).unbind(1))
    counts = twin.unflatten(0, (-1, 2, frames))[:, 0].flatten()
    rest = rest_of(differing(there, here)) * counts[:, None, None, None]
    apart = ((first - second).flatten(0, 1).abs().mean(1, keepdim=True) * rest).sum()
    share: Tensor = apart / rest.sum().clamp_min(1) + SAME
    return share.log10()


def _decades(output: Tensor, truth: Tensor, where: Tensor) -> Tensor:
    """Mean logarithm to base 10 of the squared error at some pixels (n, h, w)."""
    squared = ((output - truth).square().mean(1) * where).flatten(1).sum(1)
    return (squared / where.flatten(1).sum(1).clamp_min(1) + FAINT).log10().mean()


def moments_of(kept: Mapping[str, Tensor]) -> Moments:
    """The moments that lie among kept values by name."""
    return Moments(*(kept[name] for name in Moments._fields))


def pictures_of(kept: Tensor) -> Tensor:
    """Pictures, uint8 (N, 3, H, W), as float32 in 0..1 in the memory order that convolutions like best."""
    return (kept.float() / 255).contiguous(memory_format=torch.channels_last)
