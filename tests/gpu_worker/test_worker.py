"""The worker as a process over ipc, with an engine whose latents tell their inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from protocol.process.settings import flags_of
from protocol.wire.messages import Close
from tests.gpu_worker.worker_process import Around, Process, clip, run_settings

pytestmark = pytest.mark.process

Start = Callable[..., tuple[Around, Process]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts the worker with these flags and, unless told not to, waits until it takes work."""
    with ExitStack() as stack:

        def begin(*argv: str, encoder: bool = True, wait: bool = True) -> tuple[Around, Process]:
            settings = run_settings(tmp_path / "run", *argv)
            around = Around(settings)
            stack.callback(around.close)
            process = stack.enter_context(
                Process("tests.gpu_worker.worker_process", flags_of(settings), tmp_path)
            )
            if encoder:
                around.start_encoder()
            if wait:
                around.until(lambda: around.joined and around.warm)
            return around, process

        yield begin


def test_clips_come_back_in_order_and_follow_each_other(start: Start) -> None:
    around, process = start("--fps", "24")
    for seq in range(6):
        for session in ("a", "b"):
            around.clips.dispatch(clip(session, seq))
        around.until(lambda seq=seq: len(around.acked) == 2 * (seq + 1))  # type: ignore[misc]
    for session in ("a", "b"):
        assert [row[1:] for row in around.rows() if row[0] == session] == [(s, s - 1) for s in range(6)]
    assert around.failed == []
    assert around.clips.pending == around.clips.in_flight == 0
    around.until(lambda: around.metric("clips_total") == 12)
    assert around.metric("clip_in_stage_seconds_count") == around.metric("latents_queued_seconds_count") == 12
    assert around.metric("clip_in_stage_seconds_sum") >= around.metric("denoise_seconds_sum") > 0
    assert around.metric("denoise_seconds_p50") < 0.1
    assert process.terminate() == 0


def test_a_clip_is_held_until_its_latents_are_acknowledged(start: Start) -> None:
    around, _ = start("--fps", "24")
    around.encoding = False
    around.clips.dispatch(clip("a", 0))
    around.until(lambda: around.latents)
    around.rest(0.3)
    assert around.acked == []
    around.encoding = True
    around.until(lambda: around.acked)


def test_silent_clips_are_made_once_and_never_wait(start: Start) -> None:
    """Not for the device, not for other sessions. The clip after them follows them."""
    around, _ = start("--fps", "24")
    around.clips.dispatch(clip("a", 0, value=1, silent=True))
    around.until(lambda: len(around.acked) == 1)
    around.clips.dispatch(clip("loud", 0, seconds=1.0))
    around.rest(0.1)
    around.clips.dispatch(clip("a", 1, value=2, silent=True))
    around.clips.dispatch(clip("b", 5, value=3, silent=True))
    around.until(lambda: len(around.acked) == 3)
    assert all(latents.silent for latents in around.latents)  # "loud" is still being denoised
    assert [float(one.latents[0, 0, 0, 2]) for one in around.latents] == [1, 1, 1]
    around.clips.dispatch(clip("a", 2, value=4))
    around.until(lambda: len(around.acked) == 5)
    assert around.rows()[-1] == ("a", 2, 1)
    around.until(lambda: around.metric("clips_at_rest_total") == 2)
    # an older epoch is dropped, as ever
    around.clips.dispatch(clip("a", 0, epoch=1, silent=True))
    around.clips.dispatch(clip("a", 3, silent=True))
    around.until(lambda: len(around.acked) == 7)
    assert len(around.latents) == 6
    assert around.failed == []


def test_sessions_take_turns(start: Start) -> None:
    around, _ = start("--fps", "24")
    around.clips.dispatch(clip("first", 0, seconds=0.4))
    around.rest(0.1)
    for seq in (0, 1):
        around.clips.dispatch(clip("a", seq, seconds=0.05))
    for seq in (0, 1):
        around.clips.dispatch(clip("b", seq, seconds=0.05))
    around.until(lambda: len(around.acked) == 5)
    assert [row[:2] for row in around.rows()] == [("first", 0), ("a", 0), ("b", 0), ("a", 1), ("b", 1)]


