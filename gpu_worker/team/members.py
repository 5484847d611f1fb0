"""The other processes of a team, as its leader has them: their start, orders, and that one is lost."""

from __future__ import annotations

import logging
import os
import selectors
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path

import torch

from gpu_worker.engine_api import DeviceLost
from gpu_worker.team.line import Line, Message
from protocol.process.settings import ROOT

logger = logging.getLogger(__name__)

#: Seconds between two looks at the deadlines.
LOOK_EVERY = 0.5

#: Seconds for an order that compiles, loads or makes ready.
LONG = 900.0


@dataclass(eq=False)
class Member:
    """One process of the team, as the leader knows it.

    Attributes:
        rank: its number, from 1.
        device: that it computes on.
        process: its process.
        line: to it.
        due: number and deadline of the orders that it has not confirmed, the oldest first.
    """

    rank: int
    device: torch.device
    process: subprocess.Popen[bytes]
    line: Line
    due: deque[tuple[int, float]] = field(default_factory=deque)

    def __str__(self) -> str:
        return f"member {self.rank} of the team, on {self.device},"


class Members:
    """The members but the leader. Orders go to all of them, and all do the same in the same order.

    A thread watches them. A member that ends, fails or does not confirm an order in time is lost, and with
    it the team: exchanges would wait for it for ever.

    Args:
        devices: of all members, the leader's first.
    """

    #: Where the processes meet. Removed when the team ends.
    store: Path

    def __init__(self, devices: Sequence[torch.device]) -> None:
        self.store = Path(tempfile.mkdtemp(prefix="echomimic-team-")) / "store"
        self._number = 0
        self._lost: str | None = None
        self._closing = False
        #: Guards `_lost` and each member's `due`. Notified when one of them changes.
        self._changed = threading.Condition()
        self._members = [self._start(rank, device) for rank, device in enumerate(devices) if rank > 0]
        self.size = len(devices)
        self._devices = devices
        threading.Thread(target=self._watch, name="team", daemon=True).start()

    def _start(self, rank: int, device: torch.device) -> Member:
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", "gpu_worker.team.member", str(theirs.fileno())],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        return Member(rank, device, process, Line(ours))

    def reach_each_other(self) -> bool:
        """Whether every device is a GPU that can read and write the memory of all others."""
        pairs = permutations(self._devices, 2)
        return all(a.type == b.type == "cuda" and torch.cuda.can_device_access_peer(a, b) for a, b in pairs)

    # ------------------------------------------------------------------ orders, in the compute thread

    def greet(self, described: Message, threads: int) -> None:
        """Has every member join the process group. The leader must join, and share its weights, meanwhile."""
        self._number += 1
        for member in self._members:
            hello = {
                "rank": member.rank, "size": self.size, "device": str(member.device),
                "store": str(self.store), "threads": threads, **described,
            }  # fmt: skip
            self._send(member, {"do": "join", "number": self._number, **hello}, LONG)

    def order(self, what: str, *, seconds: float = LONG, **values: object) -> None:
        """Gives all members an order, to be confirmed in so many seconds.

        Raises:
            DeviceLost: a member is lost.
        """
        self._number += 1
        for member in self._members:
            self._send(member, {"do": what, "number": self._number, **values}, seconds)

    def _send(self, member: Member, message: Message, seconds: float) -> None:
        self.check()
        with self._changed:
            member.due.append((message["number"], time.monotonic() + seconds))
        try:
            member.line.send(message)
        except OSError as error:
            self._lose(f"{member} is gone")
            raise DeviceLost(self._lost or str(error)) from error

    def wait(self) -> None:
        """Waits until every order is confirmed.

        Raises:
            DeviceLost: a member is lost.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._lost or not any(m.due for m in self._members))
        self.check()

    def check(self) -> None:
        """Raises DeviceLost if a member is lost. Any thread may call it."""
        if self._lost is not None:
            raise DeviceLost(self._lost)

    def close(self) -> None:
        """Ends the members. It need not be called: they end with the leader's process."""
        self._closing = True
        for member in self._members:
            member.line.hang_up()
            try:
                member.process.wait(5.0)
            except subprocess.TimeoutExpired:
                member.process.kill()
                member.process.wait()
        remove_store(self.store)

    # ------------------------------------------------------------------ in the watching thread

    def _watch(self) -> None:
        with selectors.DefaultSelector() as selector:
            for member in self._members:
                selector.register(member.line.sock, selectors.EVENT_READ, member)
            while self._lost is None and not self._closing:
                for key, _ in selector.select(LOOK_EVERY):
                    self._hear(key.data)
                self._look_at_deadlines()

    def _hear(self, member: Member) -> None:
        messages = member.line.read_some()
        if messages is None:
            self._lose(self._end_of(member))
        for message in messages or ():
            if "error" in message:
                self._lose(f"{member} failed: {message['error']}")
            else:
                with self._changed:
                    while member.due and member.due[0][0] <= message["done"]:
                        member.due.popleft()
                    self._changed.notify_all()

    def _end_of(self, member: Member) -> str:
        """How the process of a member ended, whose line is cut."""
        try:
            status = member.process.wait(1.0)
        except subprocess.TimeoutExpired:
            return f"{member} has closed its line"
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        return f"{member} {how}"

    def _look_at_deadlines(self) -> None:
        now = time.monotonic()
        late = [m for m in self._members if m.due and m.due[0][1] < now]
        if late:
            self._lose(f"{late[0]} has not confirmed an order in time")

    def _lose(self, why: str) -> None:
        with self._changed:
            if self._lost is None and not self._closing:
                remove_store(self.store)  # the member that would have done so may be gone
                logger.error("the team is lost: %s", why)
                self._lost = why
            self._changed.notify_all()

    def pids(self) -> list[int]:
        """Process ids, by rank from 1."""
        return [member.process.pid for member in self._members]


def remove_store(store: Path) -> None:
    """Removes the folder in which a team met, once its leader is gone."""
    shutil.rmtree(store.parent, ignore_errors=True)


def end_process(status: int) -> None:
    """Ends this process at once: an exchange that waits for a lost process cannot be called off."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
