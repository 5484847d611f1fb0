"""The hop benchmark: every hop delivers, and takes a time that a machine can have."""

from __future__ import annotations

import pytest

from scripts.bench.host.hops import measure_hops
from scripts.run.managed import parse_metrics

pytestmark = pytest.mark.process


def test_every_hop_is_measured():
    figures = measure_hops(20)
    assert [hop.name for hop in figures] == ["pcm", "clips", "latents", "results"]
    assert [hop.payload for hop in figures] == [1280, 460800, 98304, 20480]
    for hop in figures:
        assert 0 < hop.median <= hop.p99 < 2


def test_prometheus_text_is_read():
    text = '# TYPE a gauge\na 1\na_b{stage="x",worker="0-1"} 2.5e-3\n# bad line\n'
    assert parse_metrics(text) == {"a": [({}, 1.0)], "a_b": [({"stage": "x", "worker": "0-1"}, 0.0025)]}
