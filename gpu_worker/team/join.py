"""How the processes of a team become one: the process group, the description of the model, its weights."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from datetime import timedelta
from itertools import chain
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import FileStore

from gpu_worker.denoiser.loading import channels_last
from gpu_worker.denoiser.model import DenoisingUNet3D, UNetConfig
from gpu_worker.denoiser.sampler import SchedulerConfig
from gpu_worker.denoiser.unet_config import MotionConfig
from gpu_worker.fast.clip import DenoiserModel, FastDenoiser
from gpu_worker.fast.exchange import TeamExchange
from gpu_worker.fast.tiers import TIERS
from gpu_worker.team.line import Message

#: Seconds that an exchange outside a CUDA graph may wait for the other members: they may be compiling.
EXCHANGE_SECONDS = 900.0


@dataclass(frozen=True)
class MemberSampling:
    """How a member samples, as `fast.clip.Sampling` says."""

    steps: int
    window_shift: int
    cfg: float = 1.0


@dataclass
class MemberModel:
    """A denoiser without the networks that only a leader needs, as `fast.clip.DenoiserModel` says."""

    denoiser: DenoisingUNet3D
    scheduler: SchedulerConfig
    config: MemberSampling
    device: torch.device
    dtype: torch.dtype


def join_group(store: Path, device: torch.device, rank: int, size: int, direct: bool) -> TeamExchange:
    """Makes this process a member of the team whose processes meet at the file `store`.

    direct: as for `TeamExchange`.

    Sets torch's default process group. Nothing but loopback is listened on.
    """
    # Both libraries would listen on every network of the machine.
    os.environ["NCCL_SOCKET_IFNAME"] = os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    # Multicast gains nothing for an all-to-all.
    os.environ.setdefault("NCCL_NVLS_ENABLE", "0")
    os.environ.setdefault("TORCH_SYMM_MEM_DISABLE_MULTICAST", "1")
    os.environ.setdefault("NCCL_GRAPH_REGISTER", "0")
    gpu = device.type == "cuda"
    dist.init_process_group(
        "nccl" if gpu else "gloo",
        store=FileStore(str(store), size),
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=EXCHANGE_SECONDS),
        device_id=device if gpu else None,
    )
    return TeamExchange(direct)


def describe(denoiser: FastDenoiser) -> Message:
    """What a member must know to make the same denoiser, but its weights."""
    models = denoiser.models
    return {
        "unet": asdict(models.denoiser.config),
        "scheduler": asdict(models.scheduler),
        "sampling": {"steps": len(denoiser.steps), "window_shift": models.config.window_shift},
        "dtype": str(models.dtype).removeprefix("torch."),
        "tier": denoiser.tier.name,
        "graphs": denoiser.graphs,
    }


def make_denoiser(described: Message, device: torch.device, exchange: TeamExchange) -> FastDenoiser:
    """A member's denoiser, from the leader's `describe` and, by `exchange`, its weights."""
    dtype: torch.dtype = getattr(torch, described["dtype"])
    model = MemberModel(
        denoiser=_empty_denoiser(unet_config(described["unet"]), device, dtype),
        scheduler=SchedulerConfig(**described["scheduler"]),
        config=MemberSampling(**described["sampling"]),
        device=device,
        dtype=dtype,
    )
    share_weights(model, exchange)
    made = FastDenoiser(model, tier=TIERS[described["tier"]], graphs=described["graphs"])
    made.exchange = exchange
    return made


def share_weights(model: DenoiserModel, exchange: TeamExchange) -> None:
    """The leader's weights and tables go to all members."""
    with torch.inference_mode():
        exchange.share([*chain(model.denoiser.parameters(), model.denoiser.buffers())])


def unet_config(values: dict[str, Any]) -> UNetConfig:
    """The inverse of `asdict`, after JSON has made lists of tuples."""

    def tuples(given: dict[str, Any]) -> dict[str, Any]:
        return {key: tuple(x) if isinstance(x, list) else x for key, x in given.items()}

    motion = values["motion"]
    return UNetConfig(**{**tuples(values), "motion": motion and MotionConfig(**tuples(motion))})


def _empty_denoiser(config: UNetConfig, device: torch.device, dtype: torch.dtype) -> DenoisingUNet3D:
    with torch.device("meta"):
        denoiser = DenoisingUNet3D(config)
    denoiser.to(dtype).to_empty(device=device).eval().requires_grad_(False)
    channels_last(denoiser)
    return denoiser
