"""The parts of an engine, which differ between torch and OpenVINO: model, sampler and device.

`DenoiserEngine` sees these alone. What it moves between them is opaque to it: tensors of torch, or arrays of
numpy. On its own side, clips, noise and last latents are numpy's.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from gpu_worker.avatars.store import AvatarStore
from gpu_worker.denoiser.sampler import Step
from gpu_worker.kept_features import Arrays, FeatureFolder, KeptPoses, KeptReferences
from gpu_worker.poses.store import FeatureMemory, PoseStore
from gpu_worker.poses.track import PoseTrack
from protocol.model.assets import avatar_paths, pose_paths
from protocol.model.audio_tokens import tokens_per_frame
from protocol.model.config import ModelConfig
from protocol.model.own_avatars import own_avatar_folder
from protocol.model.vae_folder import VaeFolder
from protocol.process.settings import Settings
from protocol.wire.messages import Array16, Clip, InfoValue

if TYPE_CHECKING:
    from gpu_worker.engine.compiled import ClipSampler
    from gpu_worker.engine.cpu_sampler import CpuSampler
    from gpu_worker.engine.session_state import SessionState

#: Bytes of reference features (keys and values of avatars) kept, by type of device.
REFERENCE_BYTES = {"cpu": 256 * 2**20, "cuda": 1024 * 2**20}

#: Pose frames encoded at a time, by type of device. A clip that comes waits for those that are under way, and
#: most of their time goes into drawing.
POSE_BATCH = {"cpu": 12, "cuda": 4}

Floats = NDArray[np.float32]
D = TypeVar("D", bound="Denoiser")


class Denoiser(Protocol):
    """A model that makes clips."""

    @property
    def steps(self) -> tuple[Step, ...]:
        """The sampler's."""

    @property
    def guidance_scale(self) -> float:
        """1.0 where there is no unconditional half."""

    @property
    def latent_channels(self) -> int:
        """Channels C of the latents."""

    @property
    def max_frames(self) -> int | None:
        """Frames of the longest clip, or None where there is no limit."""


@dataclass(frozen=True, eq=False)
class LoadedModel(Generic[D]):
    """A model on its device, and the avatars and poses that it serves.

    Attributes:
        config: the model's configuration.
        denoiser: the model by the library that serves.
        dtype: the arithmetic of the networks: float32, bfloat16 or float16.
        large: whether a second copy would cost more than it gains.
        width: of the pictures, in pixels.
        height: of the pictures, in pixels.
        token_count: audio tokens of a frame.
        avatars: reference features by name.
        poses: pose features by name and frame.
        features: the folder of what is kept for the next start, or None where nothing is kept.
    """

    config: ModelConfig
    denoiser: D
    dtype: str
    large: bool
    width: int
    height: int
    token_count: int
    avatars: AvatarStore[Any]
    poses: PoseStore[Any]
    features: FeatureFolder | None

    @property
    def latent_size(self) -> tuple[int, int, int]:
        """Channels, height and width of latents."""
        factor = VaeFolder.of(self.config).factor
        return self.denoiser.latent_channels, self.height // factor, self.width // factor


@dataclass(frozen=True)
class Encoders:
    """How a library makes and keeps the features of pictures and poses.

    Attributes:
        prepare_reference: picture (height, width, 3), uint8 RGB → the avatar's features, with an attribute
            `reference` whose `nbytes` is their size.
        encode_pose: pose maps (n, 3, H, W) in 0..1 → features (n, c0, h, w).
        memory: keeps the features of poses.
        pose_bytes: most bytes of these.
        pack: an avatar's features as arrays for the disk.
        unpack: the features of such arrays, or None where one is missing.
    """

    prepare_reference: Callable[[NDArray[np.uint8]], Any]
    encode_pose: Callable[[Floats], Any]
    memory: FeatureMemory[Any]
    pose_bytes: int
    pack: Callable[[Any], Arrays]
    unpack: Callable[[Arrays], Any]


