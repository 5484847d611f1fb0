"""The cost of --late-start, for a moment of one session."""

from __future__ import annotations

import pytest

from demo.factory.evaluate import trial_late

pytestmark = pytest.mark.slow


@pytest.mark.timeout(300)
def test_each_late_start_has_its_row(capsys: pytest.CaptureFixture[str]) -> None:
    assert trial_late.main(["--quick", "--steps", "2", "--device", "cpu"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip()[:1].isdigit()][1:]
    assert [row[:2] for row in rows] == [["0", "2"], ["1", "1"]]
    assert rows[0][2] == "inf"
    assert 15 < float(rows[1][2]) < 60  # near its two-step self, and not the same
