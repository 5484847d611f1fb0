"""Memory that decoding frees is used again."""

from __future__ import annotations

import subprocess
import sys

import pytest

from protocol.process import c_allocator

FAULTS = """
import resource, torch
from protocol.process.c_allocator import keep_freed_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(50):
        torch.ones(1_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
by_default = faults()
print(keep_freed_memory(), by_default, (faults(), faults())[1])
"""


def test_freed_blocks_cost_no_page_faults() -> None:
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    told, by_default, kept = done.stdout.split()
    if told != "True":
        pytest.skip("another C library")
    assert int(kept) < 500, f"{by_default} by default, {kept} afterwards, in 50 blocks of 977 pages"


def test_another_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_name: None) -> None:
        raise OSError("no such library")

    monkeypatch.setattr("ctypes.CDLL", refuse)
    assert c_allocator.keep_freed_memory() is False


def test_freed_memory_is_returned_at_once_and_then_each_minute() -> None:
    timer = c_allocator.ReturnTimer()
    due = [now for now in range(0, 200, 10) if timer.is_due(float(now))]
    assert due == [0, 60, 120, 180]
