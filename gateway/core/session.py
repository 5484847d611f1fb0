"""One client's session without its socket.

Speech goes in and Pcm messages come out. Frames go in and messages for the client come out.

A session is a row of epochs. Changed options or a changed frame rate start a new one. Positions then begin at
0 again, and results of an older epoch that are still under way are dropped.
"""

from __future__ import annotations

import logging

from gateway.core.audio_log import AudioLog
from gateway.core.late_clips import Overtaking, sound_due
from gateway.core.options import SessionLimits, SessionOptions
from gateway.core.pace import PacedInput
from gateway.core.pcm_maker import PcmMaker
from gateway.core.phased_session import PhasedSession
from gateway.core.players import ClipSound, OutgoingMessage, player_of
from gateway.core.reorder import ClipBegins, ClipEnds, NextFrame, Reorderer
from gateway.core.shown_places import ShownPlaces
from gateway.core.spoken_session import LEAST_PCM_SECONDS
from gateway.core.tapped import TappedPlayer
from protocol.wire.browser import AudioMessage, BrowserError, VideoMessage
from protocol.wire.clock import pts_after
from protocol.wire.controls import Resume, Shown
from protocol.wire.figures import Histogram
from protocol.wire.messages import Failed, Frame, Pcm, Samples

logger = logging.getLogger(__name__)

#: Seconds after its last sample for which sound that is catching up waits to be cut.
GATHERED_WITHIN = 0.15


