"""What sessions get while they speak, from the best down. No I/O, no clock.

The first thing to go under load is the size of the pictures: the eye misses it less than half of the frames.
Then the rate goes. The length of the clips stays, since a session keeps the one that it began with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

#: Times that a clip with pictures of twice the side costs as much as a usual one. Measured on a CPU: 1.2, and
#: 1.3 with eight bits (docs/lab/bundled-model.md).
FINE_COSTS = 1.3


@dataclass(frozen=True, slots=True, order=True)
class Grade:
    """A frame rate and a size of pictures. The better one is the greater.

    Attributes:
        fps: frames a second.
        fine: whether the VAE's finer head draws, pictures of twice the side.
    """

    fps: int
    fine: bool = False

    def __str__(self) -> str:
        return f"{self.fps} fps{' in the larger size' if self.fine else ''}"

    def cost(self, other: Grade) -> float:
        """Times that a clip of this size costs as much as one of the other's, with the same frames."""
        return FINE_COSTS ** (self.fine - other.fine)


def grades(rates: Sequence[int], *, sizes: bool) -> list[Grade]:
    """From the best down.

    Args:
        rates: from the highest down.
        sizes: whether pictures may have either size.
    """
    plain = [Grade(fps) for fps in rates]
    return [Grade(rates[0], fine=True), *plain] if sizes else plain