def test_next_inputs_are_prepared_while_a_clip_is_denoised(start: Start) -> None:
    around, process = start("--fps", "24")
    for seq in range(3):
        around.clips.dispatch(clip("a", seq, seconds=0.5))
    around.until(lambda: len(around.acked) == 3)
    around.until(lambda: around.metric("prefetch_hits_total") == 2)
    assert around.metric("prefetch_cold_total") == 1
    assert around.metric("prefetch_misses_total") == 0
    assert "prefetch begins" in process.log()
    around.until(lambda: around.metric("device_busy_seconds_total") >= 1.5)
    # Nothing idle was told while the clips followed each other; the pause after them is.
    around.until(lambda: 0.05 < around.metric("device_idle_ratio") < 0.95)


def test_too_many_clips_of_a_session_push_out_the_oldest_and_say_so(start: Start) -> None:
    around, _ = start("--fps", "24")
    for seq in range(6):
        around.clips.dispatch(clip("a", seq, seconds=0.5 if seq == 0 else 0.0))
    around.clips.dispatch(clip("b", 0))
    around.until(lambda: len(around.acked) == 7)
    # one is denoised, one prepared, two wait: what is older than those two goes
    assert [row[1] for row in around.rows() if row[0] == "a"] == [0, 1, 4, 5]
    assert ("b", 0, -1) in around.rows()
    assert [(f.session, f.seq, f.fatal) for f in around.failed] == [("a", 2, False), ("a", 3, False)]
    assert all("overload" in f.reason for f in around.failed)
    # after the gap the session goes on from noise
    assert ("a", 4, -1) in around.rows()
    around.until(lambda: around.metric("clips_dropped_total") == 2)


def test_encoders_that_lag_push_out_the_oldest_latents(start: Start) -> None:
    around, _ = start("--fps", "24")
    around.encoding = False
    for seq in range(7):
        around.clips.dispatch(clip("a", seq))
        around.rest(0.1)
    # the encoder holds two, two wait
    around.until(lambda: [f.seq for f in around.failed] == [2, 3, 4])
    around.encoding = True
    around.until(lambda: len(around.acked) == 7)
    assert [row[1] for row in around.rows()] == [0, 1, 5, 6]


def test_what_cannot_be_made_is_answered_and_nothing_else_suffers(start: Start) -> None:
    around, process = start("--fps", "24")
    around.clips.dispatch(clip("good", 0))
    around.clips.dispatch(clip("unknown", 0, avatar="zoe"))
    around.clips.dispatch(clip("bad", 0, failure=1))
    around.clips.dispatch(clip("memory", 0, failure=2))
    around.clips.dispatch(clip("good", 1))
    around.until(lambda: len(around.acked) == 5)
    around.until(lambda: len(around.failed) == 3)
    failed = {f.session: f for f in around.failed}
    assert failed["unknown"].reason == "there is no avatar zoe; there are toy"
    assert failed["unknown"].fatal
    assert "bad clip" in failed["bad"].reason
    assert "no memory" in failed["memory"].reason
    assert not failed["bad"].fatal
    assert not failed["memory"].fatal
    assert around.rows() == [("good", 0, -1), ("good", 1, 0)]
    assert process.process.poll() is None


def test_a_lost_device_ends_the_worker_and_its_clip_goes_to_another(start: Start) -> None:
    around, process = start("--fps", "24")
    around.clips.dispatch(clip("a", 0, failure=3))
    around.until(lambda: process.process.poll() is not None)
    assert process.process.returncode == 1
    assert around.acked == []
    around.until(lambda: around.clips.pending == 1)


