"""RenderProgress: a bar on a terminal, a line every five seconds elsewhere."""

from __future__ import annotations

import io

import pytest

from scripts.render.progress import RenderProgress


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [Screen(), io.StringIO()])
def test_twelve_seconds_of_work(stream: io.StringIO) -> None:
    now = [100.0]
    progress = RenderProgress(48, 24, stream, lambda: now[0])
    for _ in range(48):
        now[0] += 0.25
        progress.step()
    shown = stream.getvalue()
    assert shown.endswith("\n")
    if stream.isatty():
        assert shown.count("\r") == 48
        assert (
            "\r███████████████░░░░░░░░░░░░░░░  50 %  24 of 48 pictures, 0.2 times real time, 6 s left"
            in shown
        )
    else:
        assert [line[:5] for line in shown.splitlines()] == [" 41 %", " 83 %", "100 %"]
