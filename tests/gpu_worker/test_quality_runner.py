"""The search for a quality with an engine and an encoder that only take time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from gpu_worker.quality.options import Quality, qualities
from gpu_worker.quality.runner import QualityRunner
from gpu_worker.rate.runner import TIMED_ALONE, TrialRunner
from protocol.process.settings import Settings, load_settings
from protocol.wire.messages import Array16, Clip, InfoValue
from tests.gpu_worker.worker_process import ToyEngine, clip

STEPS = 6


class Card(ToyEngine):
    """A GPU that takes `seconds` for each frame of a clip with all steps, and 0.6 of that by the fast tier.

    It makes clips by the fast path unless `broken` names the tier.
    """

    steps = STEPS
    device_type = "cuda"

    def __init__(self, settings: Settings, seconds: float, broken: str = "") -> None:
        super().__init__(settings)
        self.settings = settings
        self.seconds = seconds
        self.broken = broken
        self.adopted: list[Settings] = []
        self.known: set[str] = set()
        self.made = 0

    def open_qualities(self) -> Sequence[Quality]:
        return qualities(self.settings, STEPS, tiny=True) if self.settings.quality == "auto" else ()

    def adopt(self, settings: Settings) -> None:
        super().adopt(settings)
        self.settings = settings
        self.adopted.append(settings)

    def denoise(self, inputs: Clip) -> Array16:
        self.made += 1
        late = self.settings.late_start or 0 if inputs.seq and inputs.session in self.known else 0
        self.known.add(inputs.session)
        tier = 0.6 if self.settings.tier == "fast" else 1.0
        time.sleep(self.seconds * tier * len(inputs.tokens) * (STEPS - late) / STEPS)
        return np.zeros((len(inputs.tokens), 1, 1, 4), np.float16)

    def close(self, session: str, epoch: int) -> None:
        self.known.discard(session)

    def trial_clip(self, session: str, seq: int, fps: int) -> Clip:
        return clip(session, seq, frames=self.clip_frames * fps // 24)

    def info(self) -> dict[str, InfoValue]:
        compiled = self.settings.compile_unet is True and self.settings.tier != self.broken
        return {"device": "cuda:0 (Toy)", "width": 512, "height": 512, "compiled": compiled}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))


def runner_of(card: Card, decoding: float = 0.002) -> QualityRunner:
    """A runner whose encoder confirms each clip after so many seconds, by any decoder."""
    trials = TrialRunner(card, card.settings, "_rate-0", lambda: None)

    def decode() -> None:
        while trials.outbox:
            latents = trials.outbox.popleft()
            asked.append(latents.decoder)
            time.sleep(decoding)
            trials.confirm(latents)

    asked: list[str] = []
    trials._wake = decode
    trials.encoder_joined.set()
    return QualityRunner(card, card.settings, trials)


def settings(*argv: str) -> Settings:
    return load_settings(list(argv), env={})


@pytest.mark.timing
def test_a_fast_card_serves_exact_clips_of_two_frames_and_remembers_it() -> None:
    card = Card(settings(), 0.004)
    runner = runner_of(card)
    picked, rate = runner.run()
    assert (picked.tier, picked.late_start, picked.clip_frames, picked.compile_unet) == ("exact", 0, 2, True)
    assert rate is not None and rate.fps == 24 and rate.notice == "" and 0.01 < rate.clip_seconds < 0.1
    assert runner.decoder == "kl"
    again = Card(settings(), 0.004)
    assert runner_of(again).run()[0] == picked
    assert len(again.adopted) == 1  # nothing else was tried
    assert again.made <= 2 * TIMED_ALONE, "a card that is as quick as before needs no clips in a row"
    slower = Card(settings(), 0.045)  # the same card, but busy: what was kept does not hold
    found, rate = runner_of(slower).run()
    assert rate is not None and (found.tier, found.late_start) != ("exact", 0)


@pytest.mark.timing
def test_a_tier_that_cannot_be_made_is_left_out() -> None:
    picked, rate = runner_of(Card(settings(), 0.002, broken="exact")).run()
    assert rate is not None and picked.tier == "fast"


def test_a_card_that_became_slower_is_timed_in_a_row_again() -> None:
    """Its kept quality serves on while a clip takes at most 0.9 of its duration."""
    found, _ = runner_of(Card(settings("--fps", "8"), 0.002)).run()
    slower = Card(settings("--fps", "8"), 0.02)
    picked, rate = runner_of(slower).run()
    assert picked == found and len(slower.adopted) == 1
    assert slower.made > 2 * TIMED_ALONE and rate is not None and rate.clip_seconds > 0.01


def test_with_quality_fixed_the_flags_stay() -> None:
    given = settings("--quality", "fixed")
    card = Card(given, 0.0)
    assert runner_of(card).run() == (given, None)
    assert not card.adopted
