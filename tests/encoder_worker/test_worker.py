"""The encoder worker's bookkeeping, without sockets: repeated jobs, resets, errors inside."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from encoder_worker.kept_clips import KeptClips, clip_digest
from encoder_worker.kept_pictures import KeptPictures
from encoder_worker.worker import EncoderWorker
from protocol.hop.client import Job, JobOrigin
from protocol.process.compute import Output
from protocol.process.metrics import Metrics
from protocol.process.settings import load_settings
from protocol.process.stage import Stage
from protocol.wire.messages import Frame, Latents


class FakeStage:
    """Records a worker's calls to its stage. It is its own hop, results and compute."""

    def __init__(self) -> None:
        self.jobs = self.results = self.compute = self
        self.metrics = Metrics()
        self.warm = True
        self.acked: list[Job] = []
        self.sent: list[Frame] = []
        self.forgotten: list[tuple[str, int, int]] = []
        self.tasks: list[tuple[Job, Any, tuple[Any, ...]]] = []
        self.failed: list[tuple[int, str, bool]] = []

    def ack(self, job: Job) -> None:
        self.acked.append(job)

    def send(self, frame: Frame) -> None:
        self.sent.append(frame)

    def forget(self, *key: Any) -> None:
        self.forgotten.append(cast("tuple[str, int, int]", key))

    def start_task(self, key: Job, task: Any, *args: Any) -> None:
        self.tasks.append((key, task, args))

    def fail(self, msg: Latents, reason: str, *, fatal: bool = False) -> None:
        self.failed.append((msg.seq, reason, fatal))

    @property
    def waiting(self) -> int:
        return len(self.tasks)

    def outputs(self) -> Iterator[Output]:
        """Run the submitted tasks, as the compute thread would."""
        tasks, self.tasks = self.tasks, []
        for key, task, args in tasks:
            try:
                for part in task(*args):
                    yield Output(key, part, done=False)
                yield Output(key)
            except Exception as error:
                yield Output(key, error=error)


@pytest.fixture
def stage() -> FakeStage:
    return FakeStage()


@pytest.fixture
def worker(stage: FakeStage) -> EncoderWorker:
    worker = EncoderWorker(load_settings([], {}), cast("Stage", stage))
    worker._plain = np.full((1, 8, 8, 3), 128, np.uint8)
    return worker


def job(seq: int, number: int, upstream: int = 0) -> Job:
    latents = Latents("anna", 0, seq, seq * 8000, 24, np.zeros((2, 4, 1, 1), np.float16))
    return Job(latents, JobOrigin(upstream, 0, number))


def silent(seq: int) -> Job:
    spoken = job(seq, seq + 1)
    assert isinstance(spoken.msg, Latents)
    return replace(spoken, msg=replace(spoken.msg, silent=True))


def run(worker: EncoderWorker, stage: FakeStage) -> None:
    for output in stage.outputs():
        worker.on_output(output)


def test_a_clip_is_acknowledged_when_the_gateway_has_it(worker: EncoderWorker, stage: FakeStage) -> None:
    worker.on_job(job(0, 1))
    run(worker, stage)
    assert [frame.index for frame in stage.sent] == [0, 1] and stage.acked == []
    assert all(f"pts={frame.pts}".encode() in frame.data for frame in stage.sent)
    worker.on_confirmed(("anna", 0, 0))
    assert [j.origin.number for j in stage.acked] == [1]
    worker.on_confirmed(("anna", 0, 0))
    assert len(stage.acked) == 1


def test_a_job_that_comes_again_is_made_once_and_acknowledged_twice(
    worker: EncoderWorker, stage: FakeStage
) -> None:
    worker.on_job(job(0, 1))
    worker.on_job(job(0, 7, upstream=1))
    run(worker, stage)
    assert len(stage.sent) == 2
    worker.on_confirmed(("anna", 0, 0))
    assert [j.origin.number for j in stage.acked] == [1, 7]


def test_what_an_upstream_took_back_is_not_made(worker: EncoderWorker, stage: FakeStage) -> None:
    worker.on_job(job(0, 1, upstream=0))
    worker.on_job(job(1, 2, upstream=1))
    worker.on_reset(0)
    run(worker, stage)
    assert {frame.seq for frame in stage.sent} == {1}
    assert stage.forgotten == [("anna", 0, 0)]


def test_an_error_inside_fails_the_clip_and_not_the_worker(worker: EncoderWorker, stage: FakeStage) -> None:
    worker._plain = None
    worker._decoder = cast("Any", object())
    worker.on_job(job(0, 1))
    run(worker, stage)
    assert len(stage.failed) == 1 and "AttributeError" in stage.failed[0][1] and not stage.failed[0][2]
    assert [j.origin.number for j in stage.acked] == [1]
    worker._plain = np.full((1, 8, 8, 3), 128, np.uint8)
    worker.on_job(job(1, 2))
    run(worker, stage)
    assert {frame.seq for frame in stage.sent} == {1}


def test_a_silent_clip_that_is_kept_is_sent_at_once_but_not_past_a_clip_before_it(
    worker: EncoderWorker, stage: FakeStage
) -> None:
    worker.on_job(silent(0))
    assert stage.sent == []
    run(worker, stage)
    worker.on_job(silent(1))
    assert [frame.seq for frame in stage.sent] == [0, 0, 1, 1] and not stage.tasks
    assert [frame.data[-100:] for frame in stage.sent[:2]] == [frame.data[-100:] for frame in stage.sent[2:]]
    worker.on_job(job(2, 9))
    worker.on_job(silent(3))
    assert len(stage.sent) == 4
    run(worker, stage)
    assert [frame.seq for frame in stage.sent[4:]] == [2, 2, 3, 3]


def test_a_silent_clip_is_digested_and_decoded_once(
    worker: EncoderWorker, stage: FakeStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    digested: list[bytes] = []

    def count(latents: Any) -> bytes:
        digested.append(clip_digest(latents))
        return digested[-1]

    monkeypatch.setattr("encoder_worker.worker.clip_digest", count)
    worker.on_job(silent(0))
    run(worker, stage)
    assert len(digested) == 1
    worker.on_job(silent(1))
    assert len(digested) == 2 and stage.metrics.snapshot()["clips_decoded_total"] == 1


def test_pictures_on_disk_are_read_by_another_encoder_but_those_of_an_own_avatar_are_not_kept(
    worker: EncoderWorker, stage: FakeStage, tmp_path: Path
) -> None:
    worker._folder = KeptPictures(tmp_path, "model")
    own = silent(0)
    assert isinstance(own.msg, Latents)
    worker.on_job(replace(own, msg=replace(own.msg, private=True)))
    run(worker, stage)
    assert not list(tmp_path.iterdir())
    worker._kept = KeptClips()  # as after a start
    for number in (1, 2):
        worker.on_job(silent(number))
        run(worker, stage)
        worker._kept = KeptClips()
    assert worker._folder.hits == 1 and len(list(tmp_path.iterdir())) == 1
    assert stage.metrics.snapshot()["clips_decoded_total"] == 2
    assert [frame.seq for frame in stage.sent] == [0, 0, 1, 1, 2, 2]
