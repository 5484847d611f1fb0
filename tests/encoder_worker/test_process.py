"""The encoder worker as a real process over ipc: frames, acknowledgements, bad latents, coming and going."""

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
import simplejpeg
import zmq

from encoder_worker.jpeg import JpegEncoder
from protocol.hop.results import ResultServer
from protocol.hop.server import Acked, HopServer, WorkerJoined
from protocol.process.settings import ROOT
from protocol.wire.messages import Failed, Frame, Latents, Status
from tests.audio_worker.placeholders import write_config
from tests.encoder_worker.folders import make_kl

pytestmark = [pytest.mark.process, pytest.mark.timing, pytest.mark.timeout(60)]


class Upstream:
    """Stands for the GPU worker and the gateway, and starts encoders."""

    def __init__(self, config: Path) -> None:
        self.config = config
        self.log = config.parent / "encoder.log"
        self.run_dir = tempfile.mkdtemp(prefix="enc-", dir="/tmp")
        self.ctx: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.latents = HopServer(self.ctx, f"ipc://{self.run_dir}/latents.0", sticky=False, dead_after=5.0)
        self.results = ResultServer(self.ctx, f"ipc://{self.run_dir}/results")
        self.processes: list[subprocess.Popen[bytes]] = []
        self.frames: dict[tuple[str, int], dict[int, Frame]] = {}
        self.duplicates = 0
        self.acked: list[tuple[str, int]] = []
        self.failed: list[Failed] = []
        self.status: dict[str, Status] = {}
        self.joined = 0
        self.confirm = True

    def start(self, *flags: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "encoder_worker", "--run-dir", self.run_dir]
        command += ["--config", str(self.config), "--threads", "1", "--encoder-devices", "cpu", *flags]
        with self.log.open("ab") as output:
            process = subprocess.Popen(command, cwd=ROOT, stderr=output)
        self.processes.append(process)
        return process

    def send(self, session: str, seq: int, frames: int = 12, channels: int = 4, nan: bool = False) -> None:
        values = np.random.default_rng(seq).standard_normal((frames, channels, 16, 8)).astype(np.float16)
        if nan:
            values[-1] = np.nan
        self.latents.dispatch(Latents(session, 0, seq, seq * 8000, 24, values))

    def until(self, done: Callable[[], bool], seconds: float = 40.0) -> None:
        end = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < end, (self.acked, self.failed, self.status)
            self.turn()

    def turn(self) -> None:
        time.sleep(0.005)
        for event in self.latents.tick():
            if isinstance(event, Acked):
                self.acked.append((event.msg.session, event.msg.seq))
            self.joined += isinstance(event, WorkerJoined)
        for sender, message in self.results.tick():
            if isinstance(message, Status):
                self.status[message.worker] = message
            elif isinstance(message, Failed):
                self.failed.append(message)
            elif isinstance(message, Frame):
                clip = self.frames.setdefault((message.session, message.seq), {})
                self.duplicates += message.index in clip
                clip[message.index] = message
                if self.confirm and len(clip) == message.count:
                    self.results.confirm_clip(sender, message.session, message.epoch, message.seq)

    def close(self) -> None:
        """Stop everything. The workers' lines stand in a failed test's report."""
        for process in self.processes:
            process.kill()
            process.wait()
        self.latents.close()
        self.results.close()
        self.ctx.term()
        shutil.rmtree(self.run_dir, ignore_errors=True)
        sys.stderr.write(self.log.read_text() if self.log.exists() else "")


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[Upstream]:
    make_kl(tmp_path / "vae")
    up = Upstream(write_config(tmp_path, width=16, height=32))
    yield up
    up.close()


def test_a_run_of_the_worker(upstream: Upstream) -> None:
    worker = upstream.start()
    for seq in range(3):
        upstream.send("anna", seq)
    upstream.until(lambda: len(upstream.acked) == 3)
    for seq in range(3):
        frames = upstream.frames["anna", seq]
        assert [frames[i].pts for i in range(12)] == [(12 * seq + i) * 16000 // 24 for i in range(12)]
        assert {(f.width, f.height, f.count) for f in frames.values()} == {(16, 32, 12)}
        assert simplejpeg.decode_jpeg(frames[0].data).shape == (32, 16, 3)
    assert upstream.duplicates == 0

    # one clip that cannot be decoded is told, and the next one comes
    upstream.send("bert", 0, channels=8)
    upstream.send("bert", 1, nan=True)
    upstream.send("anna", 3, frames=1)
    upstream.until(lambda: len(upstream.acked) == 6)
    assert [(f.session, f.seq, f.fatal) for f in upstream.failed] == [("bert", 0, True), ("bert", 1, False)]
    assert "takes 4 channels" in upstream.failed[0].reason and "not finite" in upstream.failed[1].reason
    assert len(upstream.frames["anna", 3]) == 1

    def figure(name: str) -> float:
        return next(iter(upstream.status.values())).metrics.get(name, 0.0)

    upstream.until(lambda: figure("frames_total") >= 37)
    assert figure("clip_seconds_p50") > 0 and figure("first_frame_seconds_p50") > 0
    assert figure("clip_in_stage_seconds_count") == figure("clip_seconds_count") > 3
    status = next(iter(upstream.status.values()))
    assert status.warm and status.info["vae"] == "AutoencoderKL"
    assert status.info["jpeg"] == JpegEncoder().library  # the system's libjpeg-turbo where it loads

    # a clip that the gateway has not confirmed is still the hop's when the worker stops
    upstream.confirm = False
    upstream.send("anna", 4)
    upstream.until(lambda: len(upstream.frames.get(("anna", 4), {})) == 12)
    worker.terminate()
    upstream.until(lambda: upstream.latents.workers == 0)
    assert worker.wait(10) == 0
    assert upstream.latents.pending == 1

    upstream.confirm = True
    upstream.start("--passthrough")
    upstream.until(lambda: upstream.acked[-1] == ("anna", 4))
    assert upstream.latents.pending == upstream.latents.in_flight == 0


def test_one_joins_another_leaves_and_nothing_is_lost(upstream: Upstream) -> None:
    upstream.confirm = False  # so that the first keeps its two clips in hand
    first = upstream.start("--passthrough")
    for seq in range(40):
        upstream.send("anna", seq)
    upstream.until(lambda: len(upstream.frames) == 2)
    upstream.start("--passthrough", "--worker-index", "1")
    upstream.until(lambda: upstream.joined == 2)
    upstream.until(lambda: len(upstream.frames) == 4, seconds=1.0)
    first.terminate()
    assert first.wait(10) == 0
    upstream.confirm = True
    upstream.until(lambda: len(upstream.acked) == 40)
    assert sorted(upstream.acked) == [("anna", seq) for seq in range(40)]
    assert all(len(frames) == 12 for frames in upstream.frames.values())
    assert upstream.duplicates >= 24  # the first one's clips came again, and were recognised


def test_settings_that_cannot_work_end_it_with_status_2(upstream: Upstream) -> None:
    (upstream.config.parent / "vae" / "config.json").write_text('{"_class_name": "VQModel"}')
    worker = upstream.start()
    assert worker.wait(40) == 2
    assert "_class_name: 'VQModel' is not one of AutoencoderKL" in upstream.log.read_text()
