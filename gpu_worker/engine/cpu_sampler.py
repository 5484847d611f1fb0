"""OpenVINO's sampler and device: clips in numpy on the host."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from gpu_worker.engine.cpu_denoiser import CpuDenoiser, Floats
from gpu_worker.engine.parts import PreparedClip
from gpu_worker.engine.session_state import SessionState, SharedNoise
from gpu_worker.engine_api import ClipError
from gpu_worker.rate.governor import SERVED_RATES
from gpu_worker.rate.joining import served_lengths
from protocol.process.logs import first_line
from protocol.process.settings import Settings
from protocol.wire.clock import FULL_RATE
from protocol.wire.messages import Array16, Clip, InfoValue

logger = logging.getLogger(__name__)


class CpuSampler:
    """Samples each clip by the network for its shape. Belongs to the compute thread.

    Args:
        settings: of this worker.
        denoiser: the model.
        usual_steps: the steps that the model's configuration names.
    """

    #: The library that serves, as --cpu-engine names it.
    cpu_engine = "openvino"
    #: Whether clips are sampled by code that --compile-unet made.
    compiled = False
    #: The tier in use, as --tier names it.
    tier = "exact"

    def __init__(self, settings: Settings, denoiser: CpuDenoiser, usual_steps: int) -> None:
        #: How the clips of a session follow each other.
        self.state = SessionState.of(settings, usual_steps)
        self._denoiser = denoiser
        self._usual_steps = usual_steps

    def adopt(self, settings: Settings) -> None:
        """Samples as these settings say from now on."""
        self.state = SessionState.of(settings, self._usual_steps)

    def sample(self, prepared: PreparedClip, reference: Floats, before: Floats | None) -> Floats:
        """The clip's latents (F, C, h, w).

        Args:
            prepared: the clip.
            reference: the avatar's keys and values.
            before: the last latent (C, h, w) of the clip before, or None if there is none to follow.
        """
        noise: Floats = prepared.noise
        latents, start = self.state.start(self._denoiser.steps, noise, before)
        return self._denoiser.sample(latents, prepared.tokens, prepared.pose, reference, start)

    def ready_for(self, frames: int) -> bool:
        """Whether there is a network for clips of this many frames."""
        return self._denoiser.prepared_frames(frames)

    def make_ready(self, prepared: PreparedClip, *, favoured: bool = False) -> None:
        """Makes a network for clips of this one's shape. A failure is logged.

        Args:
            prepared: a clip.
            favoured: whether this shape gets the network of its own. Others share one for any length.
        """
        frames, _, height, width = prepared.noise.shape
        prepare = self._denoiser.prepare if favoured else self._denoiser.prepare_any_length
        try:
            prepare(frames, height, width, prepared.tokens.shape[1])
        except Exception as error:  # a compilation fails in any way
            logger.warning("no network for clips of %d frames, OpenVINO fails: %s", frames, first_line(error))

    def warm_a_length(self, frames: int, inputs: Callable[[int, int], tuple[PreparedClip, Floats]]) -> bool:
        """Makes the first clip of one length that the rate may fall to.

        Args:
            frames: of a clip at the full rate.
            inputs: of a clip of a rate, with at most so many frames.

        Returns:
            False if none was left.
        """
        cold = self._denoiser.cold(served_lengths(frames, FULL_RATE, SERVED_RATES))
        if cold:
            prepared, reference = inputs(FULL_RATE, cold[0])
            self._denoiser.warm(prepared.noise, prepared.tokens, prepared.pose, reference)
        return bool(cold)

    def put_some_aside(self) -> bool:
        """Frees the memory of networks that only new avatars and poses need, all at once."""
        self._denoiser.networks.put_aside()
        return False


class HostDevice:
    """The CPU, with everything in numpy's arrays.

    Args:
        threads: that a network may use.
        dtype: of the arithmetic.
    """

    type = "cpu"
    team = 1

    def __init__(self, threads: int, dtype: str) -> None:
        self.name = f"cpu ({threads} threads)"
        self._dtype = dtype
        self._noise = SharedNoise[Floats](lambda noise: noise)

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Raises ClipError where memory ran out: other clips can still be made."""
        try:
            yield
        except MemoryError as error:
            raise ClipError("not enough memory on cpu for a clip of this size") from error

    sending = computing

    def noise(self, state: SessionState, clip: Clip, shape: tuple[int, int, int]) -> Floats:
        """The clip's starting noise (F, C, h, w)."""
        return self._noise.get(state, clip, shape)

    def tokens(self, tokens: Array16) -> Floats:
        """Audio tokens (F, T, 384)."""
        return tokens.astype(np.float32)

    def sent(self) -> None:
        """Nothing is on its way."""

    def to_device(self, prepared: PreparedClip, before: Floats | None) -> Floats | None:
        """The last latent of the clip before, as it is."""
        return before

    def to_host(self, latents: Floats) -> tuple[Array16, Floats]:
        """A clip's latents as float16, and a copy of the last one."""
        with np.errstate(over="ignore"):  # the engine looks for values that are not finite
            return latents.astype(np.float16), latents[-1].copy()

    def wait(self) -> None:
        """Everything is done."""

    def release(self) -> None:
        """Nothing is held."""

    def check(self) -> None:
        """There is no other member."""

    def facts(self) -> dict[str, InfoValue]:
        """Device, arithmetic and library, for Status."""
        return {"device": self.name, "dtype": self._dtype, "attention": "OpenVINO"}

    def memory(self) -> dict[str, float]:
        """No memory but the host's."""
        return {}
