"""Ways to keep a session's state, for a moment of one session, and the figures by themselves."""

from __future__ import annotations

import numpy as np
import pytest

from demo.factory.evaluate import trial_continuity
from demo.factory.evaluate.trial_continuity import Changes, still_pixels


def test_changes_are_the_same_in_pieces() -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (24, 4, 6, 3), dtype=np.uint8)
    pictures[:, 0] = 7  # a still line
    pictures[12:, 0] = 8
    whole, pieces = Changes(), Changes()
    whole.add(pictures)
    for first in range(0, 24, 6):
        pieces.add(pictures[first : first + 6])
    assert pieces.seam(12) == pytest.approx(whole.seam(12))
    still = still_pixels(pieces)
    assert still[0].all() and not still[1:].any()
    assert pieces.of(still) == pytest.approx(whole.of(still)) == pytest.approx(1 / 23)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_each_way_has_its_row(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--quick", "--steps", "1", "--ways", "seed-mix,session-noise", "--device", "cpu"]
    assert trial_continuity.main([*words, "--cpu-engine", "torch", "--sizes", "256,512"]) == 0
    lines = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()]
    rows = [row for row in lines if row[0] == "torch"]
    assert [row[1:6] for row in rows] == [
        [size, "1", "12", "0", way] for size in ("256", "512") for way in ("seed-mix", "session-noise")
    ]
    assert all(25 < float(row[6]) < 40 and float(row[-1]) > 0 for row in rows)
    assert [row[4].strip() for row in lines if len(row) > 4 and "drawn" in row[4]] == [
        "drawn", "drawn, JPEG", "drawn, VAE, JPEG", "drawn, VAE, JPEG",
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_held_pixels_flicker_less_and_lose_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    # One second's mouth wins or loses 0.03 dB by the processor's rounding. Three people's hardly do.
    words = ["--scenes", "3", "--seconds", "1", "--steps", "1", "--ways", "session-noise", "--device", "cpu"]
    words += ["--cpu-engine", "openvino-int8", "--pixels", "held,clip,free"]
    assert trial_continuity.main(words) == 0
    lines = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()]
    held, within, free = ([float(word) for word in row[6:]] for row in lines if row[0] == "openvino-int8")
    assert held[5] < within[5] < 0.75 * free[5]
    for after, before in zip(held[:3], free[:3], strict=True):
        assert after > before or after == pytest.approx(before, abs=0.02)
    assert held[3] < within[3]


def test_larger_pictures_have_the_same_still_parts() -> None:
    small, large = Changes(), Changes()
    pictures = np.zeros((3, 2, 2, 3), np.uint8)
    pictures[1, 0] = 9
    small.add(pictures)
    large.add(pictures.repeat(2, 1).repeat(2, 2))
    still = np.array([[False, False], [True, True]])
    assert small.of(~still) == large.of(~still) == pytest.approx(9)
    assert small.of(still) == large.of(still) == 0


def test_an_unknown_way_is_refused() -> None:
    with pytest.raises(SystemExit):
        trial_continuity.main(["--ways", "old-noise"])
