"""Thinned clips that wait are made together, in order, and none suffers for another."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from gpu_worker.engine_api import ClipOutcome
from gpu_worker.prefetch import Prefetch
from gpu_worker.rate.governor import SERVED_RATES
from gpu_worker.rate.joining import follows, join_clips, most_joined, served_lengths, split_latents
from gpu_worker.rate.served import ServedRate
from gpu_worker.rate.service import REMEMBERED, ServiceLog
from gpu_worker.rate.trial import RateChoice
from protocol.process.compute import Compute
from protocol.process.metrics import Metrics
from protocol.process.settings import load_settings
from protocol.wire.clock import pts_of_clip
from protocol.wire.messages import Array16, Clip
from tests.gpu_worker.machine_model import Machine
from tests.gpu_worker.worker_process import ToyEngine, clip


def short(seq: int, **facts: object) -> Clip:
    """A clip of 4 frames at 24 fps."""
    made = clip("a", seq, frames=4, **facts)  # type: ignore[arg-type]
    return replace(made, pts=pts_of_clip(seq, 24, 4))


@pytest.mark.parametrize(
    ("frames", "most_fps", "clips"),
    [
        (3, 24, 1),
        (3, 12, 3),
        (4, 24, 1),
        (4, 12, 2),
        (4, 6, 3),
        (4, 4, 3),
        (6, 12, 2),
        (6, 4, 2),
        (12, 24, 1),
        (12, 12, 1),
        (12, 4, 1),
    ],
)
def test_no_more_than_a_whole_clip_and_half_a_second(frames: int, most_fps: int, clips: int) -> None:
    assert most_joined(frames, 24, most_fps) == clips


def test_only_clips_that_go_on_and_are_made_alike_are_joined() -> None:
    first = short(1)
    assert follows(first, short(2))
    for other in (
        short(3), short(2, silent=True), short(2, epoch=1), short(2, pose="calm"), clip("b", 2, frames=4),
        replace(short(2), codec="h264"), clip("a", 2, frames=3),
    ):  # fmt: skip
        assert not follows(first, other)


def test_frames_come_apart_as_they_were_joined() -> None:
    parts = [replace(short(seq), tokens=np.full((2, 2, 384), seq, np.float16)) for seq in (5, 6, 7)]
    joined = join_clips(parts)
    assert joined.seq == 5 and joined.pts == parts[0].pts
    latents = joined.tokens[:, :, None, :4]
    assert [set(rows.flat) for rows in split_latents(latents, parts)] == [{5}, {6}, {7}]
    assert join_clips(parts[:1]) is parts[0]


class GatedEngine(ToyEngine):
    """Waits before each clip until the test lets it go on."""

    def __init__(self) -> None:
        super().__init__(load_settings([], env={}))
        self.gate = threading.Semaphore(0)

    def denoise(self, inputs: Clip) -> Array16:
        assert self.gate.acquire(timeout=10)
        return super().denoise(inputs)


@dataclass
class Bench:
    """A prefetch between a queue of clips and a gated engine, at a rate of 12 fps."""

    engine: GatedEngine = field(default_factory=GatedEngine)
    metrics: Metrics = field(default_factory=Metrics)
    outcomes: list[ClipOutcome] = field(default_factory=list)

    def __post_init__(self) -> None:
        settings = load_settings([], env={})
        self.rate = ServedRate(settings, lambda _: True, lambda: (False,))
        self.rate.serve(RateChoice(12, 0.1, "", clip_frames=4), "cpu")
        self.compute = Compute(lambda: None)
        self.prefetch = Prefetch(
            self.engine, self.compute, lambda: None, self.metrics, fit=self.rate.fit,
            may_join=self.rate.may_join,
        )  # fmt: skip

    def until(self, done: Callable[[], object]) -> None:
        deadline = time.monotonic() + 10
        while not done():
            assert time.monotonic() < deadline
            self.outcomes += self.prefetch.advance()
            for output in self.compute.take():
                self.outcomes += self.prefetch.outcomes_of(output)
            time.sleep(0.002)

    def make(self, clips: list[Clip]) -> list[ClipOutcome]:
        """The outcomes of clips of which all but two wait while the first is denoised."""
        for one in clips[:2]:
            self.prefetch.enqueue(one)
            self.prefetch.advance()
        self.until(lambda: self.compute.waiting == 2)
        for one in clips[2:]:
            self.prefetch.enqueue(one)
        for _ in clips:
            self.engine.gate.release()
        self.until(lambda: len(self.outcomes) == len(clips))
        return self.outcomes


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    for _ in range(10):
        made.engine.gate.release()
    made.prefetch.stop(1)
    made.compute.stop(1)


def test_clips_that_wait_are_made_together(bench: Bench) -> None:
    made = bench.make([short(seq) for seq in range(6)])
    # 0 is denoised and 1 prepared when the others come: 2 and 3, and 4 and 5, are joined
    assert [outcome.clip.seq for outcome in made] == list(range(6))
    assert all(outcome.clip.fps == 12 and len(outcome.clip.tokens) == 2 for outcome in made)
    assert [outcome.clip.pts for outcome in made] == [pts_of_clip(seq, 24, 4) for seq in range(6)]
    rows = [outcome.latents for outcome in made if outcome.latents is not None]
    assert [len(latents) for latents in rows] == [2] * 6
    assert [float(latents[0, 0, 0, 0]) for latents in rows] == [0, 1, 2, 2, 4, 4]
    assert [float(latents[0, 0, 0, 1]) for latents in rows] == [-1, 0, 1, 1, 3, 3]  # the one they follow


def test_silent_clips_and_others_sessions_keep_their_calls(bench: Bench) -> None:
    others = replace(short(9), session="b")
    made = bench.make([short(0), short(1), short(2), short(3, silent=True), short(4), others])
    calls = {
        outcome.clip.seq: float(outcome.latents[0, 0, 0, 0])
        for outcome in made
        if outcome.latents is not None
    }
    assert calls == {seq: seq for seq in (0, 1, 2, 3, 4, 9)}


@pytest.mark.parametrize("failure", [1, 2])  # of `prepare`, of `denoise`
def test_a_clip_that_cannot_be_made_takes_no_other_with_it(bench: Bench, failure: int) -> None:
    made = bench.make([short(0), short(1), short(2, failure=failure), short(3), short(4), short(5)])
    assert sorted(outcome.clip.seq for outcome in made if outcome.error is None) == [0, 1, 3, 4, 5]
    assert [outcome.clip.seq for outcome in made if outcome.error is not None] == [2]


def test_the_log_counts_the_time_of_joined_clips_once() -> None:
    log = ServiceLog()
    keys = [("a", 0, seq) for seq in range(5)]
    for seq, key in enumerate(keys):
        log.arrived(key, 4, 24, seq / 6)
        if seq < 3:
            log.begun([key], 4)
            log.done(key, seq / 6 + 0.1)
    log.begun(keys[3:], 4)
    log.done(keys[3], 0.95)
    assert len(log.times) == 1
    log.done(keys[4], 1.0)
    assert (log.times[-1].frames, round(log.times[-1].seconds, 2)) == (4, 0.33)


def cost(frames: int) -> float:
    """Seconds for frames made together: OpenVINO's two networks with bfloat16, the decoder and Whisper."""
    return (0.042 if frames == 4 else 0.0125 + 0.0102 * frames) + 0.006 * frames + 0.010


