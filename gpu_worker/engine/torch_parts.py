"""Torch's parts of an engine: a GPU or the CPU as its device, and the sampler that goes with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpu_worker.denoiser.model import attention
from gpu_worker.denoiser.pipeline import ClipDenoiser
from gpu_worker.engine.compiled import ClipSampler
from gpu_worker.engine.cpu_denoiser import CpuDenoiser
from gpu_worker.engine.device import (
    device_errors,
    device_name,
    keep_compiled_code,
    release_memory,
    to_host,
    wait_for_device,
)
from gpu_worker.engine.input_stream import InputStream
from gpu_worker.engine.load import check_team, load_model
from gpu_worker.engine.parts import LoadedModel, Parts, PreparedClip
from gpu_worker.engine.session_state import SessionState, SharedNoise
from gpu_worker.team.members import Members
from protocol.model.hardware.devices import denoiser_devices
from protocol.model.hardware.gpu_memory import device_memory
from protocol.process.settings import Settings
from protocol.wire.messages import Array16, Clip, InfoValue


def load_torch_parts(settings: Settings) -> Parts | LoadedModel[CpuDenoiser]:
    """Torch's parts, or the model where torch's networks were traced for OpenVINO.

    Raises:
        SettingsError: a file, a device or a size cannot work. The message names the flag or the file.
    """
    devices = denoiser_devices(settings)
    members = None
    if len(devices) > 1:
        check_team(settings, len(devices))
        keep_compiled_code(settings)  # the members' too
        members = Members(devices)
    model = load_model(settings)
    if isinstance(model.denoiser, CpuDenoiser):
        return model
    sampler = ClipSampler(settings, model.denoiser, members)
    return Parts(model, sampler, TorchDevice(model.denoiser, members))


class TorchDevice:
    """The device that holds a model's networks. `parts.Device` says what the methods do.

    Args:
        denoiser: the model.
        members: the other members of the team, where one serves.
    """

    def __init__(self, denoiser: ClipDenoiser, members: Members | None) -> None:
        self.device: torch.device = denoiser.models.device
        self.members = members
        self._dtype = denoiser.models.dtype
        self._inputs = InputStream(self.device)
        self._noise = SharedNoise[Tensor](lambda noise: self._inputs.send(torch.from_numpy(noise)))

    @property
    def type(self) -> str:
        return self.device.type

    @property
    def name(self) -> str:
        return device_name(self.device, self.team)

    @property
    def team(self) -> int:
        return 1 if self.members is None else self.members.size

    @contextmanager
    def sending(self) -> Iterator[None]:
        with self._inputs.current():
            yield

    def noise(self, state: SessionState, clip: Clip, shape: tuple[int, int, int]) -> Tensor:
        return self._noise.get(state, clip, shape)

    def tokens(self, tokens: Array16) -> Tensor:
        sent = self._inputs.send(torch.from_numpy(tokens.copy()))
        return sent.to(self._dtype) if self.type == "cuda" else sent

    def sent(self) -> torch.cuda.Event | None:
        return self._inputs.passed()

    @contextmanager
    def computing(self) -> Iterator[None]:
        with device_errors(self.device), torch.inference_mode():
            yield

    def to_device(self, prepared: PreparedClip, before: NDArray[np.float32] | None) -> Tensor | None:
        if prepared.ready is not None:
            torch.cuda.current_stream().wait_event(prepared.ready)
        return None if before is None else torch.from_numpy(before).to(self.device)

    def to_host(self, latents: Tensor) -> tuple[Array16, NDArray[np.float32]]:
        made, last = to_host(latents.to(torch.float16), latents[-1].float())
        return made.numpy().copy(), last.numpy().copy()

    def wait(self) -> None:
        wait_for_device(self.device)

    def release(self) -> None:
        release_memory(self.device)

    def check(self) -> None:
        if self.members is not None:
            self.members.check()

    def facts(self) -> dict[str, InfoValue]:
        return {
            "device": self.name,
            "dtype": str(self._dtype).removeprefix("torch."),
            "attention": attention.describe(),
        }

    def memory(self) -> dict[str, float]:
        return device_memory(self.device)
