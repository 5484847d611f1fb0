"""The three stand-ins. They speak the real hops: PCM in, clips, latents, JPEG frames out.

A clip carries the loudness of each of its frames instead of audio features, and its latents carry the same
loudness with the avatar's number. The stand-in of the encoder draws a face from that.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import zmq

from encoder_worker.coders import ClipCoder, Coders
from encoder_worker.jpeg import JpegEncoder
from encoder_worker.jpeg_pool import JpegPool
from encoder_worker.video import CodedPicture
from gpu_worker.rate.thinning import thin_clip
from protocol.hop.client import HopClient, Job
from protocol.hop.results import ResultClient
from protocol.hop.server import HopServer
from protocol.hop.sockets import Context
from protocol.process.metrics import Metrics
from protocol.process.settings import Settings
from protocol.process.stage import resident_bytes
from protocol.wire import clock
from protocol.wire.limits import TOKEN_WIDTH
from protocol.wire.messages import (
    FINE_DECODER,
    Clip,
    ClipKey,
    Close,
    Failed,
    Frame,
    InfoValue,
    Latents,
    Pcm,
    Status,
)
from scripts.fake_stages.face import FacePainter

POSES = ["calm", "talk"]
STATUS_EVERY = 0.2
CREDIT = 8
_WAIT_MS = 20
#: Messages that the stand-ins remember for a test to look at.
_REMEMBERED = 4096


@dataclass
class FakeBehaviour:
    """How the stand-ins behave. It may be changed while they run."""

    #: Seconds from a clip's sound to its frames.
    delay: float = 0.0
    #: Clips answered with Failed, by number.
    failing_clips: set[int] = field(default_factory=set)
    #: Whether every clip ends its session with an error.
    fatal: bool = False
    #: Whether frames come out of order, and some of them twice.
    shuffle: bool = False
    #: The highest frame rate and the notice that the GPU worker reports.
    fps: int = 24
    #: Frames a second that it makes of it, as a machine that is busy does. None: all.
    made_fps: int | None = None
    notice: str = ""
    #: Whether the GPU worker asks for pictures of twice the side.
    fine: bool = False
    #: Whether own avatars come out as smears.
    smears: bool = False
    #: Sessions that the GPU worker says it serves. 0: it does not say.
    sessions: int = 0
    #: The stages that are warm.
    warm: tuple[str, ...] = ("audio_worker", "gpu_worker", "encoder_worker")


class FakeWorker:
    """A stand-in for one worker: a hop feeds it, and it sends results and a Status to the gateway."""

    def __init__(
        self, stage: str, context: Context, settings: Settings, behaviour: FakeBehaviour, takes: str
    ) -> None:
        self.stage = stage
        self.behaviour = behaviour
        self.metrics = Metrics()
        self.key = settings.hop_key()
        self.jobs = HopClient(context, [takes], stage=stage, worker="fake", credit=CREDIT, key=self.key)
        self.results = ResultClient(
            context, settings.endpoint("results"), stage=stage, worker="fake", key=self.key
        )
        self.out: HopServer | None = None
        self._status_at = 0.0

    @property
    def sockets(self) -> list[zmq.Socket[bytes]]:
        """Every socket to wait for."""
        return [*self.jobs.sockets, self.results.socket, *([self.out.socket] if self.out else [])]

    def step(self, now: float) -> None:
        """Take jobs, do the work that is due, report. Call it after every wake-up."""
        warm = self.stage in self.behaviour.warm
        if warm:
            self.jobs.heartbeat()
        for job in self.jobs.recv():
            if isinstance(job.msg, Close):
                self.close_session(job.msg)
            else:
                self.take(job, now)
        self.work(now)
        if self.out is not None:
            self.out.tick()
        for key in self.results.confirmed():
            self.clip_confirmed(key)
        if now >= self._status_at:
            self._status_at = now + STATUS_EVERY
            self.metrics.gauge("held_jobs", self.jobs.held)
            self.metrics.gauge("resident_bytes", resident_bytes())
            figures = self.metrics.snapshot(*([self.out.stats] if self.out else []))
            self.results.send(Status(self.stage, "fake", warm, self.info() if warm else {}, figures))

    def take(self, job: Job, now: float) -> None:
        """A new job."""
        raise NotImplementedError

    def work(self, now: float) -> None:
        """Do the work that became due since the last step."""

    def clip_confirmed(self, key: ClipKey) -> None:
        """The gateway has every frame of this clip."""

    def close_session(self, close: Close) -> None:
        """A session's epoch is over."""
        if self.out is not None:
            self.out.broadcast(close)

    def info(self) -> dict[str, InfoValue]:
        """The facts in Status, beside the figures."""
        return {}

    def close(self) -> None:
        """Close every socket."""
        self.jobs.close()
        self.results.close()
        if self.out is not None:
            self.out.close()


