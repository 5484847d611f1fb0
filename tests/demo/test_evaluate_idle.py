"""Parts of the measurements of silence that need no model."""

from __future__ import annotations

import numpy as np
import pytest

from demo.factory.evaluate.noises import AGC_MOST_DB, AGC_TARGET_DB, KINDS, automatic_gain, noise
from demo.factory.evaluate.path import Made
from demo.factory.evaluate.trial_idle import Boundaries
from scripts.bench.common.turns import conversation
from scripts.bench.host.conversation import Figures, lines


def level(samples: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(np.square(samples, dtype=np.float64)) + 1e-12))


@pytest.mark.parametrize("kind", KINDS)
def test_noises_have_their_level_and_can_be_had_again(kind: str) -> None:
    sound = noise(kind, 4.0, -40.0, 3)
    assert sound.shape == (64000,) and sound.dtype == np.float32
    assert np.array_equal(sound, noise(kind, 4.0, -40.0, 3))
    assert -55 < level(sound) < -39  # the pauses between keys and breaths lower it
    louder = noise(kind, 4.0, -30.0, 3)
    assert level(louder) - level(sound) == pytest.approx(10, abs=0.5)


def test_the_gain_comes_to_its_target_and_no_further_than_it_may() -> None:
    quiet = automatic_gain(noise("fan", 8.0, -40.0, 0))
    assert level(quiet[32000:]) == pytest.approx(AGC_TARGET_DB, abs=1.5)
    faint = noise("fan", 8.0, -70.0, 0)
    assert level(automatic_gain(faint)) - level(faint) == pytest.approx(AGC_MOST_DB, abs=0.5)
    loud = noise("fan", 4.0, -15.0, 0)
    assert level(automatic_gain(loud)) == pytest.approx(level(loud), abs=0.5)


def test_boundaries_are_told_apart() -> None:
    def clip(first: int, step: int, silent: bool) -> Made:
        frames = np.arange(first, first + 4 * step, step, dtype=np.uint8)
        return Made(0, 4, np.broadcast_to(frames[:, None, None, None], (4, 2, 2, 3)).copy(), silent)

    seams = Boundaries()
    spoken, still = clip(0, 2, False), clip(10, 2, True)
    seams.add(spoken, still, (False, True))
    seams.add(still, clip(18, 2, False), (True, False))
    assert seams.figure("in") == 2.0 and seams.figure("out") == 1.0
    assert np.isnan(seams.figure("others"))


def test_a_conversation_is_half_silent() -> None:
    speech = np.full(16000, 0.5, np.float32)
    made = conversation(speech, turn=2.0, turns=2, shift=0.0)
    assert len(made) == 8 * 16000
    loud = np.abs(made) > 0.25
    assert loud[:32000].all() and not loud[32000:64000].any() and loud[64000:96000].all()
    later = conversation(speech, turn=2.0, turns=2, shift=2.0)
    assert not (np.abs(later) > 0.25)[:32000].any()


def test_the_bench_says_how_many_sessions_are_held_in_each_way() -> None:
    def run(way: str, sessions: int, cost: float, late: int = 0, refused: int = 0) -> Figures:
        spent = {"gateway": cost / 4, "gpu_worker": cost * 3 / 4}
        return Figures(way, sessions, spent, 1000, late, 0, 50, 96, 24.0, 24, refused, 0.1, 0)

    made = [run("denoise", 1, 0.4), run("loop", 1, 0.2), run("denoise", 2, 0.8, late=40), run("loop", 2, 0.5)]
    told = lines([*made, run("loop", 3, 0.6, refused=1)])
    assert told[-1].strip() == "sessions held: 1 with denoise, 2 with loop"
    assert any("1 sessions: the loop takes 50.0% less" in line for line in told)
    assert any("no, 1 refused" in line for line in told) and any("50 of 96" in line for line in told)
    assert lines(made[:2])[-1].strip() == "sessions held: at least 1 with denoise, at least 1 with loop"
    again = lines([run("loop", 2, 0.5, late=40), run("loop", 2, 0.5), run("loop", 3, 0.6, late=40)])
    assert again[-1].strip() == "sessions held: 2 with loop"
