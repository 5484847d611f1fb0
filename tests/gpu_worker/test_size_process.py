"""The size of pictures in a real worker process: it falls with the machine, says so, and comes back."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from protocol.process.settings import flags_of
from protocol.wire.messages import FINE_DECODER, Latents
from tests.gpu_worker.worker_process import Around, Process, clip, run_settings

pytestmark = [pytest.mark.process, pytest.mark.timing]

#: Seconds of a clip of 4 frames.
LASTS = 4 / 24


def test_the_size_falls_under_load_and_comes_back(tmp_path: Path) -> None:
    settings = run_settings(tmp_path / "run", "--clip-frames", "4")
    around = Around(settings)
    with Process("tests.gpu_worker.sized_worker_process", flags_of(settings), tmp_path):
        around.start_encoder()
        around.until(lambda: around.joined and around.warm)
        begin, number = time.monotonic(), 0

        def mine() -> list[Latents]:
            return [latents for latents in around.latents if latents.session == "a"]

        def larger() -> bool:
            return bool(mine()) and mine()[-1].decoder == FINE_DECODER

        def speak(until: bool, slow: float) -> None:
            """Clips in real time, until their pictures have this size. Each takes `slow` seconds."""
            nonlocal number
            while larger() is not until or len(mine()) < 6:
                assert number < 200, "the size does not change"
                around.clips.dispatch(clip("a", number, frames=4, seconds=slow))
                number += 1
                around.rest(begin + LASTS * number - time.monotonic())

        assert around.status is not None and around.status.info["width"] == 128
        speak(until=True, slow=0.0)
        speak(until=False, slow=1.3 * LASTS)
        around.until(lambda: around.status is not None and around.status.info["height"] == 48)
        assert around.metric("fine_pictures") in (0.0, 1.0)
        speak(until=True, slow=0.0)
        around.until(lambda: around.status is not None and around.status.info["width"] == 128)
        around.until(lambda: around.metric("fine_pictures") == 1.0)
        around.until(lambda: len(mine()) == number)
        # Each clip is made once, with all its frames.
        assert [latents.seq for latents in mine()] == list(range(number)) and not around.failed
        assert {(len(latents.latents), latents.fps) for latents in mine()} == {(4, 24)}
    around.close()
