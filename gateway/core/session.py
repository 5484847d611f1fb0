"""One client's session, without its socket: PCM in, work out; frames in, messages out.

A session is a row of epochs. Changed options or a changed rate start a new one: positions begin at 0 again
and whatever an older epoch still has under way is dropped.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gateway.core.audio_log import AudioLog, ClipShape, Piece
from gateway.core.figures import Rate
from gateway.core.pace import PacedInput
from gateway.core.players import AckedPlayer, Outgoing, PacedPlayer, Player, Sound
from gateway.core.reorder import ClipBegins, ClipEnds, Picture, Reorderer
from protocol.wire.browser import AudioMessage, BrowserError, Shown, VideoMessage
from protocol.wire.figures import CLIP_TIME_BOUNDS_MS, Histogram, Summary
from protocol.wire.messages import Failed, Frame, Pcm

log = logging.getLogger(__name__)

Samples = npt.NDArray[np.float32]

#: Work is handed on in pieces of at least this many seconds, unless a clip ends or as much time has passed.
LEAST_WORK = 0.01
#: Pieces that may wait for the audio worker, and more.
REMEMBERED_PIECES = 256
#: Clips by which a client may be behind for their latency to be still counted.
PLAYED_LATEST = 64


@dataclass(frozen=True)
class Choice:
    """What a session runs with."""

    avatar: str
    pose: str
    shape: ClipShape
    sample_rate: int
    width: int = 0
    height: int = 0


@dataclass(frozen=True)
class Limits:
    """Seconds. `idle`: pause after which a begun clip is flushed. `clip`: longest wait for a clip from its
    last sample or the session's last picture on; `overtaken`: from when a later one is all there. `shown`:
    longest time for which a client may show nothing that it was sent."""

    idle: float = 0.3
    clip: float = 15.0
    overtaken: float = 7.0
    shown: float = 10.0


class SessionCore:
    """All state of one session. Times are seconds on one monotonic clock; nothing here waits."""

    def __init__(
        self,
        name: str,
        version: int,
        choice: Choice,
        limits: Limits,
        now: float,
        first_frames: Histogram | None = None,
    ) -> None:
        """`first_frames`: where the gateway counts the delays of all sessions' first frames."""
        self.name = name
        self.began_at = now
        self.version = version
        self.choice = choice
        self.limits = limits
        self.epoch = 0
        self.fatal: BrowserError | None = None
        self.latency = Summary()
        self._first_frames = first_frames or Histogram(CLIP_TIME_BOUNDS_MS)
        self.frame_rate = Rate()
        self.frames_sent = 0
        self.clips_done = 0
        self.clips_failed = 0
        self.frames_lost = 0
        self.duplicates = 0
        self.failure = ""  # why the last clip failed
        self._input = PacedInput(choice.sample_rate)
        self._player: Player = (PacedPlayer if version == 1 else AckedPlayer)(choice.shape)
        self._last_audio = now
        self._last_work = now
        self._last_frame = now
        self._flush_asked = False
        self._begin(0)

    def __str__(self) -> str:
        choice, shape = self.choice, self.choice.shape
        return (
            f"avatar {choice.avatar}, pose {choice.pose}, {shape.fps} fps, {self.clips_done} clips,"
            f" {self.frames_sent} frames sent, {self.frames_late} late, {self.frames_dropped} dropped,"
            f" {self.frames_lost} lost"
        )

    def _begin(self, position: int) -> None:
        self._log = AudioLog(self.choice.shape, self.choice.sample_rate, position)
        self._order = Reorderer(self.choice.shape.frames, self._log.complete)
        self._pcm_seq = 0
        self._clip_of: dict[int, int] = {}  # seq of a Pcm sent lately → the clip it belongs to
        self._overtaken = (-1, 0.0)  # the next clip, and since when a later one is there
        self._unsent_clips: set[int] = set()  # clips whose PCM a full queue pushed out
        self._ended: dict[int, float] = {}  # clip begun, first picture not sent -> when its last sample came

    def restart(self, choice: Choice) -> None:
        """Go on in a new epoch with `choice`; samples of the clip being filled go into the new one."""
        self.frames_lost += self.clips_waiting * self.choice.shape.frames
        left = self._log.take_partial()
        position = self._log.position
        if choice.sample_rate == self._log.rate:
            self._input.put_back(left)
        else:
            position += len(left) + self._input.waiting
            self._input = PacedInput(choice.sample_rate)
        self.epoch += 1
        self.choice = choice
        self._player.restart(choice.shape)
        self._begin(position)

    # ---- from the client

    @property
    def full(self) -> bool:
        """Stop reading from the client: enough waits."""
        return self._input.full

    def hear(self, samples: Samples, now: float) -> None:
        """Samples from the client. Raises BrowserError("too_fast")."""
        if len(samples):
            self._input.put(samples)
            self._last_audio = now

    def flush_soon(self) -> None:
        """The client has stopped speaking."""
        self._flush_asked = True

    def shown(self, what: Shown, now: float) -> None:
        self._player.shown(what, now)

    # ---- to the audio worker

    def work(self, now: float, queued: int) -> list[Pcm]:
        """What goes to the audio worker now. The more pieces are `queued`, the larger the next one is."""
        seconds = LEAST_WORK * (1 + queued)
        least = min(seconds * self._log.rate, self._log.missing)
        if self._input.waiting < least and now - self._last_work < seconds:
            return []
        self._last_work = now
        pieces = self._log.append(self._input.take(now), now)
        if not self._input.waiting:
            asked, self._flush_asked = self._flush_asked, False
            if asked or now - self._last_audio >= self.limits.idle:
                padding = self._log.missing / self._log.rate if self._log.partial else 0.0
                flushed = self._log.flush(now)
                if flushed is not None:
                    self._input.charge(padding, now)
                    pieces.append(flushed)
        return [self._pcm(piece) for piece in pieces]

    def wait_work(self, now: float) -> float:
        """Seconds until `work` may give something by itself."""
        waits = [self.limits.idle]
        paced = self._input.wait(now)
        if paced is not None:
            waits.append(max(LEAST_WORK, paced))
        if self._log.partial:
            waits.append(self._last_audio + self.limits.idle - now)
        return max(0.001, min(waits))

    def _pcm(self, piece: Piece) -> Pcm:
        seq, self._pcm_seq = self._pcm_seq, self._pcm_seq + 1
        self._clip_of[seq] = piece.clip
        self._clip_of.pop(seq - REMEMBERED_PIECES, None)
        return Pcm(
            session=self.name,
            epoch=self.epoch,
            seq=seq,
            pts=piece.pts,
            sample_rate=self._log.rate,
            fps=self.choice.shape.fps,
            clip_frames=self.choice.shape.frames,
            avatar=self.choice.avatar,
            pose=self.choice.pose,
            flush=piece.flush,
            samples=piece.samples,
        )

    # ---- from the stages

    def frame(self, frame: Frame, now: float) -> bool:
        """A picture from an encoder; False for one of an older epoch or seen before, which is dropped."""
        if frame.epoch != self.epoch or not self._order.frame(frame):
            self.duplicates += 1
            return False
        self._last_frame = now
        self._advance(now)
        return True

    def clip_complete(self, epoch: int, seq: int) -> bool:
        """Whether the encoder that sent this clip may forget it."""
        return epoch < self.epoch or self._order.complete(seq)

    def failed(self, failed: Failed, now: float) -> None:
        """A stage says that a clip will not come."""
        if failed.epoch != self.epoch:
            return
        if failed.fatal:
            self.fatal = BrowserError("failed", f"{failed.stage}: {failed.reason}")
        elif self._skip(failed.seq, failed.reason):
            self._advance(now)

    def pushed_out(self, pcm: Pcm, now: float) -> None:
        """The queue to the audio worker was full and gave up this piece: its clip cannot be made."""
        if pcm.epoch == self.epoch and pcm.seq in self._clip_of:
            self._unsent_clips.add(self._clip_of[pcm.seq])
            self.tick(now)

    def tick(self, now: float) -> None:
        """Give up clips that cannot come or that have been waited for too long."""
        for clip in [c for c in self._unsent_clips if self._log.complete(c)]:
            self._unsent_clips.discard(clip)
            self._skip(clip, "overload: no audio worker took the sound")
        while self._log.complete(self._order.next_seq):
            waited, limit = self._waited(now)
            if waited < limit or not self._skip(self._order.next_seq, f"not all there within {limit:g} s"):
                break
            self._advance(now)
        self._advance(now)
        if self._player.stalled(now) > self.limits.shown:
            self.fatal = BrowserError(
                "slow_client", f"nothing was shown for {self.limits.shown:g} s of what was sent"
            )

    def _waited(self, now: float) -> tuple[float, float]:
        """How long the next clip has been waited for, and how long it may be."""
        clip = self._order.next_seq
        if self._order.overtaken:
            if self._overtaken[0] != clip:
                self._overtaken = clip, now
            return now - self._overtaken[1], self.limits.overtaken
        # while pictures of this session come, the stages are slow and not stuck: their queues are short
        return now - max(self._log.audio(clip).ended_at, self._last_frame), self.limits.clip

    def _skip(self, clip: int, why: str) -> bool:
        if not self._order.fail(clip):
            return False
        self.failure = why
        log.warning("session %s: the pictures of clip %d are skipped: %s", self.name, clip, why)
        return True

    def _advance(self, now: float) -> None:
        for item in self._order.pop():
            if isinstance(item, ClipBegins):
                audio = self._log.audio(item.seq)
                self._ended[item.seq] = audio.ended_at
                message = AudioMessage(
                    audio.samples, self.epoch, item.seq, audio.pts, audio.position, item.pictures
                )
                self._player.push(Sound(message, audio), now)
            elif isinstance(item, Picture):
                f = item.frame
                self._player.push(VideoMessage(f.jpeg, f.epoch, f.seq, f.index, f.count, f.pts), now)
            elif isinstance(item, ClipEnds):
                self.frames_lost += item.missing
                self.clips_failed += item.missing > 0
                self.clips_done += 1
                self._log.release(item.seq)
                self._ended.pop(item.seq - PLAYED_LATEST, None)

    # ---- to the client

    def outgoing(self, now: float, room: bool) -> list[Outgoing]:
        """Messages to send now. `room` False: the connection's buffer is full."""
        out = self._player.pull(now, room)
        for message in out:
            if message.first_of is not None and message.first_of in self._ended:
                delay = now - self._ended.pop(message.first_of)
                self.latency.add(delay)
                self._first_frames.add(delay)
            if message.picture:
                self.frames_sent += 1
                self.frame_rate.add(now)
        return out

    def wait_outgoing(self, now: float) -> float | None:
        return self._player.wait(now)

    @property
    def frames_late(self) -> int:
        return self._player.clock.late_pictures

    @property
    def frames_dropped(self) -> int:
        """Pictures that came but that the client was too slow for."""
        return self._player.dropped

    @property
    def seconds_waiting(self) -> float:
        """Sound that has come and is not yet on its way to the audio worker."""
        return self._input.waiting / self._log.rate

    @property
    def clips_waiting(self) -> int:
        """Complete clips whose pictures have not all come."""
        return self._log.clip - self._order.next_seq
