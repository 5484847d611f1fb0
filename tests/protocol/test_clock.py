"""The session's clock: its arithmetic, and that everything that ships takes its numbers from it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.process.settings import ROOT
from protocol.wire import clock

SHIPPED = ("protocol", "gateway", "audio_worker", "gpu_worker", "encoder_worker", "scripts", "demo")
CLOCK = ROOT / "protocol/wire/clock.py"

rates = st.integers(1, 60)
lengths = st.integers(1, 64)


def shipped_files() -> list[Path]:
    return [path for package in SHIPPED for path in sorted((ROOT / package).rglob("*.py")) if path != CLOCK]


@given(st.integers(0, 10**9), rates)
def test_a_frame_is_found_again_from_its_pts(frame: int, fps: int) -> None:
    pts = clock.pts_of_frame(frame, fps)
    assert clock.first_frame_from(pts, fps) == frame
    assert clock.first_frame_from(pts + 1, fps) == frame + 1


@given(st.integers(0, 10**6), rates, lengths)
def test_every_sample_of_a_clip_belongs_to_it(clip: int, fps: int, frames: int) -> None:
    first, following = (clock.pts_of_clip(number, fps, frames) for number in (clip, clip + 1))
    assert clock.clip_at(first, fps, frames) == clock.clip_at(following - 1, fps, frames) == clip


@given(st.integers(0, 10**9), st.sampled_from([8000, 11025, 16000, 44100, 48000]))
def test_positions_at_other_rates_lose_less_than_a_sample(samples: int, rate: int) -> None:
    pts = clock.pts_after(samples, rate)
    assert 0 <= samples * clock.SAMPLE_RATE - pts * rate < rate
    assert 0 <= samples - clock.samples_until(pts, rate) <= rate // clock.SAMPLE_RATE + 1


def test_a_clip_lasts_as_long_at_every_rate() -> None:
    assert [clock.frames_of_clip(fps, 12) for fps in clock.FRAME_RATES] == [12, 6, 4]
    assert clock.frames_of_clip(8, 1) == 1


def _numbers(tree: ast.AST) -> Iterator[ast.Constant]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Constant))


@pytest.mark.parametrize("path", shipped_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_else_states_the_sample_rate_or_the_frame_rates(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    rate = [node.lineno for node in _numbers(tree) if node.value == clock.SAMPLE_RATE]
    assert not rate, f"lines {rate} state {clock.SAMPLE_RATE}; take protocol.wire.clock.SAMPLE_RATE"
    for node in ast.walk(tree):
        if isinstance(node, (ast.Tuple, ast.List)):
            stated = tuple(item.value for item in node.elts if isinstance(item, ast.Constant))
            assert stated != clock.FRAME_RATES, f"line {node.lineno} states the frame rates again"


def test_the_page_states_the_sample_rate_once_and_alike() -> None:
    stating = {
        path.name: re.findall(r"\b16_?000\b", path.read_text(encoding="utf-8"))
        for folder in ("gateway/page", "clients/js/client")
        for path in (ROOT / folder).rglob("*.js")
    }
    once = [str(clock.SAMPLE_RATE)]
    # The component is one file for other sites, so it imports nothing.
    expected = {"clock.js": once, "echomimic-face.js": once}
    assert {name: found for name, found in stating.items() if found} == expected
