"""The speed of the pipeline when nothing holds it back: sound is poured in as fast as it is taken.

The gateway lets sound through at real time, so this program stands in for it. It serves the `pcm` hop and the
`results` socket, cuts the sound and confirms clips as the gateway does, and keeps as many clips under way as
a session in full flow has. Every other stage is the run's own process.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from protocol.process.settings import Settings, load_settings
from protocol.wire.clock import FULL_RATE, SAMPLE_RATE, frames_of_clip, pts_of_clip
from protocol.wire.messages import ClipKey, Close, Failed, Frame, Pcm, Samples, Status
from scripts.bench.common.processes import usage
from scripts.bench.common.tools import EVERY_CLIP
from scripts.render.clips import UNDER_WAY
from scripts.render.gateway_sockets import GatewaySockets
from scripts.run.child import die_with_parent
from scripts.run.launch import stage_list
from scripts.run.managed import ROOT, RunError
from scripts.run.poses import convert_pose_folders
from scripts.talk.sound import read_sound

#: Clips before time is taken: they fill the pipeline, and the first of a process are not typical.
FIRST = 8
CHUNK = 320  # samples: 20 ms, as a browser sends it
GREETING = 1.0
PATIENCE = 60.0


@dataclass(frozen=True)
class Poured:
    """Figures of poured sound. Times are seconds for a second of speech."""

    fps: int
    clips: int
    #: Time that passes, with all stages at work at once.
    wall: float
    #: Processor time of the stages.
    processor: float


def pour(wav: Path, seconds: float, flags: Sequence[str]) -> Poured:
    """Start the stages with `flags` (at 24 fps unless they say otherwise) and pour `seconds` of `wav` in.

    Raises:
        RunError: a stage does not start, or gives a clip up.
    """
    flags = [
        *EVERY_CLIP,
        *flags,
        *([] if any(flag.startswith("--fps") for flag in flags) else ["--fps", "24"]),
    ]
    with stages(flags) as stand_in:
        stand_in.wait_warm()
        speech = read_sound(wav)
        clips = max(1, round(seconds * SAMPLE_RATE) // stand_in.clip_samples)
        wanted = stand_in.clip_samples * (FIRST + clips)
        speech = np.tile(speech, -(-wanted // len(speech)))[:wanted]
        begun = usage(stand_in.pids)
        done = stand_in.pour(speech)
        spent = sum(usage(stand_in.pids).spent_since(begun).values())
    clip = stand_in.clip_samples / SAMPLE_RATE
    wall = (done[-1] - done[FIRST - 1]) / (clips * clip)
    every = clip * (FIRST + clips)  # the clips that only fill the stages take processor time too
    return Poured(stand_in.fps, clips, wall, spent / every)


class GatewayStandIn:
    """The gateway's place: its two sockets, and one session."""

    def __init__(self, settings: Settings, processes: list[subprocess.Popen[bytes]], log: Path) -> None:
        self._settings = settings
        self._processes = processes
        self._log = log
        self._sockets = GatewaySockets(settings)
        self._hop, self._results = self._sockets.hop, self._sockets.results
        self._warm: dict[tuple[str, str], Status] = {}
        self._frames: dict[ClipKey, set[int]] = {}
        self._confirmed: set[ClipKey] = set()
        self._done: list[float] = []
        self.fps = settings.fps or FULL_RATE
        self.clip_frames = frames_of_clip(self.fps, settings.frames_a_clip)
        self.clip_samples = pts_of_clip(1, self.fps, self.clip_frames)

    @property
    def pids(self) -> list[int]:
        """The stages' processes."""
        return [process.pid for process in self._processes]

    def close(self) -> None:
        """Close both sockets."""
        self._sockets.close()

    def wait_warm(self, bound: float = 600.0) -> None:
        """Wait until every stage is warm, and a moment more, so that each has found the next one.

        Raises:
            RunError: a stage ended, or was not warm within `bound` seconds.
        """
        deadline = time.monotonic() + bound
        while len(self._warm) < len(self._processes) or not self._hop.workers:
            self._turn()
            if any(process.poll() is not None for process in self._processes):
                raise RunError(f"a stage ended:\n{self._tail()}")
            if time.monotonic() > deadline:
                raise RunError(f"the stages were not warm within {bound:g} s:\n{self._tail()}")
        deadline = time.monotonic() + GREETING
        while time.monotonic() < deadline:
            self._turn()

    def pour(self, speech: Samples) -> list[float]:
        """Pour a session's sound in. Returns the time when each clip's last frame came.

        Raises:
            RunError: a clip was given up, or none came for a long time.
        """
        clips, sent, seq = len(speech) // self.clip_samples, 0, 0
        heard = time.monotonic()
        while len(self._done) < clips:
            while sent < clips and sent - len(self._done) < UNDER_WAY:
                for start in range(sent * self.clip_samples, (sent + 1) * self.clip_samples, CHUNK):
                    end = min(start + CHUNK, (sent + 1) * self.clip_samples)
                    self._hop.dispatch(self._pcm(seq, start, speech[start:end]))
                    seq += 1
                sent += 1
            before = len(self._done)
            self._turn()
            heard = time.monotonic() if len(self._done) > before else heard
            if time.monotonic() - heard > PATIENCE:
                raise RunError(f"no clip came for {PATIENCE:g} s:\n{self._tail()}")
        self._hop.broadcast(Close("bench", 0))
        return self._done

    def _pcm(self, seq: int, start: int, samples: Samples) -> Pcm:
        info = next(status.info for (stage, _), status in self._warm.items() if stage == "gpu_worker")
        names = [info[kind] for kind in ("avatars", "poses")]
        avatar, pose = (str(name[0]) if isinstance(name, list) and name else "" for name in names)
        shape = (SAMPLE_RATE, self.fps, self.clip_frames)
        return Pcm("bench", 0, seq, start, *shape, avatar, pose, False, samples)

    def _turn(self) -> None:
        self._sockets.wait(50)
        self._hop.tick()
        for sender, message in self._results.recv():
            if isinstance(message, Frame):
                self._frame(sender, message)
            elif isinstance(message, Failed) and message.session == "bench":
                raise RunError(f"clip {message.seq} was given up: {message.stage}: {message.reason}")
            elif isinstance(message, Status) and message.warm:
                self._warm[message.stage, message.worker] = message

    def _frame(self, sender: bytes, frame: Frame) -> None:
        clip = (frame.session, frame.epoch, frame.seq)
        there = self._frames.setdefault(clip, set())
        there.add(frame.index)
        if len(there) < frame.count:
            return
        self._results.confirm_clip(sender, *clip)
        if frame.session == "bench" and clip not in self._confirmed:
            self._done.append(time.monotonic())
        self._confirmed.add(clip)

    def _tail(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-10:])


@contextmanager
def stages(flags: Sequence[str]) -> Iterator[GatewayStandIn]:
    """Every stage but the gateway, started with `flags` and gone after the block."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="echomimic-pour-")))
        settings = load_settings([*flags, "--run-dir", str(folder)])
        settings = dataclasses.replace(settings, pose_dir=convert_pose_folders(settings.pose_dir, folder))
        log = folder / "log"
        output = stack.enter_context(log.open("wb"))
        processes: list[subprocess.Popen[bytes]] = []
        stack.callback(_stop, processes)
        stand_in = GatewayStandIn(settings, processes, log)
        stack.callback(stand_in.close)
        for stage in (stage for stage in stage_list(settings) if not stage.optional):
            if stage.name != "gateway":
                started = subprocess.Popen(
                    stage.command,
                    cwd=ROOT,
                    stdout=output,
                    stderr=output,
                    preexec_fn=die_with_parent(os.getpid()),  # noqa: PLW1509 - as the supervisor does
                )
                processes.append(started)
        yield stand_in


def _stop(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
