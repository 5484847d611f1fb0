"""The rate trial's runner, with a toy engine; the test plays the loop and the encoders."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from gpu_worker.rate import runner as runner_module
from gpu_worker.rate.runner import TrialRunner
from gpu_worker.rate.trial import CLIPS_IN_FLIGHT, FOLLOWING_CLIPS, TIMED_CLIPS, RateChoice
from protocol.wire.messages import FINE_DECODER, Latents
from tests.gpu_worker.worker_process import ToyEngine, run_settings


class ClosingEngine(ToyEngine):
    """Remembers the sessions that were closed, and the rates that it was made ready for."""

    def __init__(self, folder: Path, *argv: str) -> None:
        self.settings = run_settings(folder, *argv)
        super().__init__(self.settings)
        self.closed: list[str] = []
        self.rates: list[int] = []
        self.favoured: list[int] = []

    def make_ready_for(self, fps: int) -> None:
        self.rates.append(fps)

    def favour(self, fps: int) -> None:
        self.favoured.append(fps)
        self.rates.append(fps)

    def close(self, session: str, epoch: int) -> None:
        self.closed.append(session)


class Trial:
    """A trial in a thread of its own. `wake` counts the calls that tell the loop of new latents."""

    def __init__(self, folder: Path, *argv: str) -> None:
        self.engine = ClosingEngine(folder, *argv)
        self.woken = 0
        self.runner = TrialRunner(self.engine, self.engine.settings, "_rate-0", self._wake)
        self.result: RateChoice | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _wake(self) -> None:
        self.woken += 1

    def _run(self) -> None:
        self.result = self.runner.run()

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def end(self) -> RateChoice | None:
        self._thread.join(20)
        assert not self.running
        return self.result

    def next_latents(self, thread: threading.Thread | None = None) -> Latents:
        deadline = time.monotonic() + 20
        while not self.runner.outbox:
            assert (thread or self._thread).is_alive(), "the trial has ended"
            assert time.monotonic() < deadline
            time.sleep(0.002)
        return self.runner.outbox.popleft()

    def decode(self, count: int) -> list[Latents]:
        """Decodes so many clips at once, as a fast encoder does."""
        decoded = []
        for _ in range(count):
            decoded.append(self.next_latents())
            self.runner.confirm(decoded[-1])
        return decoded


def test_clips_are_timed_through_the_encoders(tmp_path: Path) -> None:
    trial = Trial(tmp_path)
    trial.runner.encoder_joined.set()
    trial.start()
    decoded = trial.decode(TIMED_CLIPS + FOLLOWING_CLIPS)
    choice = trial.end()
    assert choice is not None
    assert (choice.fps, choice.notice) == (24, "")
    assert {each.session for each in decoded} == {"_rate-0"}
    assert [each.seq for each in decoded] == list(range(len(decoded)))
    assert trial.woken == len(decoded)
    assert set(trial.engine.rates) == {24}
    assert trial.engine.closed == ["_rate-0"]


def test_the_first_trial_favours_its_clips_and_keeps_their_length(tmp_path: Path) -> None:
    trial = Trial(tmp_path)
    trial.engine.clip_lengths = (4, 12)
    trial.runner.encoder_joined.set()
    choice = RateChoice(0, 0.0, "")

    def run() -> None:
        nonlocal choice
        choice = trial.runner.run(favour=True) or choice

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    for _ in range(TIMED_CLIPS + FOLLOWING_CLIPS):
        while not trial.runner.outbox:
            time.sleep(0.002)
        latents = trial.runner.outbox.popleft()
        assert len(latents.latents) == 4
        trial.runner.confirm(latents)
    thread.join(20)
    assert (choice.fps, choice.clip_frames, trial.engine.clip_frames) == (24, 4, 4)
    assert set(trial.engine.favoured) == {24}


def test_the_length_that_is_served_is_favoured_last(tmp_path: Path) -> None:
    """Clips of 3 frames are tried after those of 4, which get their network back where 3 are not held."""
    trial = Trial(tmp_path)
    trial.engine.clip_lengths, trial.engine.spare_length = (4, 12), 3
    trial.runner.encoder_joined.set()
    favoured: list[int] = []

    def favour(fps: int) -> None:
        favoured.append(trial.engine.clip_frames)

    trial.engine.favour = favour  # type: ignore[method-assign]
    chosen: list[RateChoice | None] = []
    thread = threading.Thread(target=lambda: chosen.append(trial.runner.run(favour=True)), daemon=True)
    thread.start()
    clips = TIMED_CLIPS + FOLLOWING_CLIPS
    for number in range(2 * clips):
        latents = trial.next_latents(thread)
        assert len(latents.latents) == (4 if number < clips else 3)
        if number >= clips:
            time.sleep(0.1)  # of 0.125 s
        trial.runner.confirm(latents)
    thread.join(20)
    assert chosen[0] is not None and (chosen[0].fps, chosen[0].clip_frames, chosen[0].notice) == (24, 4, "")
    assert trial.engine.clip_frames == 4
    assert favoured == [4] * clips + [3] * clips + [4]


def test_encoders_are_asked_for_the_finer_head_while_it_is_tried(tmp_path: Path) -> None:
    trial = Trial(tmp_path)
    trial.engine.heads = (True, False)
    trial.runner.encoder_joined.set()
    trial.start()
    decoded = trial.decode(TIMED_CLIPS + FOLLOWING_CLIPS)
    choice = trial.end()
    assert choice is not None and choice.fine
    assert {latents.decoder for latents in decoded} == {FINE_DECODER}


@pytest.mark.parametrize(("heads", "fine"), [((True, False), False), ((True,), True)])
def test_with_a_given_rate_the_settings_say_the_size(
    tmp_path: Path, heads: tuple[bool, ...], fine: bool
) -> None:
    trial = Trial(tmp_path, "--fps", "24")
    trial.engine.heads = heads
    trial.start()
    choice = trial.end()
    assert choice is not None and choice.fine is fine


def test_an_aborted_trial_leaves_the_length(tmp_path: Path) -> None:
    trial = Trial(tmp_path)
    trial.engine.clip_lengths = (4, 12)
    trial.runner.encoder_joined.set()
    trial.start()
    trial.next_latents()
    assert trial.engine.clip_frames == 4
    trial.runner.abort()
    assert trial.end() is None
    assert trial.engine.clip_frames == 12
    assert not trial.engine.favoured


def test_no_more_clips_are_sent_than_a_session_has_in_flight(tmp_path: Path) -> None:
    trial = Trial(tmp_path)
    trial.runner.encoder_joined.set()
    trial.start()
    for _ in range(CLIPS_IN_FLIGHT):
        trial.next_latents()
    time.sleep(0.1)
    assert not trial.runner.outbox
    trial.runner.abort()
    assert trial.end() is None


def test_an_aborted_trial_chooses_nothing_and_may_be_run_again(tmp_path: Path) -> None:
    trial = Trial(tmp_path)
    trial.runner.encoder_joined.set()
    trial.start()
    late = trial.next_latents()
    trial.runner.abort()
    assert trial.end() is None
    assert trial.engine.closed == ["_rate-0"]

    trial.runner.outbox.clear()
    trial.runner.rearm()
    trial.start()
    first = trial.next_latents()
    # The clips of the two runs are told apart by their epochs.
    assert first.epoch > late.epoch
    for _ in range(TIMED_CLIPS + FOLLOWING_CLIPS):
        trial.runner.confirm(late)
    trial.runner.confirm(first)
    trial.decode(TIMED_CLIPS + FOLLOWING_CLIPS - 1)
    choice = trial.end()
    assert choice is not None
    assert choice.fps == 24


def test_encoders_that_confirm_nothing_leave_the_choice_to_the_denoiser(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(runner_module, "ACK_WAIT", 0.1)
    trial = Trial(tmp_path)
    trial.runner.encoder_joined.set()
    trial.start()
    choice = trial.end()
    assert choice is not None
    assert choice.fps == 24
    assert "no encoder confirmed the trial's clips" in caplog.text


def test_a_given_rate_is_timed_without_encoders(tmp_path: Path) -> None:
    trial = Trial(tmp_path, "--fps", "12")
    trial.start()
    choice = trial.end()
    assert choice is not None
    assert (choice.fps, choice.notice) == (12, "")
    assert trial.engine.rates == [12]
    assert not trial.runner.outbox


def test_on_a_gpu_a_given_rate_is_timed_by_clips_that_follow_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a late start a first clip takes twice as long. One slow clip of a few does not decide."""
    trial = Trial(tmp_path, "--fps", "24")
    trial.engine.device_type = "cuda"
    for took, wanted, left in (
        ([0.21, 0.105, 0.105, 0.13, 0.104, 0.105, 0.105], 0.105, 1),
        ([0.6, 0.58, 0.5], 0.58, 1),
    ):
        times = iter(took)
        monkeypatch.setattr(TrialRunner, "_denoise", lambda *_, times=times: (None, next(times)))
        trial.start()
        choice = trial.end()
        assert choice is not None and choice.clip_seconds == wanted
        assert len(list(times)) == left and not trial.runner._inputs
