"""The rate in service in a real worker process: it falls with the machine, says so, and comes back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol.process.settings import flags_of
from protocol.wire.messages import Latents
from tests.gpu_worker.worker_process import Around, Process, clip, run_settings

pytestmark = [pytest.mark.process, pytest.mark.timing, pytest.mark.long]


@pytest.fixture
def around(tmp_path: Path) -> Iterator[Around]:
    # 20 ms a frame: 0.24 s a clip
    settings = run_settings(tmp_path / "run", "--seed", "20")
    neighbours = Around(settings)
    with Process("tests.gpu_worker.worker_process", flags_of(settings), tmp_path):
        neighbours.start_encoder()
        neighbours.until(lambda: neighbours.joined and neighbours.warm)
        yield neighbours
    neighbours.close()


def speak(around: Around, first: int, count: int, slow: float = 0.0) -> list[Latents]:
    """Gives the worker a clip each half second. Each takes `slow` seconds a frame more."""
    begin, before = time.monotonic(), len(around.latents)
    for number in range(count):
        around.clips.dispatch(clip("a", first + number, seconds=slow))
        around.until(lambda n=number: time.monotonic() >= begin + 0.5 * (n + 1))  # type: ignore[misc]
    return [latents for latents in around.latents[before:] if latents.session == "a"]


def fact(around: Around, name: str) -> object:
    assert around.status is not None
    return around.status.info[name]


def test_the_rate_falls_with_the_machine_and_comes_back(around: Around) -> None:
    assert (fact(around, "fps"), fact(around, "full_fps"), fact(around, "notice")) == (24, 24, "")
    made = speak(around, 0, 8)
    assert {len(latents.latents) for latents in made} == {12} and {latents.fps for latents in made} == {24}
    made = speak(around, 8, 10, slow=0.35)
    assert fact(around, "notice") == f"This machine is busy: {fact(around, 'fps')} frames a second are shown."
    assert len(made[-1].latents) < 12 and made[-1].fps == fact(around, "fps")
    assert all(len(latents.latents) * 24 == 12 * latents.fps for latents in made)
    assert not around.failed  # each clip is made
    made = speak(around, 18, 14)
    assert len(made[-1].latents) == 12
    assert (fact(around, "fps"), fact(around, "notice")) == (24, "")
    assert [latents.seq for latents in around.latents if latents.session == "a"] == list(range(32))
    assert around.metric("clip_cost_seconds") > 0


def test_the_worker_counts_the_sessions_that_it_serves(around: Around) -> None:
    """A clip of 4 frames takes 0.08 s and a little more, so 4 sessions fit. Of 12 only one would."""
    around.until(lambda: around.status and 2 <= int(str(around.status.info["sessions"])) <= 5, 15)
