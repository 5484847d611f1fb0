"""One training step: gradients by one CUDA graph, their mean over the GPUs, optimiser and average."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from demo.factory.train.checkpoint import Averaged, save_training

logger = logging.getLogger(__name__)

#: A function of examples. Its values are the loss, and a squared error to report.
Loss = Callable[[Mapping[str, Tensor]], tuple[Tensor, Tensor]]
#: Calls before a capture, in which the libraries choose their kernels and allocate their memory.
WARM_UP = 3
SAVE_SECONDS = 90.0
CLOCK_STEPS = 10  # steps between two looks at the leader's clock


def join(rank: int, processes: int, meeting: str, device: torch.device) -> None:
    """Join the group of processes that train together, each with the one GPU it sees.

    Args:
        rank: number of this process.
        processes: size of the group.
        meeting: host:port where the first process waits for the others.
        device: device of this process.
    """
    if processes > 1:
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, f"tcp://{meeting}", rank=rank, world_size=processes)


def leads() -> bool:
    """Whether this process is the first of its group, which writes and reports. Alone it is."""
    return not dist.is_initialized() or dist.get_rank() == 0


def make_optimizer(parameters: list[nn.Parameter], weight_decay: float) -> torch.optim.AdamW:
    """The optimiser of every stage. The learning rate is set at each step."""
    return torch.optim.AdamW(parameters, lr=1e-3, betas=(0.9, 0.99), weight_decay=weight_decay, fused=True)


class Gradients:
    """All gradients of some parameters as views of one tensor, to zero, sum and clip them at once."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        self.flat = torch.zeros(sum(p.numel() for p in parameters), device=parameters[0].device)
        first = 0
        for parameter in parameters:
            part = self.flat[first : first + parameter.numel()]
            # In the parameter's own memory order: channels_last weights have channels_last gradients.
            parameter.grad = part.as_strided(parameter.shape, parameter.stride(), part.storage_offset())
            first += parameter.numel()

    def settle(self, limit: float = 1.0) -> None:
        """Average the gradients over the processes, then clip them to a norm of `limit`."""
        if dist.is_initialized():
            dist.all_reduce(self.flat)
            self.flat.div_(dist.get_world_size())
        self.flat.mul_((limit / (self.flat.norm() + 1e-6)).clamp(max=1.0))


_pool: list[Any] = []


def shared_pool() -> Any:
    """One memory for all recordings. Only one replays at a time, and nothing in it is used afterwards."""
    if not _pool:
        _pool.append(torch.cuda.graph_pool_handle())
    return _pool[0]


class GraphedLoss:
    """Loss and gradients of examples of one shape. On CUDA they are recorded once and replayed.

    Attributes:
        inputs: the examples' tensors, filled anew before each call.

    Args:
        alone: the recording has memory of its own. Needed where it ends before others begin: the last one
            that goes takes the shared memory along.
    """

    def __init__(
        self, loss: Loss, inputs: Mapping[str, Tensor], gradients: Gradients, *, alone: bool = False
    ) -> None:
        self._loss, self.inputs, self._gradients = loss, inputs, gradients
        self._alone = alone
        self._graph: torch.cuda.CUDAGraph | None = None
        self._result: tuple[Tensor, Tensor] | None = None
        if gradients.flat.is_cuda:
            self._record()

    def _run(self) -> tuple[Tensor, Tensor]:
        self._gradients.flat.zero_()
        loss, error = self._loss(self.inputs)
        loss.backward()
        return loss.detach(), error.detach()

    def _record(self) -> None:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                self._run()
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        # Thread-local: NCCL's own threads ask the driver for events meanwhile.
        pool = None if self._alone else shared_pool()
        with torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local"):
            self._result = self._run()

    def __call__(self) -> tuple[Tensor, Tensor]:
        if self._graph is None or self._result is None:
            return self._run()
        self._graph.replay()
        return self._result


def warm_cosine(step: int, progress: float, peak: float, final: float, warm_up: int = 200) -> float:
    """Learning rate: `warm_up` steps of warm-up, then a cosine over `progress`, the share of time passed."""
    return min(1.0, (step + 1) / warm_up) * (
        final + (peak - final) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    )


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all parameters."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def share_weights(modules: list[nn.Module]) -> None:
    """Give every process the leader's weights."""
    if dist.is_initialized():
        for module in modules:
            for tensor in module.state_dict().values():
                dist.broadcast(tensor, 0)


class TrainingRun:
    """The loop of a call: its clock, learning rate, averages, reports and saves.

    Args:
        name: name in the log.
        state: folder of the training state.
        parts: each trained module with its running average, by the name of its files.
        optimizers: optimisers by the same names. The moments of each are saved with it.
        gradients: gradients of all parts.
        step: number of the first step.
        minutes: time of this call.
        peak: highest learning rate.
        final: last learning rate.
        warm_up: steps in which the learning rate rises.
        after_save: called after each save, in the leader alone.
    """

    def __init__(
        self,
        name: str,
        state: Path,
        parts: Mapping[str, tuple[nn.Module, Averaged]],
        optimizers: Mapping[str, torch.optim.Optimizer],
        gradients: Gradients,
        *,
        step: int,
        minutes: float,
        peak: float,
        final: float,
        warm_up: int = 200,
        after_save: Callable[[], None] | None = None,
    ) -> None:
        self._name, self._state, self._parts = name, state, parts
        self._optimizers, self._gradients = optimizers, gradients
        self._first = self.step = step
        self._seconds, self._peak, self._final = 60 * minutes, peak, final
        self._warm_up, self._after_save = warm_up, after_save
        self.progress = 0.0  # share of the time that has passed
        self._leads = leads()
        self._began = self._saved = time.monotonic()

    def steps(self) -> Iterator[int]:
        """Numbers of the steps, until the time is over. The leader's clock counts for all."""
        while True:
            if (self.step - self._first) % CLOCK_STEPS == 0:
                self.progress = self._look()
            if self.progress >= 1:
                break
            taken = self.step - self._first
            rate = warm_cosine(taken, self.progress, self._peak, self._final, self._warm_up)
            for optimizer in self._optimizers.values():
                set_rate(optimizer, rate)
            yield self.step
            self.step += 1
            if time.monotonic() - self._saved > SAVE_SECONDS:
                self.save()
        self.save()

    def _look(self) -> float:
        passed = torch.tensor((time.monotonic() - self._began) / self._seconds)
        if dist.is_initialized():
            passed = passed.to(self._gradients.flat.device)
            dist.broadcast(passed, 0)
        return float(passed)

    def learn(self, loss: Tensor, error: Tensor, every: int = 100) -> None:
        """Take the step whose gradients are in place, and log the figures now and then."""
        self._gradients.settle()
        for name, optimizer in self._optimizers.items():
            optimizer.step()
            module, averaged = self._parts[name]
            averaged.update(module)
        if self._leads and (self.step + 1) % every == 0:
            passed = time.monotonic() - self._began
            decibel = -10 * math.log10(float(error))
            figures = (self._name, self.step + 1, float(loss), decibel, passed)
            logger.info("%s step %d loss %.4f error %.2f dB %.0f s", *figures)

    def save(self) -> None:
        """Write the training state, in the leader alone."""
        self._saved = time.monotonic()
        if self._leads:
            for name, (module, averaged) in self._parts.items():
                save_training(self._state, name, module, averaged, self._optimizers[name], self.step)
            if self._after_save is not None:
                self._after_save()
