"""Logs, metrics and the compute thread."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.model.hardware.threads import thread_count
from protocol.process.compute import Compute, Output
from protocol.process.logs import first_line, set_up_logging
from protocol.process.metrics import Metrics
from protocol.process.settings import Settings
from protocol.wire.figures import Histogram, Summary, quantile
from protocol.wire.messages import Status

# ------------------------------------------------------------------ metrics

floats = st.floats(-1e9, 1e9)


@given(st.lists(floats, min_size=1, max_size=50), st.floats(0, 1))
def test_quantiles_lie_among_the_values(values: list[float], q: float) -> None:
    values.sort()
    assert values[0] - 1e-3 <= quantile(values, q) <= values[-1] + 1e-3
    assert quantile(values, 0) == values[0] and quantile(values, 1) == values[-1]


def test_a_summary_forgets_values_but_not_their_count() -> None:
    summary = Summary(size=10)
    for i in range(100):
        summary.add(i)
    figures = summary.figures("t_seconds")
    assert figures["t_seconds_count"] == 100 and figures["t_seconds_sum"] == 4950
    assert figures["t_seconds_p50"] == 94.5


def test_a_histogram_counts_values_at_or_below_each_bound() -> None:
    histogram = Histogram((10, 100))
    for seconds in (0.005, 0.010, 0.011, 0.1, 3.0):
        histogram.add(seconds)
    assert histogram.figures("t_seconds") == {
        "t_seconds_bucket_10ms": 2, "t_seconds_bucket_100ms": 4, "t_seconds_count": 5,
        "t_seconds_sum": pytest.approx(3.126),
    }  # fmt: skip


def test_metrics_fit_a_status_whatever_happened() -> None:
    metrics = Metrics()
    metrics.count("frames_total")
    metrics.count("frames_total", 4)
    metrics.gauge("fps", 24)
    metrics.gauge("broken", math.nan)
    metrics.observe("decode_seconds", 0.5)
    with metrics.time("encode_seconds"):
        pass
    figures = metrics.snapshot(lambda: {"hop_pending": 1.0})
    assert figures["frames_total"] == 5 and figures["hop_pending"] == 1 and "broken" not in figures
    assert figures["decode_seconds_p95"] == 0.5
    Status("s", "w", True, {}, figures)


def test_metrics_from_many_threads_add_up() -> None:
    metrics = Metrics()

    def work() -> None:
        for _ in range(2000):
            metrics.count("n_total")
            metrics.observe("t_seconds", 1.0)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    figures = metrics.snapshot()
    assert figures["n_total"] == figures["t_seconds_count"] == figures["t_seconds_sum"] == 8000


# ------------------------------------------------------------------ logs


@pytest.fixture
def clean_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


def test_a_record_is_one_line(capsys: pytest.CaptureFixture[str], clean_logging: None) -> None:
    set_up_logging("gpu_worker", "1", "INFO")
    set_up_logging("gpu_worker", "1", "INFO")
    log = logging.getLogger("gpu_worker.engine.serve")
    log.debug("not this")
    log.info("a client said %s", "x\n12:00:00 ERROR forged: line\x1b[31m\r\u2028end")
    try:
        raise ValueError("two\nlines")
    except ValueError:
        log.exception("it failed")
    lines = capsys.readouterr().err.split("\n")
    assert len(lines) == 3 and lines[2] == ""
    assert " INFO gpu_worker.1 gpu_worker.engine.serve: a client said x | 12:00:00" in lines[0]
    assert "\x1b" not in lines[0] and "\\x1b[31m" in lines[0]
    assert " ERROR gpu_worker.1 " in lines[1] and "ValueError: two | lines" in lines[1]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("one\ntwo", "one"),
        ("", "ValueError"),
        ("it does not fit:\n\tone key is missing\n\tso is another", "it does not fit: one key is missing"),
        ("it does not fit:", "it does not fit:"),
        (
            "Exception from src/inference/src/cpp/core.cpp:84:\n"
            "Check 'exists(path) || other(path)' failed at src/frontends/common/src/frontend.cpp:117:\n"
            "FrontEnd API failed with GeneralFailure:\n"
            'ir: Could not open the file: "/nowhere.xml"\n\n',
            'FrontEnd API failed with GeneralFailure: ir: Could not open the file: "/nowhere.xml"',
        ),
        ("Exception from src/plugin.cpp:54:\n", "Exception from src/plugin.cpp:54:"),
    ],
)
def test_an_errors_line_tells_the_cause_and_not_a_place_in_a_library(text: str, line: str) -> None:
    assert first_line(ValueError(text)) == line


# ------------------------------------------------------------------ compute


@pytest.fixture
def compute() -> Iterator[Compute]:
    thread = Compute(lambda: None)
    yield thread
    thread.stop(1)


def outputs(compute: Compute, n: int) -> list[Output]:
    got: list[Output] = []
    end = time.monotonic() + 5
    while len(got) < n:
        assert time.monotonic() < end, got
        got += compute.take()
        time.sleep(0.002)
    return got


def test_tasks_run_in_order_and_errors_come_back(compute: Compute) -> None:
    compute.start_task("a", lambda x: x + 1, 1)
    compute.start_task("b", lambda: 1 / 0)
    compute.start_task("c", lambda: None)
    assert compute.waiting == 3
    a, b, c = outputs(compute, 3)
    assert a == Output("a", 2) and isinstance(b.error, ZeroDivisionError) and c == Output("c", None)
    assert compute.waiting == 0


def test_a_generators_values_come_one_by_one(compute: Compute) -> None:
    gate = threading.Event()

    def frames() -> Iterator[int]:
        yield 1
        gate.wait(5)
        yield 2
        raise OSError("late")

    compute.start_task("clip", frames)
    assert outputs(compute, 1) == [Output("clip", 1, done=False)]
    gate.set()
    second, last = outputs(compute, 2)
    assert second == Output("clip", 2, done=False)
    assert isinstance(last.error, OSError) and last.done and compute.waiting == 0


def test_how_long_a_task_has_been_running() -> None:
    now = [0.0]
    gate = threading.Event()
    woken = threading.Event()
    compute = Compute(woken.set, clock=lambda: now[0])
    assert compute.busy_for() == 0
    started = threading.Event()

    def task() -> None:
        started.set()
        gate.wait(5)

    compute.start_task("x", task)
    started.wait(5)
    now[0] = 70.0
    assert compute.busy_for() == 70.0
    assert not compute.stop(0.05)
    gate.set()
    assert woken.wait(5) and compute.stop(5) and compute.busy_for() == 0


def test_threads_leave_room_for_the_other_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, threads in ((1, 1), (2, 1), (3, 1), (8, 4)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, n=cores: set(range(n)))
        assert thread_count(Settings()) == threads
    assert thread_count(Settings(threads=7)) == 7
