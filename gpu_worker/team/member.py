"""`python -m gpu_worker.team.member FD`: a member of a team. Its leader's orders come by that socket.

It ends when its leader does, and when one of its own orders fails. Its environment is the leader's, so both
configure NCCL and torch's allocator alike.
"""

from __future__ import annotations

import logging
import queue
import signal
import socket
import sys
import threading
from pathlib import Path

import torch

from gpu_worker.denoiser.model import ReferenceCache
from gpu_worker.engine.device import wait_for_device
from gpu_worker.fast.clip import FastDenoiser
from gpu_worker.fast.exchange import TeamExchange
from gpu_worker.team.join import join_group, make_denoiser
from gpu_worker.team.line import Line, Message
from gpu_worker.team.members import end_process, remove_store
from protocol.process.logs import first_line, set_up_logging

logger = logging.getLogger(__name__)


class TeamMember:
    """Does the leader's orders, each of which the leader does at the same time.

    Args:
        hello: the order to join.
    """

    def __init__(self, hello: Message) -> None:
        self._device = torch.device(hello["device"])
        if self._device.type == "cuda":
            torch.cuda.set_device(self._device)
        else:
            torch.set_num_threads(hello["threads"])
        self._exchange: TeamExchange = join_group(
            Path(hello["store"]), self._device, hello["rank"], hello["size"], hello["direct"]
        )
        self._denoiser: FastDenoiser = make_denoiser(hello, self._device, self._exchange)
        self._references: dict[int, ReferenceCache] = {}

    def do(self, order: Message) -> None:
        """Does an order to its end, on the device too.

        Raises:
            KeyError: no such order, reference or prepared shape.
        """
        orders = {"reference": self._take_reference, "prepare": self._prepare, "sample": self._sample}
        orders[order["do"]](order)
        wait_for_device(self._device)

    @torch.inference_mode()
    def _take_reference(self, order: Message) -> None:
        for number in order["drop"]:
            del self._references[number]
        dtype = self._denoiser.models.dtype
        flat = [torch.empty(shape, device=self._device, dtype=dtype) for shape in order["shapes"]]
        self._exchange.share(flat)
        self._references[order["reference"]] = ReferenceCache(tuple(zip(flat[::2], flat[1::2], strict=True)))

    def _prepare(self, order: Message) -> None:
        reference = self._references[order["reference"]]
        self._denoiser.prepare_shape(tuple(order["shape"]), None, reference, order["starts"])

    def _sample(self, order: Message) -> None:
        reference = self._references[order["reference"]]
        self._denoiser.sample_shape(tuple(order["shape"]), None, reference, order["start"])


def main() -> None:
    """Runs one member until its leader ends."""
    # The launcher's signals reach the whole group. A member ends with its leader.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    line = Line(socket.socket(fileno=int(sys.argv[1])))
    orders: queue.SimpleQueue[Message] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(line, orders), name="orders", daemon=True).start()
    hello = orders.get()
    set_up_logging("gpu_worker", f"team.{hello['rank']}", "INFO")
    try:
        member = TeamMember(hello)
        line.send({"done": hello["number"]})
        while True:
            order = orders.get()
            member.do(order)
            line.send({"done": order["number"]})
    except Exception as error:  # of any library; the leader ends the team
        logger.exception("a member of the team fails")
        line.send({"error": f"{type(error).__name__}: {first_line(error)}"})
        end_process(1)


def _read(line: Line, orders: queue.SimpleQueue[Message]) -> None:
    """Hands the leader's orders on. When the leader is gone, ends the process, whatever it waits for."""
    store = None
    for order in line:
        store = order.get("store", store)
        orders.put(order)
    if store is not None:
        remove_store(Path(store))
    end_process(0)


if __name__ == "__main__":
    main()