def model_with_assets(
    settings: Settings,
    config: ModelConfig,
    denoiser: D,
    encoders: Encoders,
    *,
    device_type: str,
    dtype: str,
    large: bool,
    features: FeatureFolder | None,
) -> LoadedModel[D]:
    """A model with the avatars and poses that the settings name.

    Raises:
        AssetError: no picture or no pose can be read.
    """
    width, height = config.picture_size(settings)
    avatars = AvatarStore[Any](
        avatar_paths(settings),
        width,
        height,
        encoders.prepare_reference,
        size_of=lambda made: made.reference.nbytes,
        budget=REFERENCE_BYTES[device_type],
        kept=None if features is None else KeptReferences(features, encoders.pack, encoders.unpack),
        own_folder=own_avatar_folder(settings),
    )
    poses = PoseStore[Any](
        pose_paths(settings),
        partial(PoseTrack.load, size=(height, width)),
        encoders.encode_pose,
        encoders.memory,
        budget=encoders.pose_bytes,
        batch=POSE_BATCH[device_type],
        kept=None if features is None else KeptPoses(features),
    )
    tokens = tokens_per_frame(settings.audio_margin)
    return LoadedModel(
        config, denoiser, dtype, large, width, height, tokens, avatars, poses, features
    )  # fmt: skip


@dataclass(slots=True, eq=False)
class PreparedClip:
    """A clip's inputs on the device.

    Attributes:
        clip: the message that asked for it, with the names of avatar and pose resolved.
        tokens: audio tokens (F, T, 384).
        pose: pose features (F, c0, h, w).
        noise: starting noise (F, C, h, w), float32.
        ready: on CUDA, the event after which the tensors may be read, or None on a CPU.
    """

    clip: Clip
    tokens: Any
    pose: Any
    noise: Any
    ready: Any


class Device(Protocol):
    """Computes. What is sent to it may be read by the sampler once `to_device` was called for the clip."""

    @property
    def type(self) -> str:
        """The kind of device: "cpu" or "cuda"."""

    @property
    def name(self) -> str:
        """For status and logs."""

    @property
    def team(self) -> int:
        """Devices that make each clip together. 1 is this one alone."""

    def sending(self) -> AbstractContextManager[None]:
        """The prefetch thread sends a clip's inputs meanwhile. Raises as `computing`."""

    def noise(self, state: SessionState, clip: Clip, shape: tuple[int, int, int]) -> Any:
        """The clip's starting noise (F, C, h, w), sent to the device. `shape` is (C, h, w)."""

    def tokens(self, tokens: Array16) -> Any:
        """Audio tokens (F, T, 384), sent to the device."""

    def sent(self) -> Any:
        """The event after which everything sent until now may be read, or None."""

    def computing(self) -> AbstractContextManager[None]:
        """The compute thread denoises or encodes meanwhile.

        Raises:
            ClipError: memory ran out. Other clips can still be made.
            DeviceLost: the device failed, and fails from now on.
        """

    def to_device(self, prepared: PreparedClip, before: Floats | None) -> Any:
        """Waits for the clip's inputs. Returns the last latent of the clip before on the device."""

    def to_host(self, latents: Any) -> tuple[Array16, Floats]:
        """A clip's latents (F, C, h, w) as float16, and the last of them (C, h, w) as it is."""

    def wait(self) -> None:
        """Waits until everything is done that was given to the device."""

    def release(self) -> None:
        """Returns memory that is held unused."""

    def check(self) -> None:
        """Raises DeviceLost where a member of the team is lost, which a clip would wait for."""

    def facts(self) -> dict[str, InfoValue]:
        """What status tells of it."""

    def memory(self) -> dict[str, float]:
        """Figures of its own memory. Empty for a CPU."""


Sampler: TypeAlias = "ClipSampler | CpuSampler"


@dataclass(frozen=True)
class Parts:
    """The parts of one engine."""

    model: LoadedModel[Any]
    sampler: Sampler
    device: Device