@pytest.mark.parametrize("joins", [True, False])
def test_a_machine_at_a_third_of_its_speed_holds_half_the_frames(joins: bool) -> None:
    machine = Machine(cost, speed=lambda now: 0.33 if 8 <= now < 24 else 1.0, frames=4, joins=joins)
    machine.governor.fixed_share = 0.4
    machine.run(60)
    slow = [delay for arrived, delay, _ in machine.clips if 8 < arrived < 24]
    assert max(machine.calls) == (2 if joins else 1)
    # without joining, clips are late again at 12 fps, so the rate falls to 8
    assert {fps for _, fps in machine.changes} == ({12, 24} if joins else {8, 12, 24})
    assert max(slow) < 1.0 or not joins
    assert machine.rate_at(60) == 24 and set(machine.calls[-100:]) == {1}  # short ones again


@pytest.mark.parametrize(
    ("frames", "lengths"), [(3, [1, 2, 3]), (4, [1, 2, 3, 4]), (6, [1, 2, 3, 4, 6]), (12, [2, 3, 4, 6, 12])]
)
def test_the_lengths_that_service_makes(frames: int, lengths: list[int]) -> None:
    assert served_lengths(frames, 24, SERVED_RATES) == lengths


def test_sessions_that_are_over_are_forgotten() -> None:
    """Also where nobody asks for the rate, as with --fps."""
    log = ServiceLog()
    for number in range(1000):
        key = (f"session {number}", 0, 0)
        log.arrived(key, 12, 24, float(number))
        log.done(key, number + 0.1)
    assert len(log._streams) <= REMEMBERED + 1
