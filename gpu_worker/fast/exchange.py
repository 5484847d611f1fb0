"""Exchanges between the members of a team, which denoise one clip together.

Spatial layers compute each frame by itself, so each member has a share of the frames. Motion modules attend
over the frames at each position by itself, so there each member has all frames of a share of the positions.
A `Crossing` leads from the one to the other and back.

Crossings are all-to-alls, by NCCL between GPUs and by gloo between processes on a CPU. Where GPUs reach each
other's memory, the kernels before and after a motion module write and read it themselves, and a crossing is
two barriers. Every member calls the same methods in the same order. On GPUs all of them but `share` and
`reserve` may be recorded in a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Crossing:
    """The way of a motion module's input from own frames to own positions, and of its result back.

    Attributes:
        targets: by member, where its positions of own frames are to be written: (own frames, positions of
            one, channels) each.
        cross: makes `arrived` complete, once the targets are written.
        arrived: all frames of own positions (frames, positions of one, channels).
        made: of the same shape, where the result is to be written.
        back: makes `sources` complete, once `made` is written.
        sources: by member, the result at its positions of own frames, as the targets.
    """

    targets: Sequence[Tensor]
    cross: Callable[[], object]
    arrived: Tensor
    made: Tensor
    back: Callable[[], object]
    sources: Sequence[Tensor]


class TeamExchange:
    """This process's side of the exchanges. The leader is member 0. Needs torch's default process group.

    Of a clip of F frames member i has frames i·F/N to (i + 1)·F/N. Of P positions it has those from i·p to
    (i + 1)·p, where p is P/N rounded up (`ops.positions_of_part`).

    Args:
        direct: whether kernels reach the other members' memory. All members must say the same.
    """

    def __init__(self, direct: bool = False) -> None:
        self.rank = dist.get_rank()
        self.size = dist.get_world_size()
        self.direct = direct
        self._memories: list[PeerMemory] = []

    @property
    def leads(self) -> bool:
        """Whether this process is the leader."""
        return self.rank == 0

    def reserve(self, values: int, like: Tensor) -> None:
        """Makes room for crossings of up to so many values of `like`'s type on its device."""
        if self.direct and not any(memory.holds(values, like) for memory in self._memories):
            # Those that are too small stay, since graphs use them.
            self._memories.append(PeerMemory(values, like, self.rank, self.size))

    def crossing(self, frames: int, positions: int, channels: int, like: Tensor) -> Crossing:
        """A motion module's crossing, with so many own frames and positions of one member.

        Where kernels reach the others' memory, its tensors are the next crossing's too.
        """
        values = self.size * frames * positions * channels
        for memory in self._memories:
            if memory.holds(values, like):
                return memory.crossing(frames, positions, channels)
        sent, received = (like.new_empty(self.size, frames, positions, channels) for _ in range(2))
        arrived, made = (torch.empty_like(sent) for _ in range(2))
        return Crossing(
            sent.unbind(0), partial(dist.all_to_all_single, arrived, sent), arrived.flatten(0, 1),
            made.flatten(0, 1), partial(dist.all_to_all_single, received, made), received.unbind(0),
        )  # fmt: skip

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


class PeerMemory:
    """Two buffers in every member's memory that all members reach: for `Crossing.arrived` and for `made`.

    One pair serves all crossings. A member writes the others' `arrived` after it has passed the barrier after
    its last `made`, which each passes when it no longer reads its own `arrived`. It writes `made` after the
    barrier that the others pass when they no longer read the last one.
    """

    def __init__(self, values: int, like: Tensor, rank: int, size: int) -> None:
        import torch.distributed._symmetric_memory as symmetric

        self._values = -(-values // 64) * 64  # so that the second buffer begins at a line of memory too
        self._rank, self._size, self._dtype = rank, size, like.dtype
        self._memory = symmetric.empty(2 * self._values, dtype=like.dtype, device=like.device)
        group = dist.group.WORLD
        assert group is not None
        self._handle: Any = symmetric.rendezvous(self._memory, group)
        self._made: dict[tuple[int, int, int], Crossing] = {}

    def holds(self, values: int, like: Tensor) -> bool:
        """Whether a crossing of so many values of `like`'s type has room."""
        return values <= self._values and like.dtype == self._dtype

    def crossing(self, frames: int, positions: int, channels: int) -> Crossing:
        """As `TeamExchange.crossing`."""
        key = frames, positions, channels
        if key not in self._made:
            own, every = key, (self._size * frames, positions, channels)
            at = self._rank * frames * positions * channels
            self._made[key] = Crossing(
                [self._at(i, own, at) for i in range(self._size)],
                self._handle.barrier,
                self._at(self._rank, every, 0),
                self._at(self._rank, every, self._values),
                self._handle.barrier,
                [self._at(i, own, self._values + at) for i in range(self._size)],
            )
        return self._made[key]

    def _at(self, rank: int, shape: tuple[int, ...], offset: int) -> Tensor:
        """A view of a member's memory. It says to be on this process's device."""
        view: Tensor = self._handle.get_buffer(rank, shape, self._dtype, offset)
        return view