class FakeAudioWorker(FakeWorker):
    """PCM → clips of loudness. `received` has the latest Pcm messages."""

    def __init__(self, context: Context, settings: Settings, behaviour: FakeBehaviour) -> None:
        super().__init__("audio_worker", context, settings, behaviour, settings.endpoint("pcm"))
        self.out = HopServer(
            context, settings.endpoint("clips", 0), sticky=True, dead_after=settings.dead_after,
            name="clips", key=self.key,
        )  # fmt: skip
        self.received: deque[Pcm] = deque(maxlen=_REMEMBERED)
        #: Samples of the clips that are not complete, by session and epoch, then by clip.
        self._sound: dict[tuple[str, int], dict[int, list[npt.NDArray[np.float32]]]] = defaultdict(dict)

    def take(self, job: Job, now: float) -> None:
        """Add the samples to their clip and hand it on when it is complete."""
        assert isinstance(job.msg, Pcm)
        pcm = job.msg
        self.received.append(pcm)
        self.jobs.ack(job)
        clip = clock.clip_at(pcm.pts, pcm.fps, pcm.clip_frames)
        begin, end = (clock.pts_of_clip(each, pcm.fps, pcm.clip_frames) for each in (clip, clip + 1))
        clips = self._sound[pcm.session, pcm.epoch]
        if pcm.flush and not len(pcm.samples) and clip not in clips:
            return  # the clip was complete: only the resampler of a real worker holds something back
        parts = clips.setdefault(clip, [])
        parts.append(pcm.samples)
        if pcm.flush or sum(map(len, parts)) >= clock.samples_until(end - begin, pcm.sample_rate):
            del clips[clip]
            self._hand_on(pcm, clip, np.concatenate(parts))
            self.metrics.observe_clip(now - job.received_at)

    def close_session(self, close: Close) -> None:
        """Forget the session's samples and tell the next stage."""
        for session, epoch in list(self._sound):
            if session == close.session and epoch <= close.epoch:
                del self._sound[session, epoch]
        super().close_session(close)

    def _hand_on(self, pcm: Pcm, clip: int, sound: npt.NDArray[np.float32]) -> None:
        assert self.out is not None
        tokens = np.zeros((pcm.clip_frames, 1, TOKEN_WIDTH), np.float16)
        for index, part in enumerate(np.array_split(sound, pcm.clip_frames)):
            tokens[index, 0, 0] = np.sqrt(np.mean(part**2)) if len(part) else 0.0
        pts = clock.pts_of_clip(clip, pcm.fps, pcm.clip_frames)
        place = pcm.session, pcm.epoch, clip, pts, pcm.fps
        self.out.dispatch(Clip(*place, pcm.avatar, pcm.pose, tokens, pcm.codec))
        self.metrics.count("clips_total")


class FakeGpuWorker(FakeWorker):
    """Clips → latents, after the delay. `closed` has the latest Close messages."""

    def __init__(
        self, context: Context, settings: Settings, behaviour: FakeBehaviour, painter: FacePainter
    ) -> None:
        super().__init__("gpu_worker", context, settings, behaviour, settings.endpoint("clips", 0))
        self.out = HopServer(
            context, settings.endpoint("latents", 0), sticky=False, dead_after=settings.dead_after,
            name="latents", key=self.key,
        )  # fmt: skip
        self.closed: deque[Close] = deque(maxlen=_REMEMBERED)
        self._painter = painter
        self._waiting: deque[Job] = deque()

    def info(self) -> dict[str, InfoValue]:
        """The facts that a real GPU worker reports of its model."""
        size = self._painter.size * (2 if self.behaviour.fine else 1)
        return {
            "avatars": self._painter.names, "poses": POSES,
            "fps": self.behaviour.made_fps or self.behaviour.fps, "full_fps": self.behaviour.fps,
            "width": size, "height": size, "model": "drawn by fake_stages",
            "notice": self.behaviour.notice, "sessions": self.behaviour.sessions,
        }  # fmt: skip

    def take(self, job: Job, now: float) -> None:
        """Keep the clip until its time."""
        self._waiting.append(job)

    def work(self, now: float) -> None:
        """Hand on the clips whose delay is over."""
        while self._waiting and now - self._waiting[0].received_at >= self.behaviour.delay:
            job = self._waiting.popleft()
            assert isinstance(job.msg, Clip)
            self._answer(thin_clip(job.msg, self.behaviour.made_fps or job.msg.fps))
            self.jobs.ack(job)
            self.metrics.observe_clip(now - job.received_at)

    def close_session(self, close: Close) -> None:
        """Remember it and tell the encoder."""
        self.closed.append(close)
        super().close_session(close)

    def _answer(self, clip: Clip) -> None:
        assert self.out is not None
        if self.behaviour.fatal or clip.seq in self.behaviour.failing_clips:
            fatal = self.behaviour.fatal
            reason = "the model has a fault" if fatal else "overload"
            self.results.send(Failed(clip.session, clip.epoch, clip.seq, self.stage, reason, fatal))
            return
        person = self._painter.number_of(clip.avatar)
        if person is None:
            reason = f"there is no avatar {clip.avatar}"
            self.results.send(Failed(clip.session, clip.epoch, clip.seq, self.stage, reason, True))
            return
        latents = np.empty((len(clip.tokens), 1, 1, 2), np.float16)
        latents[:, 0, 0, 0] = clip.tokens[:, 0, 0]
        latents[:, 0, 0, 1] = person
        place = clip.session, clip.epoch, clip.seq, clip.pts, clip.fps
        decoder = FINE_DECODER if self.behaviour.fine else ""
        self.out.dispatch(Latents(*place, latents, clip.codec, decoder))
        self.metrics.count("clips_total")