def test_close_forgets_a_session_and_goes_on_to_the_encoders(start: Start) -> None:
    around, _ = start("--fps", "24")
    around.clips.dispatch(clip("a", 0))
    around.clips.dispatch(clip("a", 1))
    around.until(lambda: len(around.acked) == 2)
    around.clips.dispatch(clip("busy", 0, seconds=0.3))
    for seq in (2, 3, 4):
        around.clips.dispatch(clip("a", seq))
    around.rest(0.1)
    around.clips.broadcast(Close("a", 0))
    around.until(lambda: around.closes)
    assert (around.closes[0].session, around.closes[0].epoch) == ("a", 0)
    around.until(lambda: around.acked[-1].session == "busy")
    around.clips.dispatch(clip("a", 5))  # of the closed epoch
    around.clips.dispatch(clip("a", 0, epoch=1))
    around.until(lambda: around.clips.in_flight == 0)
    assert [row for row in around.rows() if row[0] == "a"] == [("a", 0, -1), ("a", 1, 0), ("a", 0, -1)]
    assert around.failed == []


def test_a_new_epoch_supersedes_the_old_one(start: Start) -> None:
    around, _ = start("--fps", "24")
    around.clips.dispatch(clip("busy", 0, seconds=0.3))
    around.rest(0.1)
    for seq in (0, 1, 2):
        around.clips.dispatch(clip("a", seq))
    around.clips.dispatch(clip("a", 0, epoch=1))
    around.until(lambda: len(around.acked) == 5)
    assert [(got.session, got.epoch) for got in around.latents] == [("busy", 0), ("a", 1)]
    assert around.failed == []


def test_a_stopped_worker_is_replaced_and_its_clips_are_made(start: Start, tmp_path: Path) -> None:
    around, process = start("--fps", "24")
    around.clips.dispatch(clip("a", 0, seconds=1.5))
    around.clips.dispatch(clip("a", 1))
    around.rest(0.3)
    assert process.terminate() == 0
    with Process("tests.gpu_worker.worker_process", flags_of(around.settings), tmp_path):
        around.until(lambda: len(around.joined) == 2)
        around.until(lambda: len(around.acked) == 2)
    assert around.rows() == [("a", 0, -1), ("a", 1, 0)]


def test_a_wrong_worker_index_ends_at_once_with_2(start: Start) -> None:
    _, process = start("--worker-index", "3", wait=False, encoder=False)
    assert process.process.wait(15) == 2
    assert "--worker-index 3" in process.log()


@pytest.mark.parametrize(("slow_above", "fps"), [(4, 24), (2, 12)])
def test_the_rate_is_what_denoiser_and_encoders_hold(start: Start, slow_above: int, fps: int) -> None:
    """The encoder played here is far too slow for clips of more than `slow_above` frames."""
    around, process = start("--clip-frames", "4", wait=False)

    def warm() -> bool:
        frames = len(around.latents[-1].latents) if around.latents else 4
        around.encode_seconds = 0.3 if frames > slow_above else 0.0
        return around.warm

    around.until(warm, 40)
    assert around.status is not None
    assert around.status.info["fps"] == fps
    notice = str(around.status.info["notice"])
    assert (notice == "") == (fps == 24)
    if fps != 24:
        assert "denoising and decoding a clip of 0.17 s takes" in notice
        shape = f"{fps} fps, clips of {4 * fps // 24} frames"
        assert f"new sessions get {shape}: {notice}" in process.log()
    assert around.failed == []


def test_a_given_rate_is_kept_and_needs_no_encoder(start: Start) -> None:
    around, _ = start("--seed", "60", "--fps", "24", encoder=False)
    assert around.status is not None
    assert around.status.info["fps"] == 24
    assert "--fps 24 is kept" in str(around.status.info["notice"])


def test_without_encoders_the_denoiser_alone_decides(start: Start) -> None:
    around, process = start("--encoders", "0", encoder=False)
    assert around.status is not None
    assert around.status.info["fps"] == 24
    assert "by the denoiser's time alone" in process.log()