class SessionCore(PhasedSession):
    """All state of one session. Times are seconds on one monotonic clock. No method waits."""

    def __init__(
        self,
        name: str,
        version: int,
        options: SessionOptions,
        limits: SessionLimits,
        now: float,
        first_frames: Histogram | None = None,
        *,
        epoch: int = 0,
        position: int = 0,
        repeat_to: int = 0,
    ) -> None:
        """Begin an epoch.

        Args:
            name: the session's id.
            version: of the browser wire, 1 or 2.
            options: the first epoch's.
            limits: how long to wait.
            now: the time.
            first_frames: where the gateway counts the delays of all sessions' first frames.
            epoch: the first one's number.
            position: samples that the client sent before, to a gateway that is gone.
            repeat_to: frames a second that a client of version 1 counts on.
        """
        super().__init__(first_frames)
        self.name = name
        self.version = version
        #: Whether the client's sound is a live one, which catches up when it is late.
        self.live = False
        self.options = options
        self.limits = limits
        self.began_at = now
        self.epoch = epoch
        #: Samples that have come from the client.
        self.received = position
        #: Whether the client's connection is lost, so that nothing can be shown.
        self.parked = False
        #: Set when the session cannot go on. The owner of the session ends it.
        self.fatal: BrowserError | None = None
        #: Whether a stage has no worker, so that speech is kept here and its sound goes on alone.
        self.outage = ""
        #: Speech on its way in.
        self.input = PacedInput(options.sample_rate)
        #: The player, with a place for a recorder.
        self._player = self.tapped = TappedPlayer(player_of(version, options.shape, repeat_to))
        #: When the last sample came.
        self.speech_at = now
        self._pcm_at = now
        self._frame_at = now
        self._flush_asked = False
        self._told_failure = ""
        self._begin_epoch(position, None)

    def __str__(self) -> str:
        options, shape = self.options, self.options.shape
        return (
            f"avatar {options.avatar}, pose {options.pose}, {shape.fps} fps, {self.clips_done} clips,"
            f" {self.frames_sent} frames sent, {self.frames_late} late, {self.frames_dropped} dropped,"
            f" {self.frames_lost} lost"
        )

    def _begin_epoch(self, position: int, history: Samples | None) -> None:
        self._places = ShownPlaces()
        self._log = AudioLog(self.options.shape, self.options.sample_rate, position, history)
        #: Messages of the new epoch with the speech of the old one that was not played yet.
        self._carried: list[Pcm] = []
        self._reorderer = Reorderer(self.options.shape.frames, self._log.complete)
        self._pcm = PcmMaker(self.name, self.epoch, self.options, history)
        self._overtaking = Overtaking()
        self.frames_of_clip = self.options.shape.frames
        #: Clips of which a full queue pushed out some Pcm.
        self._unsent_clips: set[int] = set()
        self._unanswered = {}
        self._held = {}
        self.life.restart()

    def restart(self, options: SessionOptions, now: float) -> None:
        """Go on in a new epoch, with these options and with workers that know nothing of the one before.

        Speech whose sound was not played yet goes into the new epoch, with the sound before it as history.
        """
        first = self._reorderer.next_seq + self._reorderer.begun
        self.frames_lost += self._reorderer.left
        spoken_at = self._log.audio(first).ended_at if self._log.complete(first) else now
        speech = self._log.take_from(first)
        position, history = self._log.position, self._log.history
        if options.sample_rate != self._log.rate:
            # Samples of another rate cannot be joined: they count as spoken.
            speech, history = speech[:0], history[:0]
            self.says.interrupt()
            position = self.says.place
            self.input = PacedInput(options.sample_rate)
        self.epoch += 1
        self.outage = ""
        self.options = options
        self._player.restart(options.shape)
        self._begin_epoch(position, history)
        for part, ends in self.says.parts_of(position, speech):
            pieces = self._log.append(part, spoken_at)
            if ends and (flushed := self._log.flush(spoken_at)):
                pieces.append(flushed)
            self._carried += [self._pcm.make(piece) for piece in pieces]

    def interrupt(self, now: float) -> dict[str, int | None]:
        """Drop all speech that waits or is under way, and begin a new epoch.

        Returns:
            The fields of `interrupted`: the new epoch, pts of the last frame of the old one that the client
            has shown, or None, and the samples that the client had sent.
        """
        self._log.take_from(self._reorderer.next_seq + self._reorderer.begun)
        self.says.interrupt()
        self.input = PacedInput(self.options.sample_rate)
        self._flush_asked = False
        self.epoch += 1
        self._player.restart(self.options.shape)
        self._player.interrupt()
        self._events.interrupted(now)
        shown = self._places.last
        self._begin_epoch(self.says.place, self._log.history)
        return {"epoch": self.epoch, "pts": shown, "position": self.received}

    def resume(self, resume: Resume, now: float) -> None:
        """The client is back on another connection: what it does not have is sent again."""
        self.parked = False
        self.speech_at = now  # the time without a connection is no pause in its speech
        self._player.resume(resume, now)

    def begin_outage(self, why: str) -> None:
        """A stage has no worker: hand out no speech. The sound of each clip goes on alone at its turn."""
        self.outage = why

    # ---- from the client

    def frame_shown(self, shown: Shown, now: float) -> bool:
        """The client has shown this frame, or passed it over. Returns whether others wait for it."""
        if shown.on_screen and shown.epoch == self.epoch:
            self._places.shown(shown)
        return self._player.frame_shown(shown, now)

    # ---- to the audio worker

    def next_pcm(self, now: float, waiting: int) -> list[Pcm]:
        """The Pcm messages to send now.

        Args:
            now: the time.
            waiting: Pcm messages of this session that wait for a worker. The more wait, the larger the next
                one is.
        """
        carried, self._carried = self._carried, []
        if not self._pcm_due(now, waiting):
            return carried + self._live_on(now)
        if self.live and not self.says.busy:
            self._log.skip(self.input.catch_up(now))
            if self.input.gathering and now - self.speech_at < GATHERED_WITHIN:
                return carried
        if self._word_begins(now):
            return carried + self._live_on(now)
        self._pcm_at = now
        samples, cut = self._take_speech(now)
        pieces = self._append_speech(samples, now)
        self._log.skip(cut)
        ends, self.input.at_end = self.input.at_end, False
        if ends or not self.input.waiting:
            asked, self._flush_asked = self._flush_asked or ends, False
            if asked or (now - self.speech_at >= self.limits.idle and now >= self._clip_due):
                padding = self._log.missing / self._log.rate if self._log.partial else 0.0
                flushed = self._log.flush(now)
                if flushed is not None:
                    self.input.charge(padding, now)
                    pieces.append(flushed)
        messages = carried + [self._pcm.make(piece) for piece in pieces] + self._live_on(now)
        return [] if self.outage else messages

    def seconds_until_pcm(self, now: float) -> float:
        """Seconds until `next_pcm` may give something without new speech."""
        waits = [self.limits.idle]
        paced = self.input.wait(now)
        if paced is not None:
            waits.append(max(LEAST_PCM_SECONDS, paced))
        if self._log.partial:
            waits.append(max(self.speech_at + self.limits.idle, self._clip_due) - now)
        return max(0.001, min(*waits, self._ask_for_life_at(now) - now))

    # ---- from the stages

    def add_frame(self, frame: Frame, now: float) -> bool:
        """Take a frame from an encoder. False for one of an older epoch or seen before, which is dropped."""
        if frame.epoch != self.epoch or not self._reorderer.add_frame(frame):
            self.duplicates += 1
            return False
        self._frame_at = now
        self.count_made(frame)
        self._hold_back(frame, now)
        if not self.life.made(frame.seq):
            while self.life.made(self._reorderer.next_seq):  # speech does not wait for idle life
                self._reorderer.fail(self._reorderer.next_seq)
                self._play_ordered(now)
        self._play_ordered(now)
        return True

    def clip_complete(self, epoch: int, seq: int) -> bool:
        """Whether no more frames of this clip are wanted. The encoder that sent it may then forget it."""
        return epoch < self.epoch or self._reorderer.complete(seq)

    def clip_failed(self, failed: Failed, now: float) -> None:
        """A stage says that a clip will not come."""
        if failed.epoch != self.epoch:
            return
        if failed.fatal:
            self.fatal = BrowserError("failed", f"{failed.stage}: {failed.reason}", failed.reason)
        elif self._skip_clip(failed.seq, failed.reason):
            self._play_ordered(now)

    def pcm_pushed_out(self, pcm: Pcm, now: float) -> None:
        """The full queue to the audio workers dropped this message: its clip cannot be made."""
        clip = self._pcm.clip_of(pcm.seq) if pcm.epoch == self.epoch else None
        if clip is not None:
            self._unsent_clips.add(clip)
            self.check_limits(now)

    def check_limits(self, now: float) -> None:
        """Give up clips that cannot come or are waited for too long, and a client that shows nothing.

        The sound of a clip that is late goes out ahead of its frames.
        """
        for clip in [c for c in self._unsent_clips if self._log.complete(c)]:
            self._unsent_clips.discard(clip)
            self._skip_clip(clip, "overload: no audio worker took the sound")
        while self._log.complete(self._reorderer.next_seq):
            waited, limit = self._wait_for_next_clip(now)
            reason = f"not complete within {limit:g} s"
            if waited < limit or not self._skip_clip(self._reorderer.next_seq, reason):
                break
            self._play_ordered(now)
        self._play_ordered(now)
        self._play_sound_on(now)
        if not self.parked and self._player.stalled(now) > self.limits.shown:
            self.fatal = BrowserError(
                "slow_client", f"the client showed none of its frames for {self.limits.shown:g} s"
            )

    def _play_sound_on(self, now: float) -> None:
        """Send the sound whose frames are not there in time. They may come until the next clip begins."""
        while self._log.complete(self._reorderer.next_seq):
            begun = self._reorderer.begun
            clip = self._reorderer.next_seq + begun
            if not self._log.complete(clip):
                return
            if now < sound_due(self._log.audio(clip), self._player.clock.end, bool(self.outage), self.limits):
                return
            if begun:
                self._skip_clip(clip - 1, self.outage or "its pictures came later than its sound could wait")
            else:
                self._reorderer.begin_sound()
            self._play_ordered(now)

    def _wait_for_next_clip(self, now: float) -> tuple[float, float]:
        """How long the next clip has been waited for, and how long it may be."""
        clip = self._reorderer.next_seq
        if self._reorderer.overtaken:
            return self._overtaking.waited(clip, now), self.limits.overtaken
        # While frames of this session come, the stages are slow and not stuck: their queues are short.
        return now - max(self._log.audio(clip).ended_at, self._frame_at), self.limits.clip

    def _skip_clip(self, clip: int, why: str) -> bool:
        if not self._reorderer.fail(clip):
            return False
        self.last_failure = why
        if why != self._told_failure:  # one line for a row of them
            self._told_failure = why
            logger.warning("session %s: the frames of clip %d are skipped: %s", self.name, clip, why)
        return True

    def _play_ordered(self, now: float) -> None:
        """Move everything that is next in order from the reorderer to the player."""
        if self._seconds_held(now) is not None:
            return
        for item in self._reorderer.pop():
            if isinstance(item, ClipBegins):
                audio = self._log.audio(item.seq)
                if audio.idle:
                    self.life.begins(item.seq, now)
                    continue
                for frame in self.life.take_rest():
                    self._player.push(frame, now)
                if not audio.silence:
                    self._unanswered[item.seq] = audio.ended_at
                message = AudioMessage(
                    audio.samples, self.epoch, item.seq, audio.pts, self.says.client_position(audio.position),
                    item.has_frames, self.options.int16, self.says.is_text(audio.position),
                )  # fmt: skip
                end_pts = audio.pts + pts_after(len(audio.samples), self._log.rate)
                if self.live and item.silent:
                    self._events.silent_clip(self.epoch, audio.pts, now)
                else:
                    self._events.clip_begins(self.epoch, audio.pts, end_pts)
                self._player.push(ClipSound(message, audio), now)
                self.says.clip_begins(audio, self._log.rate, self._player.clock.start)
            elif isinstance(item, NextFrame):
                f = item.frame
                if self._in_silence(f):
                    continue
                self._places.sent(f)
                idle = self.life.made(f.seq)
                video = VideoMessage(f.data, f.epoch, f.seq, f.index, f.count, f.pts, f.codec, f.key, idle)
                if idle:
                    seconds = self.options.shape.seconds / f.count
                    self.life.push(video, seconds, self._player.clock.end)
                else:
                    self._player.push(video, now)
            elif isinstance(item, ClipEnds):
                if self._log.release(item.seq).idle:
                    self.life.ends(item.seq)
                    continue
                self.count_end(item)
                if not item.missing:
                    self._told_failure = ""

    # ---- to the client

    def next_messages(self, now: float, writable: bool) -> list[OutgoingMessage]:
        """The messages to send now. `writable` is False while the connection's buffer is full."""
        if self._held:
            self._play_ordered(now)
        for frame in self.life.pull(now, self._first_frame_at(now)):
            self._player.push(frame, now)
        out = self._player.pull(now, writable)
        more = self._speech_waits or bool(self.says.saying())
        self._events.look(now, self._player.clock.end, more)
        self.says.look(now)
        for message in out:
            self.count_sent(message, now)
        return out

    def seconds_until_message(self, now: float) -> float | None:
        """Seconds until `next_messages` may give something by itself. None: only an event can change that."""
        waits = self._player.wait(now), self.life.wait(now), self._seconds_held(now)
        return min((wait for wait in waits if wait is not None), default=None)

    @property
    def fps(self) -> int:
        """Frames a second of the clip that came last."""
        return round(self.frames_of_clip / self.options.shape.seconds)

    @property
    def clips_waiting(self) -> int:
        """Complete clips whose frames have not all arrived."""
        return self._log.clip - self._reorderer.next_seq