class FakeEncoderWorker(FakeWorker):
    """Latents → drawn frames."""

    def __init__(
        self, context: Context, settings: Settings, behaviour: FakeBehaviour, painter: FacePainter
    ) -> None:
        super().__init__("encoder_worker", context, settings, behaviour, settings.endpoint("latents", 0))
        self._painter = painter
        self._coders = Coders(settings, JpegPool(JpegEncoder(), 1))
        self._coders.warm_up(painter.size, painter.size)
        self._unconfirmed: dict[ClipKey, list[Job]] = defaultdict(list)

    def take(self, job: Job, now: float) -> None:
        """Draw the clip and send its frames."""
        assert isinstance(job.msg, Latents)
        clip = job.msg
        self._unconfirmed[clip.session, clip.epoch, clip.seq].append(job)
        with self.metrics.time("clip_seconds"):
            coder = ClipCoder(self._coders, clip.codec, clip.fps)
            frames = [self._frame(clip, index, coder) for index in range(len(clip.latents))]
        if self.behaviour.shuffle:
            order = np.random.default_rng(clip.seq).permutation(len(frames))
            frames = [frames[index] for index in order] + frames[:3]
        for frame in frames:
            self.results.send(frame)
        self.metrics.count("clips_total")
        self.metrics.observe_clip(time.monotonic() - job.received_at)

    def clip_confirmed(self, key: ClipKey) -> None:
        """Acknowledge the clip's job."""
        for job in self._unconfirmed.pop(key, []):
            self.jobs.ack(job)

    def info(self) -> dict[str, InfoValue]:
        """The facts that a real encoder reports."""
        return {"codecs": self._coders.names}

    def _frame(self, clip: Latents, index: int, coder: ClipCoder) -> Frame:
        loudness, person = (float(value) for value in clip.latents[index, 0, 0])
        pts = clip.pts + clock.pts_of_frame(index, clip.fps)
        times = 2 if clip.decoder == FINE_DECODER else 1
        look = int(person), loudness, pts / clock.SAMPLE_RATE, self.behaviour.smears, times
        coded = CodedPicture(b"")
        if coder.codes_video:
            (coded,) = coder(np.asarray(self._painter.paint(*look))[None])
        data = coded.data or self._painter.draw(*look)
        place = clip.session, clip.epoch, clip.seq, index, len(clip.latents), pts
        size = times * self._painter.size
        return Frame(*place, size, size, data, coded.codec, coded.key)


class FakeStages(threading.Thread):
    """The three stand-ins in one thread, as a context manager.

    Attributes:
        behaviour: may be changed while the thread runs, one field at a time or as a whole.
    """

    def __init__(
        self, settings: Settings, painter: FacePainter, behaviour: FakeBehaviour | None = None
    ) -> None:
        super().__init__(name="fake stages", daemon=True)
        self._context: Context = zmq.Context()
        self._behaviour = behaviour or FakeBehaviour()
        self._settings = settings
        self._painter = painter
        self._stop_asked = threading.Event()
        self.audio = FakeAudioWorker(self._context, settings, self._behaviour)
        self.gpu = FakeGpuWorker(self._context, settings, self._behaviour, painter)
        self.encoder = FakeEncoderWorker(self._context, settings, self._behaviour, painter)

    @property
    def behaviour(self) -> FakeBehaviour:
        """The stand-ins' common behaviour."""
        return self._behaviour

    @behaviour.setter
    def behaviour(self, behaviour: FakeBehaviour) -> None:
        self._behaviour = behaviour
        for worker in self._workers:
            worker.behaviour = behaviour

    def __enter__(self) -> FakeStages:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_asked.set()
        self.join(5)

    @property
    def _workers(self) -> tuple[FakeWorker, ...]:
        return self.audio, self.gpu, self.encoder

    def run(self) -> None:
        """Work until the context manager's end."""
        poller = zmq.Poller()
        for worker in self._workers:
            for socket in worker.sockets:
                poller.register(socket, zmq.POLLIN)
        while not self._stop_asked.is_set():
            poller.poll(_WAIT_MS)
            for worker in self._workers:
                worker.step(time.monotonic())
        for worker in self._workers:
            worker.close()
        self._context.term()
