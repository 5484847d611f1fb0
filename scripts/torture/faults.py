"""Workers that are killed and stopped under a client that speaks, and the figures of this client."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from protocol.wire.messages import Samples
from scripts.run.managed import ManagedRun
from scripts.torture.viewer import ViewedStream, watch


@dataclass(frozen=True)
class Figure:
    """One figure of a trial and its limit. `most` is None where there is none."""

    name: str
    value: float
    most: float | None = None
    unit: str = "s"

    @property
    def kept(self) -> bool:
        """Whether the limit is kept."""
        return self.most is None or self.value <= self.most

    def __str__(self) -> str:
        number = f"{self.value:.2f} s" if self.unit == "s" else f"{self.value:g}"
        limit = "" if self.most is None else f"   (limit {self.most:g}{'' if self.kept else ', NOT KEPT'})"
        return f"{self.name:52s} {number:>9s}{limit}"


class Viewing:
    """A client that speaks in a thread of its own for the time of the block."""

    def __init__(self, url: str, voice: Samples, *, keeps_samples: bool = True) -> None:
        self.stream = ViewedStream(keeps_samples=keeps_samples)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(url, voice), daemon=True)

    def _run(self, url: str, voice: Samples) -> None:
        try:
            asyncio.run(watch(url, voice, self.stream))
        except Exception as error:
            self._error = error

    def __enter__(self) -> Viewing:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stream.over = True
        self._thread.join()
        if self._error is not None:
            raise self._error


def worker_pids(run: ManagedRun, module: str) -> list[int]:
    """The processes of a stage, in the order of their start."""
    return sorted(pid for pid in run.pids() if module in words_of(pid))


def words_of(pid: int) -> list[str]:
    """The command line of a process, word by word. One that has just ended has none."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    except OSError:  # it has ended: some processes of a run live for a moment
        return []


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Stop a process (SIGSTOP) for the time of the block, if it lives that long."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        try:
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            pass


def back_after(run: ManagedRun, module: str, gone: int, since: float, most: float = 60.0) -> float:
    """Seconds from the start of the process that replaces `gone` to its first Status as a warm worker."""
    began = None
    while time.monotonic() - since < most:
        if began is None:
            new = [
                pid
                for pid in worker_pids(run, module)
                if pid > gone and _age(pid) < time.monotonic() - since + 1
            ]
            began = time.monotonic() if new else None
        elif f"-{new[0]}" in warm_workers(run, module):
            return time.monotonic() - began
        time.sleep(0.02)
    return float("inf")


def warm_workers(run: ManagedRun, module: str) -> str:
    """The names of a stage's warm workers, as one text."""
    rows = run.metrics().get("echomimic_stage_warm", [])
    return " ".join(labels["worker"] for labels, value in rows if value and labels["stage"] == module)


def _age(pid: int) -> float:
    """Seconds since the process was started."""
    return time.time() - psutil.Process(pid).create_time()


def common_figures(stream: ViewedStream, since: float, sound_most: float | None = None) -> list[Figure]:
    """The figures of every trial."""
    return [
        Figure("silence at the client", stream.sound_gap(since), sound_most),
        Figure("delay of the sound, most", stream.sound_delay(since)),
        Figure("pictures doubled", stream.doubled, 0, "n"),
        Figure("pictures out of order", stream.out_of_order, 0, "n"),
        Figure("samples of sound lost", stream.sent - len(stream.heard), 0, "n"),
    ]


def encoder_killed(voice: Samples, *flags: str, encoders: int = 2) -> list[Figure]:
    """One of several encoders dies."""
    with ManagedRun(*flags, "--encoders", str(encoders)) as run:
        with Viewing(run.url, voice) as viewing:
            time.sleep(4.0)
            victim = worker_pids(run, "encoder_worker")[0]
            killed = time.monotonic()
            os.kill(victim, signal.SIGKILL)
            back = back_after(run, "encoder_worker", victim, killed)
            time.sleep(2.0)
    stream = viewing.stream
    return [
        Figure("longest gap between two pictures", stream.picture_gap(killed), 0.5),
        Figure("pictures lost", stream.lost_frames(), 0, "n"),
        Figure("the replacement takes work after its start", back, 3.0),
        *common_figures(stream, killed, 0.5),
    ]


