"""The agent's benchmark: its judgement of silence, with figures that are known."""

from __future__ import annotations

import pytest

from scripts.bench.host.agent.heard import HeardClip, SentPiece, bursts, judge, unavoidable


def test_padding_and_late_clips_count_as_silence() -> None:
    sent = [SentPiece(0.0, 8000), SentPiece(0.5, 8000)]
    smooth = [HeardClip(0.2, 0, 8000), HeardClip(0.6, 8000, 8000)]
    heard = judge(sent, smooth)
    assert (heard.silence, heard.tears) == (0.0, 0)
    assert heard.first_delay == pytest.approx(0.2) and heard.last_delay == pytest.approx(0.2)
    padded = [HeardClip(0.2, 0, 4000), HeardClip(0.6, 8000, 12000)]
    assert judge(sent, padded).silence == pytest.approx(0.25)
    late = judge(sent, [HeardClip(0.2, 0, 8000), HeardClip(1.0, 8000, 8000)])
    assert late.silence == pytest.approx(0.3) and late.tears == 1


def test_only_a_gap_beyond_the_speech_that_waits_is_unavoidable() -> None:
    plan = bursts(4.0, 0.5, 2.0, 2.0, 0.5)
    sent = [SentPiece(at, round(seconds * 16000)) for at, seconds in plan]
    assert [at for at, _ in plan] == [0.0, 0.25, 0.5, 0.75, 1.5, 1.75, 2.0, 2.25]
    assert unavoidable(sent, 0.3) == 0.0
    slow = [SentPiece(0.0, 16000), SentPiece(2.0, 16000)]
    assert unavoidable(slow, 0.4) == pytest.approx(0.6)
