"""The leader's denoiser: `FastDenoiser`, with members that do the same at the same time."""

from __future__ import annotations

import logging
import weakref
from collections import OrderedDict
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import torch

from gpu_worker.denoiser.model import ReferenceCache
from gpu_worker.engine_api import DeviceLost
from gpu_worker.fast.clip import ClipTensors, DenoiserModel, FastDenoiser, GivenTensors, Shape
from gpu_worker.fast.tiers import TIERS, Tier
from gpu_worker.team.join import describe, join_group, share_weights
from gpu_worker.team.members import Members
from protocol.process.logs import first_line

logger = logging.getLogger(__name__)

#: Seconds for a clip. A full-size one takes 0.3 s, a tiny one by processes on a busy CPU longer.
CLIP_SECONDS = 15.0

#: Bytes of reference features that a member keeps.
REFERENCE_BYTES = 1024 * 2**20


class TeamDenoiser(FastDenoiser):
    """Makes clips of latents with the members of a team, of which this process is the leader.

    Joins torch's default process group, so a process has one of these at most.

    Args:
        models: from `load_models`. The members get their weights from here.
        members: the other processes of the team.
        steps, guidance_scale, tier, graphs: as for `FastDenoiser`.
        direct: whether kernels reach the other GPUs' memory. None: where the GPUs can.
        threads: of each member, where it computes on a CPU.

    All methods raise DeviceLost when a member is lost.
    """

    def __init__(
        self,
        models: DenoiserModel,
        members: Members,
        *,
        steps: int | None = None,
        guidance_scale: float | None = None,
        tier: Tier = TIERS["exact"],
        graphs: bool = True,
        direct: bool | None = None,
        threads: int = 1,
    ) -> None:
        super().__init__(models, steps=steps, guidance_scale=guidance_scale, tier=tier, graphs=graphs)
        self.members = members
        self._references = SharedReferences(REFERENCE_BYTES)
        with self._or_lost():
            chosen = members.reach_each_other() if direct is None else direct
            members.greet({**describe(self), "direct": chosen}, threads)
            self.exchange = join_group(members.store, models.device, 0, members.size, chosen)
            share_weights(models, self.exchange)
            members.wait()
        how = "their kernels reach each other's memory" if chosen else "they exchange by collectives"
        logger.info("a team of %d: %s", members.size, how)

    def prepare_shape(
        self, shape: Shape, given: GivenTensors | None, reference: ReferenceCache, starts: Collection[int]
    ) -> None:
        with self._or_lost():
            number = self._shared(reference)
            self.members.order("prepare", shape=shape, reference=number, starts=sorted(starts))
            super().prepare_shape(shape, given, reference, starts)
            self.members.wait()

    def sample_shape(
        self, shape: Shape, given: GivenTensors | None, reference: ReferenceCache, start: int
    ) -> ClipTensors | None:
        with self._or_lost():
            number = self._shared(reference)
            self.members.order("sample", seconds=CLIP_SECONDS, shape=shape, reference=number, start=start)
            return super().sample_shape(shape, given, reference, start)

    def _shared(self, reference: ReferenceCache) -> int:
        """The number under which the members know the reference. They get it now if they do not."""
        number, dropped, new = self._references.number_of(reference)
        if new and self.exchange is not None:
            shapes = [list(x.shape) for pair in reference.layers for x in pair]
            self.members.order("reference", reference=number, drop=dropped, shapes=shapes)
            with torch.inference_mode():
                self.exchange.share([x for pair in reference.layers for x in pair])
        return number

    @contextmanager
    def _or_lost(self) -> Iterator[None]:
        """Any error leaves the members in the middle of an exchange, so it is the end of the team."""
        try:
            yield
        except DeviceLost:
            raise
        except Exception as error:
            self.members.check()  # it may say more
            raise DeviceLost(f"the team failed: {first_line(error)}") from error


class SharedReferences:
    """The numbers of the references that the members hold.

    A reference that the leader has let go of is dropped, and beyond `budget` bytes the one used least lately.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._kept: OrderedDict[int, tuple[weakref.ref[ReferenceCache], int]] = OrderedDict()
        self._next = 0

    def number_of(self, reference: ReferenceCache) -> tuple[int, list[int], bool]:
        """Its number, the numbers to drop, and whether it is new to the members."""
        for number, (kept, _) in self._kept.items():
            if kept() is reference:
                self._kept.move_to_end(number)
                return number, [], False
        dropped = [number for number, (kept, _) in self._kept.items() if kept() is None]
        for number in dropped:
            del self._kept[number]
        while self._kept and reference.nbytes + sum(size for _, size in self._kept.values()) > self._budget:
            dropped.append(self._kept.popitem(last=False)[0])
        self._next += 1
        self._kept[self._next] = weakref.ref(reference), reference.nbytes
        return self._next, dropped, True
