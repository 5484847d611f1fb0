"""Exchanges between the members of a team, which denoise one clip together.

Spatial layers compute each frame by itself, so each member has a share of the frames. Motion modules attend
over the frames at each position by itself, so there each member has all frames of a share of the positions.
An all-to-all before a motion module and one after it change between both.

Everything here works the same by NCCL between GPUs and by gloo between processes on a CPU. Every member calls
the same methods in the same order. By NCCL, all but `share` may be recorded in a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor


class Exchange:
    """This process's side of the exchanges. The leader is member 0.

    Of a clip of F frames member i has frames i·F/N to (i + 1)·F/N. Of P positions it has those from i·p to
    (i + 1)·p, where p is P/N rounded up (`ops.positions_of_part`). Needs torch's default process group.
    """

    def __init__(self) -> None:
        self.rank = dist.get_rank()
        self.size = dist.get_world_size()

    @property
    def leads(self) -> bool:
        """Whether this process is the leader."""
        return self.rank == 0

    def to_positions(self, parts: Tensor) -> Tensor:
        """Own frames of all positions → all frames of own positions.

        parts: (members, own frames, positions of one, channels), by the member that each part goes to.
        Returns (frames, own positions, channels).
        """
        return self._all_to_all(parts).flatten(0, 1)

    def to_frames(self, x: Tensor) -> Tensor:
        """All frames of own positions (frames, own positions, channels) → own frames of all positions.

        Returns (members, own frames, positions of one, channels), by the member that had the positions.
        """
        return self._all_to_all(x.unflatten(0, (self.size, -1)))

    def _all_to_all(self, x: Tensor) -> Tensor:
        received = torch.empty_like(x)
        dist.all_to_all_single(received, x)
        return received

    def scatter(self, whole: Tensor | None, own: Tensor) -> None:
        """The leader's `whole` (frames, …) → each member's `own` frames. Other members have no whole."""
        dist.scatter(own, None if whole is None else list(whole.chunk(self.size)), src=0)

    def gather(self, own: Tensor, whole: Tensor | None) -> None:
        """Each member's `own` frames → the leader's `whole`."""
        dist.gather(own, None if whole is None else list(whole.chunk(self.size)), dst=0)

    def largest(self, values: Tensor) -> None:
        """Each of the values becomes the largest that any member has."""
        dist.all_reduce(values, dist.ReduceOp.MAX)

    def share(self, tensors: Sequence[Tensor]) -> None:
        """The leader's tensors are copied over those of all members, whose shapes and types are the same."""
        for tensor in tensors:
            # A convolution's weights may lie channels_last, which a broadcast does not take.
            sent = tensor.detach().contiguous()
            dist.broadcast(sent, src=0)
            if not self.leads:
                tensor.detach().copy_(sent)
