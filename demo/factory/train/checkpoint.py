"""Training that can stop and go on: one folder of safetensors files has everything a run needs.

GPU time comes in pieces, so each stage writes its weights, their running average and the optimiser's
moments, and the next call continues from there.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn


class Averaged:
    """An exponential moving average of a module's parameters, which is exported and evaluated."""

    def __init__(self, module: nn.Module, decay: float = 0.999) -> None:
        self.module = copy.deepcopy(module).requires_grad_(False).eval()
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Take the module's present parameters into the average."""
        # A young average would otherwise remember its random start for a thousand updates.
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        ours: list[torch.Tensor] = list(self.module.parameters())
        theirs = list(module.parameters())
        torch._foreach_lerp_(ours, [p.detach() for p in theirs], 1 - decay)


def save_training(
    folder: Path,
    name: str,
    module: nn.Module,
    averaged: Averaged,
    optimizer: torch.optim.Optimizer,
    steps: int,
) -> None:
    """Write `<name>.*` into `folder`: weights, average, optimiser moments (half precision) and step count."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {k: v.contiguous() for k, v in module.state_dict().items()}, folder / f"{name}.weights.safetensors"
    )
    save_file(
        {k: v.contiguous() for k, v in averaged.module.state_dict().items()},
        folder / f"{name}.average.safetensors",
    )
    moments = {}
    for i, parameter in enumerate(p for group in optimizer.param_groups for p in group["params"]):
        state = optimizer.state.get(parameter)
        if state:
            moments[f"{i}.exp_avg"] = state["exp_avg"].bfloat16().contiguous()
            moments[f"{i}.exp_avg_sq"] = state["exp_avg_sq"].bfloat16().contiguous()
    save_file(moments, folder / f"{name}.moments.safetensors")
    (folder / f"{name}.json").write_text(json.dumps({"steps": steps, "updates": averaged.updates}))


def load_training(
    folder: Path,
    name: str,
    module: nn.Module,
    averaged: Averaged | None = None,
    optimizer: torch.optim.Optimizer | None = None,
) -> int:
    """Continue from the files of `save_training`. Returns the step count, 0 where there are no files."""
    record = folder / f"{name}.json"
    if not record.exists():
        return 0
    module.load_state_dict(load_file(folder / f"{name}.weights.safetensors"))
    told = json.loads(record.read_text())
    if averaged is not None:
        averaged.module.load_state_dict(load_file(folder / f"{name}.average.safetensors"))
        averaged.updates = told["updates"]
    moments_file = folder / f"{name}.moments.safetensors"
    if optimizer is not None and moments_file.exists():
        moments = load_file(moments_file)
        for i, parameter in enumerate(p for group in optimizer.param_groups for p in group["params"]):
            if f"{i}.exp_avg" in moments:
                state = optimizer.state[parameter]
                for moment in ("exp_avg", "exp_avg_sq"):
                    # In float32, on the parameter's device, in its memory order: fused Adam needs that.
                    state[moment] = torch.empty_like(parameter, dtype=torch.float32, requires_grad=False)
                    state[moment].copy_(moments[f"{i}.{moment}"])
                state["step"] = torch.tensor(float(told["steps"]), device=parameter.device)
    return int(told["steps"])
