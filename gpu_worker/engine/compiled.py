"""Torch's ways to sample a clip: the fast path, torch.compile, and plain torch where none is ready.

The fast path needs CUDA, Triton and no guidance. Where it cannot serve, torch.compile may. Plain torch always
works, and it also makes the clips of shapes that nothing was compiled for.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, TypeAlias

from torch import Tensor

from gpu_worker.denoiser.model import ReferenceCache
from gpu_worker.denoiser.pipeline import ClipDenoiser
from gpu_worker.denoiser.spare import SpareWeights, weights_of
from gpu_worker.engine.device import keep_compiled_code, release_memory
from gpu_worker.engine.kept_tops import KeptTops
from gpu_worker.engine.parts import PreparedClip
from gpu_worker.engine.session_state import SessionState
from gpu_worker.engine_api import DeviceLost
from gpu_worker.fast import TIERS, FastDenoiser, FastUnavailable
from gpu_worker.fast.tiers import clips_name
from gpu_worker.fast.weights import storages
from gpu_worker.team.denoiser import TeamDenoiser
from gpu_worker.team.members import Members
from protocol.model.hardware.threads import thread_count
from protocol.model.kernels.ahead import wait_for_kernels
from protocol.process.logs import first_line
from protocol.process.settings import Settings, SettingsError

logger = logging.getLogger(__name__)

AnyDenoiser: TypeAlias = ClipDenoiser | FastDenoiser

#: Clips run after compiling: the first compiles, the second records CUDA graphs, the third replays them.
RUNS_TO_COMPILE = 3


class ClipSampler:
    """Samples each clip by the fastest way that is ready for its shape. Belongs to the compute thread.

    Args:
        settings: of this worker.
        plain: the model in plain torch.
        members: the other members of the team, where one serves.
    """

    #: The library that serves, as --cpu-engine names it.
    cpu_engine = "torch"

    def __init__(
        self,
        settings: Settings,
        plain: ClipDenoiser,
        members: Members | None = None,
    ) -> None:
        #: How the clips of a session follow each other.
        self.state = SessionState.of(settings, plain.models.config.steps)
        self._settings = settings
        self._plain = plain
        self._members = members
        self._compiled: ClipDenoiser | None = None
        self._fast: FastDenoiser | None = None
        self._ready_frames: set[int] = set()
        self._compiling_failed = False
        #: Whether torch.compile, which takes minutes, is left out.
        self._only_fast = False
        #: Frames of clips that the team cannot share, as the log said.
        self._left_to_leader: set[int] = set()

    def adopt(self, settings: Settings) -> None:
        """Samples as these settings say from now on, by the fast path or by plain torch.

        Every shape is to be made ready again.
        """
        if _tier(settings) != _tier(self._settings):
            self._fast = None
            release_memory(self._plain.models.device)
        self._settings = settings
        self.state = SessionState.of(settings, self._plain.models.config.steps)
        self._ready_frames.clear()
        self._compiling_failed = False
        self._only_fast = True

    def put_some_aside(self) -> bool:
        """Frees some of the device's memory of weights that only new avatars need. False: all is free.

        Those that only plain torch reads go too where the fast path serves. Plain torch fetches them when a
        shape comes that is not ready.
        """
        plain = self._plain
        if plain.spare.put_some():
            return True
        if self._fast is None or self._members is not None or self._compiled is not None:
            return False
        if not plain.unread.aside:
            read = storages(self._fast.network)
            weights = weights_of(plain.models.denoiser)
            unread = [x for x in weights if x.untyped_storage().data_ptr() not in read]
            plain.unread = SpareWeights(unread, plain.models.device)
        return plain.unread.put_some()

    # ------------------------------------------------------------------ each clip

    def sample(self, prepared: PreparedClip, reference: ReferenceCache, before: Tensor | None) -> Tensor:
        """The clip's latents (F, C, h, w), float32, on the device.

        Args:
            prepared: the clip.
            reference: the avatar's keys and values.
            before: the last latent (C, h, w) of the clip before, or None if there is none to follow.
        """
        denoiser = self._fastest_for(prepared)
        latents, start = self.state.start(denoiser.steps, prepared.noise, before)
        if isinstance(denoiser, FastDenoiser):
            return denoiser.sample(latents, prepared.tokens, prepared.pose, reference, start)
        audio = denoiser.project_audio(prepared.tokens)
        return denoiser.sample(latents, audio, prepared.pose, reference, start)

    def _fastest_for(self, prepared: PreparedClip) -> AnyDenoiser:
        frames, _, height, width = prepared.noise.shape
        if self._fast is not None and self._fast.prepared(frames, height, width, prepared.tokens.shape[1]):
            return self._fast
        if self._compiled is not None and frames in self._ready_frames:
            return self._compiled
        return self._plain

    def ready_for(self, frames: int) -> bool:
        """Whether the fastest way that serves here is ready for clips of this many frames."""
        if self._members is not None:
            return frames in self._ready_frames
        return not self.can_compile_for(frames)

    # ------------------------------------------------------------------ compiling

    @property
    def compiled(self) -> bool:
        """Whether clips of any shape are sampled by compiled code."""
        return bool(self._ready_frames)

    @property
    def tier(self) -> str:
        """The tier in use, as --tier names it. All ways but the fast path are exact."""
        return _tier(self._settings) if self._fast is not None else "exact"

    def can_compile_for(self, frames: int) -> bool:
        """Whether clips of this many frames wait for `compile_for`."""
        wanted = bool(self._settings.compile_unet) and not self._compiling_failed
        if self._members is not None and frames % self._members.size:
            if frames not in self._left_to_leader:
                logger.warning("a team cannot share clips of %d frames; its leader makes them alone", frames)
                self._left_to_leader.add(frames)
            return False
        return wanted and frames not in self._ready_frames

    def compile_for(
        self,
        frames: int,
        prepare: Callable[[], tuple[PreparedClip, ReferenceCache]],
        make_clip: Callable[[], object],
    ) -> None:
        """Compiles for clips of this many frames. A failure is logged, and plain torch serves.

        A team's failure is its end.

        Args:
            frames: of the clips.
            prepare: gives the inputs of such a clip, with nothing pending on the device.
            make_clip: makes such a clip by the way that serves sessions.

        Raises:
            DeviceLost: a member of the team is lost.
            SettingsError: the fast path, which a team needs, does not serve this model or device.
        """
        folder = keep_compiled_code(self._settings)
        begin = time.monotonic()
        wait_for_kernels(clips_name(_tier(self._settings), frames))
        try:
            if not self._set_up_fast(prepare):
                if self._only_fast:
                    raise FastUnavailable("the fast path fails, and only a flag asks for torch.compile")
                self._set_up_compiled()
            self._ready_frames.add(frames)
            for _ in range(RUNS_TO_COMPILE if self._fast is None else 1):  # its graphs are recorded
                make_clip()
            release_memory(self._plain.models.device)
            seconds = time.monotonic() - begin
            logger.info("denoiser compiled for %d frames in %.1f s (kept in %s)", frames, seconds, folder)
        except (DeviceLost, SettingsError):
            raise
        except Exception as error:  # compilers fail in any way; plain torch always works
            self._ready_frames.discard(frames)
            self._compiling_failed = True
            logger.warning("--compile-unet has no effect, compiling failed: %s", first_line(error))

    def _set_up_fast(self, prepare: Callable[[], tuple[PreparedClip, ReferenceCache]]) -> bool:
        """Makes the fast path ready for a clip's shape. False: torch.compile has to serve."""
        if self._members is None and self._plain.models.device.type != "cuda":
            return False
        settings = self._settings
        try:
            self._fast = self._fast or self._make_fast(self._members)
            prepared, reference = prepare()
            starts = self.state.first_steps
            self._fast.prepare(prepared.noise, prepared.tokens, prepared.pose, reference, starts=starts)
        except DeviceLost:
            raise
        except Exception as error:  # an old GPU, no Triton, guidance: torch.compile may still serve
            if self._members is not None:
                name = settings.gpu_devices[settings.worker_index]
                raise SettingsError(f"--gpu-devices {name}: no team: {first_line(error)}") from error
            self._fast = None
            logger.warning("the fast path is not used, torch.compile is: %s", first_line(error))
            return False
        return True

    def _make_fast(self, members: Members | None) -> FastDenoiser:
        settings, models, begin = self._settings, self._plain.models, time.monotonic()
        self._plain.unread.bring_back()
        given: dict[str, Any] = {
            "steps": settings.steps, "guidance_scale": settings.cfg, "tier": TIERS[_tier(settings)],
        }  # fmt: skip
        if members is None:
            made = FastDenoiser(models, **given, tops=KeptTops(settings, models.config))
            logger.info("fast path: its weights in %.1f s", time.monotonic() - begin)
            return made
        return TeamDenoiser(models, members, threads=thread_count(settings), **given)

    def _set_up_compiled(self) -> None:
        self._plain.unread.bring_back()
        self._compiled = self._compiled or ClipDenoiser(
            self._plain.models,
            steps=self._settings.steps,
            guidance_scale=self._settings.cfg,
            compile_unet=True,
        )


def _tier(settings: Settings) -> str:
    return settings.tier or "exact"
