"""The worker's use of pauses: caches are warmed, and a frame rate that fell is tried again. No process."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gpu_worker import worker as worker_module
from gpu_worker.engine_api import DeviceLost
from gpu_worker.pauses import (
    RETRY_RATE_AFTER,
    RETRY_RATE_AGAIN,
    TIME_LOWEST_AFTER,
    TIME_LOWEST_AT_REST,
    WARM_CACHES_AFTER,
    PauseTask,
)
from gpu_worker.rate.runner import TrialRunner
from gpu_worker.rate.trial import RateChoice
from gpu_worker.worker import GpuWorker
from protocol.hop.client import Job, JobOrigin
from protocol.process.compute import Output
from protocol.process.metrics import Metrics
from protocol.process.stage import Stage
from tests.gpu_worker.worker_process import ToyEngine, clip, run_settings

SLOW = RateChoice(12, 0.4, "this machine holds 12 frames per second")
FAST = RateChoice(24, 0.3, "")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class RecordedCompute:
    """Runs nothing by itself: `finish` runs the task that was started last."""

    def __init__(self) -> None:
        self.started: list[tuple[Hashable, Callable[[], Any]]] = []
        self.waiting = 0

    def start_task(self, key: Hashable, task: Callable[[], Any]) -> None:
        self.started.append((key, task))

    def busy_for(self) -> float:
        return 0.0

    def finish(self) -> Output:
        key, task = self.started[-1]
        try:
            return Output(key, task())
        except Exception as error:
            return Output(key, error=error)


class CachingEngine(ToyEngine):
    """Has two pieces of work for pauses."""

    pieces = 2

    def work_in_pause(self) -> bool:
        self.pieces -= 1
        return self.pieces > 0


class Served:
    """A worker whose stage, clock and trials the test plays."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, *choices: RateChoice) -> None:
        self.clock, self.compute = Clock(), RecordedCompute()
        monkeypatch.setattr(worker_module, "time", SimpleNamespace(monotonic=self.clock))
        left = list(choices)
        monkeypatch.setattr(TrialRunner, "run", lambda _, favour=False: left.pop(0))
        self.settings = run_settings(folder)
        self.engine = CachingEngine(self.settings)
        stage = SimpleNamespace(
            compute=self.compute,
            wake=lambda: None,
            metrics=Metrics(),
            warm=True,
            jobs=SimpleNamespace(ack=lambda job: None),
        )
        self.worker = GpuWorker(self.settings, cast(Stage, stage), self.engine)
        self.worker.warm_up()
        self.worker._lowest_timed = True  # each test has its own task

    def quiet_for(self, seconds: float) -> list[Hashable]:
        """The tasks started when the clock has gone on by so much."""
        before = len(self.compute.started)
        self.clock.now += seconds
        self.worker.on_tick()
        return [key for key, _ in self.compute.started[before:]]

    def finish(self) -> None:
        self.worker.on_output(self.compute.finish())


def test_caches_are_warmed_piece_by_piece_until_none_is_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    served = Served(monkeypatch, tmp_path, FAST)
    assert served.quiet_for(WARM_CACHES_AFTER - 0.1) == []
    assert served.quiet_for(0.2) == [PauseTask.WARM_CACHES]
    assert served.quiet_for(0.1) == []  # one task at a time
    served.finish()
    assert served.quiet_for(0.1) == [PauseTask.WARM_CACHES]
    served.finish()
    assert served.quiet_for(1000.0) == []
    assert served.engine.pieces == 0


