"""An engine without a denoiser (`--passthrough`), which shows the costs of the plumbing alone."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from gpu_worker.quality.options import Quality
from protocol.model.assets import avatar_paths, picture_files, pose_files, pose_paths
from protocol.model.config import ModelConfig
from protocol.model.vae_folder import VaeFolder
from protocol.process.settings import Settings
from protocol.wire.messages import Array16, Clip, InfoValue

logger = logging.getLogger(__name__)


class PassthroughEngine:
    """Answers each clip at once with latents of the model's shape, all zero. Loads no weights.

    Args:
        settings: of this worker.

    Raises:
        ConfigError: the model's configuration or its VAE's cannot be read.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._config = ModelConfig.load(settings.config)
        self._shape = latent_shape(settings, self._config)
        self.clip_frames = settings.frames_a_clip
        self.clip_lengths = (self.clip_frames,)
        self.spare_length = None
        self.heads = (False,)

    @property
    def device_type(self) -> str:
        return "cpu"

    def load(self) -> None:
        logger.warning("--passthrough: no denoiser, all latents are zero")

    def adopt(self, settings: Settings) -> None:
        pass

    def open_qualities(self) -> Sequence[Quality]:
        return ()

    @property
    def steps(self) -> int:
        return 1

    @property
    def latent_size(self) -> tuple[int, int, int]:
        return self._shape

    def make_ready_for(self, fps: int) -> None:
        pass

    def favour(self, fps: int) -> None:
        pass

    def ready_for(self, fps: int) -> bool:
        return True

    def prepare(self, clip: Clip) -> Clip:
        return clip

    def prepare_ahead(self, clip: Clip) -> bool:
        return False

    def denoise(self, inputs: Clip) -> Array16:
        channels, height, width = self._shape
        return np.zeros((len(inputs.tokens), channels, height, width), np.float16)

    def reached(self, clip: Clip, seq: int) -> None:
        pass

    def rest(self, clip: Clip) -> Array16 | None:
        return None

    def check(self) -> None:
        pass

    def work_in_pause(self) -> bool:
        return False

    def close(self, session: str, epoch: int) -> None:
        pass

    def trial_clip(self, session: str, seq: int, fps: int) -> Clip:
        raise NotImplementedError("nothing is timed where nothing is computed")

    def info(self) -> dict[str, InfoValue]:
        width, height = self._config.asked_size(self._settings)
        return {
            "model": f"{self._config.name} (passthrough)",
            "width": width,
            "height": height,
            "steps": 0,
            "device": "cpu",
            "dtype": "float16",
            "attention": "none",
            "avatars": list(picture_files(avatar_paths(self._settings))),
            "poses": list(pose_files(pose_paths(self._settings))),
        }

    def metrics(self) -> dict[str, float]:
        return {}


def latent_shape(settings: Settings, config: ModelConfig) -> tuple[int, int, int]:
    """(channels, h, w) of a frame's latent, by the `config.json` of the VAE."""
    vae = VaeFolder.of(config)
    width, height = config.picture_size(settings)
    return vae.latent_channels, height // vae.factor, width // vae.factor
