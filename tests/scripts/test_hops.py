"""The hop benchmark: all messages of every hop arrive, and the times are those from departure to arrival."""

from __future__ import annotations

import pytest

from scripts.bench.host import hops
from scripts.run.managed import RunError, parse_metrics

EARLIER = 0.2


@pytest.mark.process
@pytest.mark.timing
def test_every_hop_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = hops.measure_hops(20)
    assert [hop.name for hop in plain] == ["pcm", "clips", "latents", "results"]
    assert [hop.payload for hop in plain] == [1280, 460800, 98304, 20480]
    now = hops.micros
    # This process's clock is slow: it sends the first three earlier, and receives the fourth earlier.
    monkeypatch.setattr(hops, "micros", lambda: now() - round(EARLIER * 1e6))
    shifted = hops.measure_hops(20)
    for hop, other, change in zip(plain, shifted, (EARLIER,) * 3 + (-EARLIER,), strict=True):
        assert 0 < hop.median <= hop.p99
        assert other.median - hop.median == pytest.approx(change, abs=EARLIER / 2), hop.name


def test_a_message_that_does_not_arrive_is_told() -> None:
    with pytest.raises(RunError, match="hop pcm: 2 of 3 messages arrived"):
        hops._figures("pcm", 1280, [0.1, 0.2], 3)


def test_prometheus_text_is_read() -> None:
    text = '# TYPE a gauge\na 1\na_b{stage="x",worker="0-1"} 2.5e-3\n# bad line\n'
    assert parse_metrics(text) == {"a": [({}, 1.0)], "a_b": [({"stage": "x", "worker": "0-1"}, 0.0025)]}
