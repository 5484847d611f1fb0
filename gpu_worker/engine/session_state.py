"""Where the sampling of each clip begins, so that a session's clips join: its noise and its first latents.

Every engine asks here: plain torch, torch.compile, OpenVINO, the GPU's fast path and its teams. The noise is
numpy's, drawn on the host, so it is the same for all of them.
`--use-init-latent` turns it on, `--session-state` names the way, and `--late-start` skips steps.

auto: zero-noise where a model that was trained for one step takes more, else session-noise.
session-noise: all clips of a session start from the same noise, and nothing of the clip before is mixed in.
    The noise depends on --seed alone, so all sessions have the same. So a clip that is sent again, a later
    epoch, another worker and the loop of silent clips (`rest_loop`) all go on without a jump. FreeNoise (Qiu
    et al. 2023, arXiv 2310.15169) reuses the noise of a video's first window in the same manner.
    docs/lab/continuity.md has the figures of all ways.
zero-noise: all clips start from zeros, and nothing of the clip before is mixed in. A model of one step
    predicts the mean picture from any noise. Its further steps do not remove noise: a third would be left.
seed-mix: each clip has its own noise, and its first frame 0.6 of the last latent of the clip before.
new-noise: each clip has its own noise, and clips know nothing of each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from gpu_worker.denoiser.sampler import A, Step, draw_noise, preserve_in_clip
from gpu_worker.sessions import clip_seed, session_seed
from protocol.process.settings import Settings
from protocol.wire.messages import Clip

N = TypeVar("N")

AUTO = "auto"
SESSION_NOISE, ZERO_NOISE, SEED_MIX, NEW_NOISE = "session-noise", "zero-noise", "seed-mix", "new-noise"
#: Ways in which all clips of a shape start alike.
SHARED_WAYS = (SESSION_NOISE, ZERO_NOISE)


@dataclass(frozen=True)
class SessionState:
    """How the clips of a session follow each other.

    Attributes:
        way: one of `SESSION_NOISE`, `ZERO_NOISE`, `SEED_MIX` and `NEW_NOISE`.
        seed: of all noise.
        late_start: steps that a clip which follows another skips. 0 skips none.
    """

    way: str
    seed: int = 0
    late_start: int = 0

    @classmethod
    def of(cls, settings: Settings, usual_steps: int) -> SessionState:
        """The state that the settings ask for.

        Args:
            settings: of this worker.
            usual_steps: the steps that the model's configuration names.
        """
        if not settings.use_init_latent:
            return cls(NEW_NOISE, settings.seed)
        way = settings.session_state
        if way == AUTO:
            way = ZERO_NOISE if usual_steps == 1 < (settings.steps or 1) else SESSION_NOISE
        return cls(way, settings.seed, settings.late_start or 0)

    @property
    def holds_still_parts(self) -> bool:
        """Whether `still_parts.stilled` takes each clip. Noise passes it, so only clips without have it."""
        return self.way == ZERO_NOISE

    @property
    def first_steps(self) -> set[int]:
        """The numbers of the steps at which sampling may begin."""
        return {0, self.late_start}

    def noise(self, clip: Clip, shape: tuple[int, int, int]) -> NDArray[np.float32]:
        """The clip's starting noise (F, C, h, w).

        Frame after frame, so that a shorter clip of the same seed has the first frames of a longer one.

        Args:
            clip: the clip. Its name of session, epoch and number choose the noise, but for the shared ways.
            shape: (C, h, w) of a frame's latent.
        """
        if self.way == ZERO_NOISE:
            return np.zeros((len(clip.tokens), *shape), np.float32)
        if self.way == SESSION_NOISE:
            seed = session_seed(self.seed)
        else:
            seed = clip_seed(self.seed, clip.session, clip.epoch, clip.seq)
        generator = np.random.Generator(np.random.PCG64(seed))
        return np.stack([draw_noise(shape, generator) for _ in clip.tokens])

    def start(self, steps: Sequence[Step], noise: A, before: A | None) -> tuple[A, int]:
        """Where sampling begins: latents (F, C, h, w) and the number of the first step.

        Args:
            steps: of the sampler.
            noise: the clip's, from `noise`, on the device.
            before: the last latent (C, h, w) of the clip before, in the same library and on the same device,
                or None if there is none to follow.
        """
        if before is None or before.shape != noise.shape[1:]:
            return noise, 0
        if self.late_start:
            # Every frame starts at that latent, with as much noise as the step has.
            return steps[self.late_start].noised(before, noise), self.late_start
        if self.way == SEED_MIX:
            return preserve_in_clip(noise, before), 0
        return noise, 0


class SharedNoise(Generic[N]):
    """The noise of clips on the device. The one that all clips of a shape share is drawn and sent once.

    Args:
        send: sends noise to the device.
    """

    def __init__(self, send: Callable[[NDArray[np.float32]], N]) -> None:
        self._send = send
        #: By way, frames, C, h and w. There are few shapes.
        self._shared: dict[tuple[str | int, ...], N] = {}

    def get(self, state: SessionState, clip: Clip, shape: tuple[int, int, int]) -> N:
        """The clip's starting noise (F, C, h, w), as `SessionState.noise` draws it."""
        if state.way not in SHARED_WAYS:
            return self._send(state.noise(clip, shape))
        key = state.way, len(clip.tokens), *shape
        if key not in self._shared:
            self._shared[key] = self._send(state.noise(clip, shape))
        return self._shared[key]
