"""Growth by events: what a look sees, and the events of a worker and of a gateway."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace

import numpy as np
import pytest

from protocol.process.settings import load_settings
from scripts.torture.growth.command import GATEWAY, growth_of, report
from scripts.torture.growth.gateway import gateway_process, many_sessions
from scripts.torture.growth.memory import MemoryLook, look
from scripts.torture.growth.workers import encoder_events

LEVEL = [MemoryLook(number, 100.0, 50.0, 5.0, 200.0, 1.0) for number in range(0, 2000, 50)]


def test_a_look_sees_memory_in_use() -> None:
    before = look(0)
    if before.in_use == 0:
        pytest.skip("another C library")
    held = [np.ones(125_000) for _ in range(20)]
    after = look(1)
    assert after.in_use - before.in_use == pytest.approx(20, abs=1)
    assert after.resident > 0  # it need not rise: this process may have freed memory to give
    del held
    assert look(2).in_use - before.in_use < 1


def test_a_leak_is_told_from_a_cache(capsys: pytest.CaptureFixture[str]) -> None:
    assert report("audio_worker", LEVEL, 1.0)
    leak = [replace(one, in_use=50 + one.events / 1000) for one in LEVEL]
    assert growth_of(leak, "in_use").middle == pytest.approx(1.0)
    assert not report("audio_worker", leak, 1.0)
    cache = [replace(one, kept=one.in_use - 49.0) for one in leak]
    assert report("audio_worker", cache, 1.0)
    lost = [replace(one, resident=100 + one.events / 50) for one in LEVEL]
    assert not report(GATEWAY, lost, 1.0)
    assert "+20.000 MB" in capsys.readouterr().out


def test_the_encoders_events_fill_its_cache_and_no_more() -> None:
    kept = list(itertools.islice(encoder_events(load_settings(["--passthrough"], env={})), 60))
    assert len(kept) == 60 and 0 <= kept[0] <= kept[-1]


@pytest.mark.process
def test_sessions_of_the_gateway_come_and_go() -> None:
    with gateway_process() as (address, process):
        assert asyncio.run(many_sessions(address, 12)) >= 6
        assert process.memory_info().rss > 20e6
