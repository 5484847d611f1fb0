"""The audio worker as a real process over ipc: PCM in, clips out, several sessions, overload, close."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import zmq

from audio_worker.features import FeatureExtractor
from audio_worker.ring import ClipRing
from audio_worker.sessions import DueClip
from demo.factory.make_whisper import DEFAULT_OUT
from protocol.hop.client import HopClient, Job
from protocol.hop.results import ResultServer
from protocol.hop.server import HopServer
from protocol.process.settings import ROOT
from protocol.wire.messages import Clip, Close, Failed, Pcm, Status
from tests.audio_worker.placeholders import write_config

pytestmark = [pytest.mark.process, pytest.mark.timing, pytest.mark.timeout(60)]


class Around:
    """Stands for the gateway before the worker and the GPU worker behind it."""

    def __init__(self, folder: Path) -> None:
        self.run_dir = tempfile.mkdtemp(prefix="aud-", dir="/tmp")
        self.ctx: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.pcm = HopServer(self.ctx, f"ipc://{self.run_dir}/pcm", sticky=True, dead_after=5.0)
        self.results = ResultServer(self.ctx, f"ipc://{self.run_dir}/results")
        self.clips = HopClient(
            self.ctx, [f"ipc://{self.run_dir}/clips.0"], stage="gpu_worker", worker="0", credit=64
        )
        self.taken: list[Job] = []
        self.failed: list[Failed] = []
        self.status: Status | None = None
        self.warming: list[float] = []  # when Status came from a worker that was not warm yet
        self.working = True
        whisper = DEFAULT_OUT / "whisper_encoder.safetensors"
        config = write_config(folder, audio_model_path=whisper, whisper_window="short")
        command = [sys.executable, "-m", "audio_worker", "--run-dir", self.run_dir, "--config", str(config)]
        # The noise of these tests is no voice, and it is to be heard.
        command += ["--dtype", "float32", "--gpu-devices", "cpu", "--silence", "denoise"]
        self.log = folder / "audio.log"
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(command, cwd=ROOT, stderr=output)

    def speak(
        self, session: str, samples: np.ndarray, pts: int = 0, *, epoch: int = 0, flush: bool = False
    ) -> None:
        self.pcm.dispatch(
            Pcm(session, epoch, 0, pts, 16000, 24, 12, "anna", "calm", flush, samples.astype(np.float32))
        )

    def of(self, session: str) -> list[Clip]:
        return [job.msg for job in self.taken if isinstance(job.msg, Clip) and job.msg.session == session]

    def until(self, done: Callable[[], bool], seconds: float = 40.0) -> None:
        end = time.monotonic() + seconds
        while not done():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, (len(self.taken), self.failed, self.status)
            self.turn()

    def turn(self) -> None:
        time.sleep(0.005)
        self.pcm.tick()
        if self.working:
            self.clips.heartbeat()
            jobs = self.clips.recv()
            for job in jobs:
                self.clips.ack(job)
            self.taken += jobs
        for _, message in self.results.tick():
            if isinstance(message, Status):
                self.status = message
                if not message.warm:
                    self.warming.append(time.monotonic())
            elif isinstance(message, Failed):
                self.failed.append(message)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.clips.close()
        self.pcm.close()
        self.results.close()
        self.ctx.term()
        shutil.rmtree(self.run_dir, ignore_errors=True)
        sys.stderr.write(self.log.read_text())


@pytest.fixture(scope="module")
def around(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Around]:
    around = Around(tmp_path_factory.mktemp("audio"))
    around.until(lambda: around.status is not None and around.status.warm)
    yield around
    around.close()


def test_the_work_loop_goes_on_while_whisper_is_imported(around: Around) -> None:
    """A work loop that stood still for `dead_after` would cost the worker its place."""
    # With kept networks it is warm before a second Status is due.
    gaps = np.diff(around.warming)
    longest = max(gaps, default=0.0)
    print(f"{len(around.warming)} times Status before the worker was warm, {longest:.2f} s apart at most")
    assert longest < 5.0


def test_two_sessions_in_small_chunks(around: Around) -> None:
    sound = np.random.default_rng(0).uniform(-0.3, 0.3, (2, 20000)).astype(np.float32)
    for start in range(0, 20000, 320):
        for name, samples in zip(("anna", "bert"), sound, strict=True):
            around.speak(name, samples[start : start + 320], start, flush=start + 320 >= 20000)
        # A speaker is never clips ahead of the worker: all at once would be overload on a slow machine.
        whole = (start + 320) // 8000
        around.until(lambda whole=whole: len(around.of("anna")) >= whole <= len(around.of("bert")))  # type: ignore[misc]
    around.until(lambda: len(around.of("anna")) == len(around.of("bert")) == 3)

    extractor = FeatureExtractor(str(DEFAULT_OUT), "short", 2, torch.device("cpu"), torch.float32)
    for name, samples in zip(("anna", "bert"), sound, strict=True):
        clips = around.of(name)
        assert [(c.seq, c.pts, c.fps, c.avatar, c.pose) for c in clips] == [
            (k, 8000 * k, 24, "anna", "calm") for k in range(3)
        ]
        ring = ClipRing(24, 12)
        for window, clip in zip(ring.push(samples, 0) + ring.flush(), clips, strict=True):
            heard = DueClip(name, 0, clip.seq, clip.pts, 24, 12, "anna", "calm", window.samples, 0.0)
            wanted = extractor.tokens([heard])[0].astype(float)
            np.testing.assert_allclose(clip.tokens.astype(float), wanted, atol=0.02)


def test_close_goes_on_to_the_gpu_worker(around: Around) -> None:
    around.speak("cleo", np.zeros(8000))
    around.until(lambda: len(around.of("cleo")) == 1)
    around.pcm.broadcast(Close("cleo", 0))
    around.until(lambda: any(job.msg == Close("cleo", 0) for job in around.taken))


def test_bad_sessions_end_alone(around: Around) -> None:
    around.speak("dora", np.zeros(100))
    samples = np.zeros(100, np.float32)
    around.pcm.dispatch(Pcm("dora", 0, 1, 100, 48000, 24, 12, "anna", "calm", False, samples))
    around.speak("emil", np.zeros(8000))
    around.until(lambda: len(around.of("emil")) == 1 and bool(around.failed))
    assert [(f.session, f.fatal) for f in around.failed] == [("dora", True)]
    around.failed.clear()


def test_what_a_busy_gpu_worker_cannot_take_is_given_up(around: Around) -> None:
    around.working = False  # it takes nothing; one hop's credit is 64, so fill that first
    filled = 64 // 4
    for k in range(filled):
        around.speak(f"fill{k}", np.zeros(32000))
    for k in range(4):
        around.speak("fred", np.zeros(8000), 8000 * k)
    around.until(lambda: len([f for f in around.failed if f.session == "fred"]) == 2)
    lost = [(f.seq, f.reason, f.fatal) for f in around.failed if f.session == "fred"]
    assert lost == [(0, "overload", False), (1, "overload", False)]
    around.working = True
    around.until(lambda: [c.seq for c in around.of("fred")] == [2, 3])


def test_status_and_end(around: Around) -> None:
    def figure(name: str) -> float:
        return around.status.metrics.get(name, 0.0) if around.status else 0.0

    around.until(lambda: figure("clips_given_up_total") >= 2)
    assert figure("clip_in_stage_seconds_count") == figure("clips_total") > 0
    assert figure("features_seconds_p50") > 0 and figure("batch_clips_p50") >= 1 and figure("sessions") >= 3
    assert around.status is not None and around.status.info["window"] == "short"
    around.process.terminate()
    assert around.process.wait(10) == 0
