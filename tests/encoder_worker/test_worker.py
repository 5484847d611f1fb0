"""The encoder worker's bookkeeping, without sockets: repeated jobs, resets, errors inside."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from encoder_worker.coders import ClipCoder
from encoder_worker.kept_clips import KeptClips, clip_digest
from encoder_worker.kept_pictures import KeptPictures
from encoder_worker.video import ENCODERS, CodedPicture
from encoder_worker.worker import EncoderWorker
from protocol.hop.client import Job, JobOrigin
from protocol.process.compute import Output
from protocol.process.metrics import Metrics
from protocol.process.settings import load_settings
from protocol.process.stage import Stage
from protocol.wire.messages import Frame, Latents
from protocol.wire.video import H264


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


class LevelDecoder:
    """Decodes each latent to a picture of 8×8 of one level, that of its first value."""

    def __init__(self, *, eight_bit: bool = True) -> None:
        self.is_eight_bit = eight_bit

    def decode(self, latents: Any) -> Iterator[Any]:
        for latent in latents:
            yield np.full((1, 8, 8, 3), latent.flat[0], np.uint8)


def levels(seq: int, *values: int, session: str = "anna", **others: Any) -> Job:
    """A clip whose pictures have these levels."""
    latents = np.tile(np.array(values, np.float16)[:, None, None, None], (1, 4, 1, 1))
    return Job(Latents(session, 0, seq, seq * 8000, 24, latents, **others), JobOrigin(0, 0, 1000 + seq))


@pytest.fixture
def shown(worker: EncoderWorker, stage: FakeStage) -> Callable[[Job], list[int]]:
    """Has a clip made and returns the level of each of its pictures."""
    worker._plain = None
    worker._decoder = cast("Any", LevelDecoder())

    def make(job: Job) -> list[int]:
        before = len(stage.sent)
        worker.on_job(job)
        run(worker, stage)
        assert not stage.failed
        pictures = [Image.open(io.BytesIO(frame.data)) for frame in stage.sent[before:]]
        return [cast("tuple[int, int, int]", picture.getpixel((0, 0)))[0] for picture in pictures]

    return make


def test_eight_bits_hold_still_pixels_from_clip_to_clip(shown: Callable[[Job], list[int]]) -> None:
    assert shown(levels(0, 100, 101)) == [100, 100]
    assert shown(levels(1, 101, 99, 104)) == [100, 100, 104]
    assert shown(levels(3, 105)) == [105]


def test_other_decoders_pictures_pass(worker: EncoderWorker, shown: Callable[[Job], list[int]]) -> None:
    worker._decoder = cast("Any", LevelDecoder(eight_bit=False))
    assert shown(levels(0, 100, 101)) == [100, 101]
    assert shown(levels(1, 100)) == [100]


def test_kept_pictures_do_not_depend_on_what_a_session_was_shown(shown: Callable[[Job], list[int]]) -> None:
    assert shown(levels(0, 100)) == [100]
    assert shown(levels(1, 101, silent=True)) == [101]
    assert shown(levels(2, 102, silent=True)) == [101]
    assert shown(levels(3, 102)) == [101]
    # They are kept, and another session gets the same.
    assert shown(levels(7, 101, session="bert", silent=True)) == [101]
    assert shown(levels(8, 102, session="bert", silent=True)) == [101]


def test_a_shared_clip_has_nothing_of_an_own_avatar(shown: Callable[[Job], list[int]]) -> None:
    assert shown(levels(0, 100, silent=True, private=True)) == [100]
    assert shown(levels(1, 101, silent=True)) == [101]
    assert shown(levels(2, 102, silent=True, private=True)) == [102]


def test_pictures_of_sessions_that_end_are_dropped(
    worker: EncoderWorker, shown: Callable[[Job], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown(levels(0, 100))
    assert len(worker._still) == 1
    later = time.monotonic() + 60
    monkeypatch.setattr(worker._still, "_clock", lambda: later)
    worker.on_tick()
    assert len(worker._still) == 0


def test_a_clip_of_video_stays_as_decoded(
    worker: EncoderWorker, shown: Callable[[Job], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    worker._coders.video = ENCODERS["x264"]
    monkeypatch.setattr(
        ClipCoder,
        "_coded",
        lambda coder, video, pictures: [CodedPicture(j) for j in coder._coders.jpeg(pictures)],
    )
    assert shown(levels(0, 100, 101, codec=H264)) == [100, 101]
    assert shown(levels(1, 100, codec=H264)) == [100]
    assert shown(levels(2, 101, 100)) == [101, 101]
