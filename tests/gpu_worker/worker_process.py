"""A GPU worker as a real process, and the upstream, encoder and gateway that a test plays for it.

Run as a module it is the worker with `ToyEngine`, whose latents tell their inputs.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
import zmq

from gpu_worker.engine_api import ClipError, DeviceLost
from gpu_worker.prefetch import QUEUE_DEPTH
from gpu_worker.quality.options import Quality
from gpu_worker.sessions import LatentTable
from gpu_worker.worker import GpuWorker, credit
from protocol.hop.client import HopClient, Job
from protocol.hop.results import ResultServer
from protocol.hop.server import Acked, HopServer, WorkerJoined
from protocol.process.settings import Settings, load_settings, settings_from_command_line
from protocol.process.stage import Stage
from protocol.wire.clock import frames_of_clip
from protocol.wire.messages import Array16, Clip, Close, Failed, InfoValue, Latents, Status

ROOT = Path(__file__).parents[2]


class ToyEngine:
    """Latents (frames, 1, 1, 4) hold [seq, seq of the clip they follow or -1, tokens' first value, 0].

    A clip's first token holds its duration and its failure: [value, seconds, kind of failure].
    """

    def __init__(self, settings: Settings, cost: float = 0.0) -> None:
        self._cost = cost
        self.clip_frames = settings.frames_a_clip
        self.clip_lengths: tuple[int, ...] = (self.clip_frames,)
        self.spare_length: int | None = None
        self.heads: tuple[bool, ...] = (False,)
        self._ends = LatentTable[int](8)
        #: Latents of silent clips by pose.
        self._rests: dict[str, Array16] = {}
        self.device_type = "cpu"

    def load(self) -> None:
        time.sleep(0.1)

    steps = 1
    latent_size = (1, 1, 4)

    def open_qualities(self) -> Sequence[Quality]:
        return ()

    def adopt(self, settings: Settings) -> None:
        self.clip_frames = settings.frames_a_clip

    def make_ready_for(self, fps: int) -> None:
        pass

    def favour(self, fps: int) -> None:
        pass

    def ready_for(self, fps: int) -> bool:
        return True

    def prepare(self, clip: Clip) -> Clip:
        if clip.avatar != "toy":
            raise ClipError(f"there is no avatar {clip.avatar}; there are toy", fatal=True)
        if clip.tokens[0, 0, 2] == 1:
            raise ValueError("bad clip")
        return clip

    def denoise(self, inputs: Clip) -> Array16:
        value, seconds, failure = (float(x) for x in inputs.tokens[0, 0, :3])
        time.sleep(seconds + self._cost * len(inputs.tokens))
        if failure == 2:
            raise RuntimeError("no memory")
        if failure == 3:
            raise DeviceLost("the device is gone")
        before = self._ends.before(inputs.session, inputs.epoch, inputs.seq)
        self._ends.store(inputs.session, inputs.epoch, inputs.seq, inputs.seq)
        row = np.array([inputs.seq, -1 if before is None else before, value, 0], np.float16)
        latents: Array16 = np.broadcast_to(row, (len(inputs.tokens), 1, 1, 4)).copy()
        if inputs.silent:
            self._rests[inputs.pose] = latents
        return latents

    def reached(self, clip: Clip, seq: int) -> None:
        self._ends.store(clip.session, clip.epoch, seq, seq)

    def rest(self, clip: Clip) -> Array16 | None:
        if clip.pose in self._rests:
            self._ends.store(clip.session, clip.epoch, clip.seq, clip.seq)
        return self._rests.get(clip.pose)

    def check(self) -> None:
        pass

    def prepare_ahead(self, clip: Clip) -> bool:
        return False

    def work_in_pause(self) -> bool:
        return False

    def close(self, session: str, epoch: int) -> None:
        self._ends.close(session, epoch)

    def trial_clip(self, session: str, seq: int, fps: int) -> Clip:
        return clip(session, seq, frames=frames_of_clip(fps, self.clip_frames))

    def info(self) -> dict[str, InfoValue]:
        return {"avatars": ["toy"], "model": "toy"}

    def metrics(self) -> dict[str, float]:
        return {"sessions_held": float(len(self._ends))}


def clip(
    session: str,
    seq: int,
    *,
    epoch: int = 0,
    frames: int = 12,
    avatar: str = "toy",
    pose: str = "talk",
    value: float = 0.0,
    seconds: float = 0.0,
    failure: int = 0,
    tokens: Array16 | None = None,
    silent: bool = False,
) -> Clip:
    """A clip for `ToyEngine`, or with `tokens` for any."""
    if tokens is None:
        tokens = np.zeros((frames, 2, 384), np.float16)
        tokens[0, 0, :3] = value, seconds, failure
    return Clip(session, epoch, seq, seq * 8000, 24, avatar, pose, tokens, silent=silent)


class Around:
    """The worker's neighbours, driven by `step`: one upstream, one encoder, and the results' receiver.

    The encoder acknowledges at once unless `encoding` is False; then latents stay in `unacked`.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.ctx: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.clips = HopServer(
            self.ctx, settings.endpoint("clips", 0), sticky=True, dead_after=settings.dead_after, name="clips"
        )
        self.results = ResultServer(self.ctx, settings.endpoint("results"))
        self.encoder: HopClient | None = None
        self.encoding = True
        self.encode_seconds = 0.0
        self.busy_until = 0.0
        self.unacked: list[Job] = []
        self.latents: list[Latents] = []
        self.closes: list[Close] = []
        self.acked: list[Clip] = []
        self.joined: list[str] = []
        self.failed: list[Failed] = []
        self.status: Status | None = None
        self.statuses = 0

    def start_encoder(self, credit: int = 2) -> None:
        url = self.settings.endpoint("latents", 0)
        self.encoder = HopClient(self.ctx, [url], stage="encoder_worker", worker="e", credit=credit)

    def step(self) -> None:
        for event in self.clips.tick():
            if isinstance(event, Acked):
                assert isinstance(event.msg, Clip)
                self.acked.append(event.msg)
            elif isinstance(event, WorkerJoined):
                self.joined.append(event.worker)
        for _, message in self.results.recv():
            if isinstance(message, Failed):
                self.failed.append(message)
            elif isinstance(message, Status):
                self.status = message
                self.statuses += 1
        if self.encoder is not None:
            self._encode(self.encoder)
        time.sleep(0.002)

    def _encode(self, encoder: HopClient) -> None:
        encoder.heartbeat()
        for job in encoder.recv():
            if isinstance(job.msg, Close):
                self.closes.append(job.msg)
            elif isinstance(job.msg, Latents):
                self.latents.append(job.msg)
                self.unacked.append(job)
        while self.encoding and self.unacked and time.monotonic() >= self.busy_until:
            encoder.ack(self.unacked.pop(0))
            self.busy_until = time.monotonic() + self.encode_seconds

    def until(self, done: Callable[[], object], seconds: float = 20.0) -> None:
        """Steps until `done()`, and fails the test after `seconds`."""
        deadline = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < deadline, f"not within {seconds} s; failed: {self.failed}"
            self.step()

    def rest(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.step()

    @property
    def warm(self) -> bool:
        return self.status is not None and self.status.warm

    def metric(self, name: str) -> float:
        return 0.0 if self.status is None else self.status.metrics.get(name, 0.0)

    def rows(self) -> list[tuple[str, int, int]]:
        """(session, seq, seq of the clip followed) of the latents of `ToyEngine`, in order of arrival."""
        return [
            (got.session, got.seq, int(got.latents[0, 0, 0, 1]))
            for got in self.latents
            if not got.session.startswith("_")
        ]

    def close(self) -> None:
        if self.encoder is not None:
            self.encoder.close()
        self.clips.close()
        self.results.close()
        self.ctx.destroy(linger=0)


class Process:
    """`python -m module flags…` in the background. Its log is kept for assertions."""

    def __init__(self, module: str, argv: Sequence[str], folder: Path) -> None:
        self._log_path = folder / f"worker-{time.monotonic_ns()}.log"
        self._log_file = self._log_path.open("wb")
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *argv], cwd=ROOT, stderr=self._log_file, env=environment
        )

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(5)
        self._log_file.close()
        if error is not None:
            sys.stderr.write(self.log())

    def log(self) -> str:
        return self._log_path.read_text(encoding="utf-8", errors="replace")

    def terminate(self, seconds: float = 10.0) -> int:
        """The exit status after SIGTERM. The bound is for a busy machine."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)


def run_settings(run_dir: Path, *argv: str) -> Settings:
    return load_settings(["--run-dir", str(run_dir), *argv], env={})


def main() -> None:
    settings = settings_from_command_line()
    with Stage(
        "gpu_worker",
        settings,
        takes="clips",
        gives="latents",
        credit=credit(settings),
        max_pending_per_session=QUEUE_DEPTH,
    ) as stage:
        # the seed setting is free here: it says what a frame costs, in milliseconds
        worker = GpuWorker(settings, stage, ToyEngine(settings, settings.seed / 1000))
        stage.run(worker)
        worker.stop()


if __name__ == "__main__":
    main()