def test_the_lowest_rate_is_not_timed_between_the_turns_of_a_conversation(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """While a session rests, its silent clips come from memory, and its next word may come at any time."""
    served = Served(monkeypatch, tmp_path, FAST)
    monkeypatch.setattr(worker_module.GpuWorker, "_conclude", lambda *_: None)
    served.worker._caches_cold = served.worker._lowest_timed = False
    served.engine.denoise(clip("anna", 0, silent=True))
    for seq in range(1, round(TIME_LOWEST_AT_REST / 0.5)):
        silent = clip("anna", seq, silent=True)
        served.worker.on_job(Job(silent, JobOrigin(0, 0, seq)))
        assert served.quiet_for(0.5) == [], seq
    assert served.quiet_for(0.6) == [PauseTask.TIME_LOWEST]


def test_an_error_ends_the_warming_and_is_logged(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    served = Served(monkeypatch, tmp_path, FAST)
    monkeypatch.setattr(served.engine, "work_in_pause", lambda: 1 // 0)
    assert served.quiet_for(WARM_CACHES_AFTER + 0.1) == [PauseTask.WARM_CACHES]
    served.finish()
    assert "warming the caches failed; sessions are served without it" in caplog.text
    assert served.quiet_for(1000.0) == []


def test_a_rate_that_fell_is_tried_again_and_only_rises(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    slower = RateChoice(8, 0.9, "this machine holds 8 frames per second")
    served = Served(monkeypatch, tmp_path, SLOW, slower, FAST)
    served.worker._caches_cold = False
    assert served.worker.info()["fps"] == 12
    assert served.quiet_for(RETRY_RATE_AFTER[0] - 0.1) == []
    assert served.quiet_for(0.2) == [PauseTask.RETRY_RATE]
    served.finish()
    assert served.worker.info()["fps"] == 12
    assert served.quiet_for(RETRY_RATE_AFTER[1] - RETRY_RATE_AFTER[0] - 0.2) == []
    assert served.quiet_for(0.2) == [PauseTask.RETRY_RATE]
    served.finish()
    assert (served.worker.info()["fps"], served.worker.info()["notice"]) == (24, "")
    assert served.quiet_for(1000.0) == []


def test_clips_are_short_again_when_the_machine_is_quiet(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    favoured: list[tuple[int, int]] = []
    monkeypatch.setattr(CachingEngine, "favour", lambda self, fps: favoured.append((fps, self.clip_frames)))
    long, short = FAST, replace(FAST, clip_frames=4)
    served = Served(monkeypatch, tmp_path, long, long, long, long, short)
    served.engine.clip_lengths = (4, 6, 12)
    served.worker._caches_cold = False
    tried = []
    for passed in range(1, 2001):  # busy until then: the waits become longer
        if served.quiet_for(1.0) == [PauseTask.RETRY_RATE]:
            tried.append(passed)
            served.finish()
    first, second = (int(after) + 1 for after in RETRY_RATE_AFTER)
    third = second + int(RETRY_RATE_AGAIN) + 1
    assert tried == [first, second, third, third + 2 * int(RETRY_RATE_AGAIN) + 1]
    assert served.worker.info()["clip_frames"] == 4
    served.finish()
    assert favoured == [(24, 4)]
    assert served.quiet_for(10_000.0) == []


def test_the_highest_rate_is_not_tried_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    served = Served(monkeypatch, tmp_path, FAST)
    served.worker._caches_cold = False
    assert served.quiet_for(1000.0) == []


def test_finer_pictures_are_told_and_tried_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(CachingEngine, "info", lambda _: {"width": 256, "height": 192})
    served = Served(monkeypatch, tmp_path, FAST, replace(FAST, fine=True))
    served.engine.heads = (True, False)
    served.worker._caches_cold = False
    assert (served.worker.info()["width"], served.worker.info()["height"]) == (256, 192)
    assert served.quiet_for(RETRY_RATE_AFTER[0] + 0.1) == [PauseTask.RETRY_RATE]
    served.finish()
    assert (served.worker.info()["width"], served.worker.info()["height"]) == (512, 384)
    assert served.quiet_for(1000.0) == []


def test_every_rate_is_made_ready_at_the_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ready: list[int] = []
    monkeypatch.setattr(CachingEngine, "make_ready_for", lambda _, fps: ready.append(fps))
    Served(monkeypatch, tmp_path, FAST)
    assert ready == [24, 12, 8]


def test_the_lowest_rate_is_timed_once_and_counts_the_sessions(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    served = Served(monkeypatch, tmp_path, FAST)
    served.worker._caches_cold = served.worker._lowest_timed = False
    timed = [None, RateChoice(8, 0.1, "")]
    monkeypatch.setattr(TrialRunner, "time_rate", lambda _, fps: timed.pop(0))
    assert served.quiet_for(1.0) == [] and served.worker.info()["sessions"] == 4  # 0.3 s for 12 frames
    assert served.quiet_for(TIME_LOWEST_AFTER) == [PauseTask.TIME_LOWEST]
    served.finish()  # a clip came
    assert served.quiet_for(1.0) == [PauseTask.TIME_LOWEST]
    served.finish()
    assert served.quiet_for(1.0) == [] and served.worker.info()["sessions"] == 4
    assert served.quiet_for(1000.0) == []


def test_a_clip_aborts_a_trial_in_a_pause(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    aborted: list[bool] = []
    monkeypatch.setattr(TrialRunner, "abort", lambda _: aborted.append(True))
    served = Served(monkeypatch, tmp_path, SLOW)
    served.worker._caches_cold = False
    assert served.quiet_for(RETRY_RATE_AFTER[0] + 0.1) == [PauseTask.RETRY_RATE]
    assert aborted == []
    served.worker.on_job(Job(clip("a", 0), JobOrigin(0, 0, 0)))
    assert aborted == [True]


def test_a_clip_aborts_nothing_while_no_trial_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    aborted: list[bool] = []
    monkeypatch.setattr(TrialRunner, "abort", lambda _: aborted.append(True))
    served = Served(monkeypatch, tmp_path, FAST)
    served.worker.on_job(Job(clip("a", 0), JobOrigin(0, 0, 0)))
    assert aborted == []


def test_a_device_that_is_lost_between_clips_ends_the_worker(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As when a member of a team ends: no clip has to come for it to be noticed."""
    served = Served(monkeypatch, tmp_path, FAST)
    served.worker.on_tick()

    def lost() -> None:
        raise DeviceLost("a member is gone")

    monkeypatch.setattr(served.engine, "check", lost)
    with pytest.raises(DeviceLost, match="a member is gone"):
        served.worker.on_tick()
