"""Stands in for the gateway: pours a sound into the workers as fast as they take it, and collects pictures.

The gateway lets sound through at real time, which a film does not need. This serves the same two sockets, the
`pcm` hop and `results`, with one session, and confirms clips as the gateway does.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping

from protocol.hop.server import WorkerLost
from protocol.process.settings import Settings
from protocol.wire.clock import (
    FULL_RATE,
    SAMPLE_RATE,
    clip_at,
    first_frame_from,
    frames_of_clip,
    pts_of_clip,
)
from protocol.wire.messages import Close, Failed, Frame, Pcm, Samples, Status
from scripts.render.clips import ClipLedger
from scripts.render.errors import RenderError, Stopped
from scripts.render.gateway_sockets import GatewaySockets

logger = logging.getLogger(__name__)

SESSION = "render"
#: Sound before an epoch that its first clips are heard with: Whisper's window, in samples.
HISTORY = 24_000
#: Seconds for which every worker is warm before sound is sent: each finds the next one meanwhile. After a
#: failure the loss of a worker is noticed within them.
GREETING = 1.0
#: Seconds after its last Status in which a worker counts as warm.
STATUS_LASTS = 3.0
#: Seconds beyond --stall-after without a picture, with every stage warm, until clips are sent again.
PATIENCE = 30.0
#: Milliseconds that one turn waits for messages.
TURN_MS = 50
#: Pictures written between two looks at the sockets, so that no worker takes this process for dead.
PICTURES_A_TURN = 4


class FilmGateway:
    """The gateway's place for one film. All methods belong to one thread.

    Args:
        settings: of the run. `fps` is given.
        avatar: id.
        pose: id.
        workers: tells how many are to be warm, by stage. Those that were given up do not count.
        stop: when set, `pour` ends.

    Raises:
        EndpointError: an address cannot be bound.
    """

    def __init__(
        self,
        settings: Settings,
        avatar: str,
        pose: str,
        workers: Callable[[], Mapping[str, int]],
        stop: threading.Event,
    ) -> None:
        self._avatar, self._pose = avatar, pose
        self._workers = workers
        self._stop = stop
        self._sockets = GatewaySockets(settings)
        self._hop, self._results = self._sockets.hop, self._sockets.results
        #: When each worker last said that it is warm, by stage and name.
        self._warm: dict[tuple[str, str], float] = {}
        self._fps = settings.fps or FULL_RATE
        self._clip_frames = frames_of_clip(self._fps, settings.frames_a_clip)
        self._patience = settings.stall_after + PATIENCE
        self._samples: Samples
        self._clips: ClipLedger
        self._messages = 0
        self._came_at = 0.0
        #: Since when every stage is warm. Infinite while one is not.
        self._whole_since = float("inf")
        #: When the failure was noticed that waits for every stage to be warm.
        self._failed_at: float | None = None

    def close(self) -> None:
        """Close both sockets."""
        self._sockets.close()

    def wait_warm(self, tell: Callable[[str], None]) -> None:
        """Wait until every stage is warm, and `GREETING` more.

        Args:
            tell: is called with the stages that are waited for, when they change.

        Raises:
            Stopped: told to stop before.
        """
        self._clips = ClipLedger(0, self._clip_frames)
        told = ""
        while time.monotonic() - self._whole_since < GREETING:
            self._turn(TURN_MS)
            waiting = ", ".join(self._cold_stages())
            if waiting and waiting != told:
                told = waiting
                tell(waiting)

    def pour(self, samples: Samples, take: Callable[[bytes], None]) -> None:
        """Send the sound and hand out its pictures, in order and without a gap.

        Args:
            samples: float32 (n,) at 16 kHz.
            take: is called with each JPEG.

        Raises:
            RenderError: the film cannot be made.
            Stopped: told to stop before the end.
        """
        last = clip_at(len(samples) - 1, self._fps, self._clip_frames)
        left = first_frame_from(len(samples), self._fps)
        self._samples, self._clips = samples, ClipLedger(last + 1, self._clip_frames)
        self._came_at = time.monotonic()
        ready: deque[bytes] = deque()
        while left:
            if not ready:
                self._recover_or_send()
            self._turn(0 if ready else TURN_MS)
            while (clip := self._clips.take_clip()) is not None:
                self._came_at = time.monotonic()
                ready += clip
            for _ in range(min(PICTURES_A_TURN, left, len(ready))):
                take(ready.popleft())
                left -= 1
            self._check_patience()
        self._hop.broadcast(Close(SESSION, self._clips.epoch))

    # ------------------------------------------------------------------ sound out

    def _recover_or_send(self) -> None:
        """Send sound while every stage is there. After a failure begin again, when every stage is there."""
        now = time.monotonic()
        if reason := self._clips.failure:
            self._failed_at = now if self._failed_at is None else self._failed_at
            if now - max(self._whole_since, self._failed_at) >= GREETING:
                # A clip fails for no fault of its own where a stage had gone.
                self._begin_again(reason, counts=self._whole_since < self._failed_at)
        elif self._whole_since <= now:
            self._send_clips()

    def _send_clips(self) -> None:
        while (clip := self._clips.next_to_send()) is not None:
            start, end = (pts_of_clip(each, self._fps, self._clip_frames) for each in (clip, clip + 1))
            history = min(HISTORY, start) if self._messages == 0 else 0
            shape = (SAMPLE_RATE, self._fps, self._clip_frames)
            samples = self._samples[start - history : end]
            flush = end > len(self._samples)  # the last clip is filled up with silence
            names = (self._avatar, self._pose)
            place = (SESSION, self._clips.epoch, self._messages, start)
            self._hop.dispatch(Pcm(*place, *shape, *names, flush, samples, history))
            self._messages += 1

    def _begin_again(self, reason: str, *, counts: bool) -> None:
        self._hop.broadcast(Close(SESSION, self._clips.epoch))
        clip = self._clips.begin_again(reason, counts=counts)
        self._messages = 0
        self._failed_at = None
        self._came_at = time.monotonic()
        logger.warning("clip %d is made again: %s", clip, reason)

    def _check_patience(self) -> None:
        now = time.monotonic()
        if self._whole_since > now:  # the supervisor starts a stage again, which may take long
            self._came_at = now
        elif now - self._came_at > self._patience:
            self._came_at = now
            self._give_up_waiting(f"no picture came for {self._patience:g} s")

    def _give_up_waiting(self, reason: str) -> None:
        self._clips.note_failure(self._clips.left, self._clips.epoch, reason)

    # ------------------------------------------------------------------ pictures in

    def _turn(self, wait_ms: int) -> None:
        if self._stop.is_set():
            raise Stopped
        self._sockets.wait(wait_ms)
        for event in self._hop.tick():
            if isinstance(event, WorkerLost) and SESSION in event.sessions:
                self._give_up_waiting(f"the audio worker was lost: {event.why}")
        for sender, message in self._results.recv():
            if isinstance(message, Status):
                self._note_status(message)
            elif message.session != SESSION:
                self._results.confirm_clip(sender, message.session, message.epoch, message.seq)
            elif isinstance(message, Failed):
                self._note_failure(message)
            elif isinstance(message, Frame) and self._clips.add_frame(message):
                self._results.confirm_clip(sender, message.session, message.epoch, message.seq)
        for lost in self._results.lost_workers():
            self._warm.pop(lost, None)
        is_whole = self._hop.workers > 0 and not self._cold_stages()
        self._whole_since = min(self._whole_since, time.monotonic()) if is_whole else float("inf")

    def _note_status(self, status: Status) -> None:
        if status.warm:
            self._warm[status.stage, status.worker] = time.monotonic()
        else:
            self._warm.pop((status.stage, status.worker), None)

    def _note_failure(self, failed: Failed) -> None:
        reason = f"{failed.stage}: {failed.reason}"
        if failed.fatal and failed.epoch == self._clips.epoch:
            raise RenderError(f"clip {failed.seq} cannot be made: {reason}")
        self._clips.note_failure(failed.seq, failed.epoch, reason)

    def _cold_stages(self) -> list[str]:
        """The stages that have fewer warm workers than the run."""
        now = time.monotonic()
        warm = [stage for (stage, _), at in self._warm.items() if now - at < STATUS_LASTS]
        return [stage for stage, count in self._workers().items() if warm.count(stage) < count]