def encoder_stopped(
    voice: Samples, *flags: str, encoders: int = 2, seconds: float = 7.0, times: int = 8
) -> list[Figure]:
    """One of several encoders stands still: once for long, then for a second at eight places in a clip."""
    with ManagedRun(*flags, "--encoders", str(encoders)) as run:
        with Viewing(run.url, voice) as viewing:
            time.sleep(3.0)
            since = time.monotonic()
            victim = worker_pids(run, "encoder_worker")[0]
            for length in (seconds, *[1.0] * times):
                with stopped(victim):
                    time.sleep(length)
                time.sleep(1.06)  # so that each stop comes at another place in a clip
    stream = viewing.stream
    return [
        Figure("longest gap between two pictures", stream.picture_gap(since), 0.5),
        Figure("pictures lost", stream.lost_frames(), 0, "n"),
        Figure("pictures dropped and blamed on the client", stream.status()["frames_dropped"], 0, "n"),
        *common_figures(stream, since, 0.5),
    ]


def encoder_given_up(voice: Samples, *flags: str) -> list[Figure]:
    """One of four encoders dies three times within 30 s: the others go on."""
    with ManagedRun(*flags, "--encoders", "4") as run:
        with Viewing(run.url, voice) as viewing:
            time.sleep(3.0)
            since = time.monotonic()
            others = set(worker_pids(run, "encoder_worker")[:3])
            for _ in range(3):
                victims = [pid for pid in worker_pids(run, "encoder_worker") if pid not in others]
                while not victims and time.monotonic() - since < 25.0:
                    time.sleep(0.1)
                    victims = [pid for pid in worker_pids(run, "encoder_worker") if pid not in others]
                for pid in victims:
                    os.kill(pid, signal.SIGKILL)
                time.sleep(2.0)
            time.sleep(4.0)
            left = len(worker_pids(run, "encoder_worker"))
    stream = viewing.stream
    return [
        Figure("encoders that go on, short of three", 3 - left, 0, "n"),
        Figure("longest gap between two pictures", stream.picture_gap(since), 0.5),
        Figure("pictures lost", stream.lost_frames(), 0, "n"),
        *common_figures(stream, since, 0.5),
    ]


def worker_killed(module: str, voice: Samples, *flags: str) -> list[Figure]:
    """The only worker of a stage dies."""
    with ManagedRun(*flags) as run:
        with Viewing(run.url, voice) as viewing:
            time.sleep(4.0)
            victim = worker_pids(run, module)[0]
            killed = time.monotonic()
            os.kill(victim, signal.SIGKILL)
            back = back_after(run, module, victim, killed)
            time.sleep(4.0)
    stream = viewing.stream
    epochs = {epoch for epoch, _, _ in stream.places}
    return [
        Figure("the client is told the cause after", stream.told("starting again", killed), 1.0),
        Figure("longest time without a new picture", stream.picture_gap(killed)),
        Figure("the replacement is warm after its start", back, 5.0),
        Figure("epochs", len(epochs), 2, "n"),
        *common_figures(stream, killed, 1.0),
    ]


def gpu_stopped(voice: Samples, *flags: str, seconds: float = 24.0) -> list[Figure]:
    """The only GPU worker stands still."""
    with ManagedRun(*flags) as run:
        with Viewing(run.url, voice) as viewing:
            time.sleep(4.0)
            victim = worker_pids(run, "gpu_worker")[0]
            since = time.monotonic()
            with stopped(victim):
                while worker_pids(run, "gpu_worker") == [victim] and time.monotonic() - since < seconds:
                    time.sleep(0.05)
                replaced = time.monotonic() - since
                time.sleep(max(0.0, since + seconds - time.monotonic()))
            time.sleep(3.0)
    stream = viewing.stream
    return [
        Figure("the supervisor replaces it after", replaced, 10.0),
        Figure("longest time without a new picture", stream.picture_gap(since)),
        *common_figures(stream, since, 2.0),
    ]


Trial = Callable[..., list[Figure]]


def gpu_killed(voice: Samples, *flags: str) -> list[Figure]:
    """The GPU worker dies."""
    return worker_killed("gpu_worker", voice, *flags)


def audio_killed(voice: Samples, *flags: str) -> list[Figure]:
    """The audio worker dies."""
    return worker_killed("audio_worker", voice, *flags)


TRIALS: dict[str, Trial] = {
    "encoder-killed": encoder_killed,
    "encoder-stopped": encoder_stopped,
    "encoder-given-up": encoder_given_up,
    "gpu-killed": gpu_killed,
    "gpu-stopped": gpu_stopped,
    "audio-killed": audio_killed,
}
