"""Everything behind the gateway in one thread: takes PCM from the hop, answers with drawn faces.

It speaks the real hop and results sockets. The picture says whose it is: its background is the avatar's
colour, and its mouth opens with the sound.
"""

from __future__ import annotations

import functools
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import simplejpeg
import zmq
from PIL import Image

from protocol.hop.client import HopClient
from protocol.hop.results import ResultClient
from protocol.process.metrics import Metrics
from protocol.process.settings import Settings
from protocol.wire.messages import Close, Failed, Frame, Pcm, Status

AVATARS = {"ada": (196, 92, 74), "bruno": (70, 120, 190), "chen": (90, 160, 110)}
POSES = ["calm", "talk"]
SIZE = 256


@functools.cache
def draw_on(picture: Path, level: int) -> bytes:
    """JPEG of a bundled avatar's picture with a mouth; its mouth opens from 0 to 15."""
    with Image.open(picture) as file:
        pixels = np.array(file.convert("RGB").resize((SIZE, SIZE)))
    y, x = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    if level > 1:
        pixels[((x - 0.5) / 0.055) ** 2 + ((y - 0.5) / (0.008 + 0.0025 * level)) ** 2 < 1] = (120, 30, 42)
    return simplejpeg.encode_jpeg(pixels, quality=88, colorspace="RGB")


@functools.cache
def draw(avatar: str, level: int, size: int = SIZE) -> bytes:
    """JPEG of a plain face; its mouth opens from 0 to 15."""
    y, x = np.mgrid[0:size, 0:size] / size
    picture = np.empty((size, size, 3), np.float32)
    picture[:] = AVATARS[avatar]
    picture *= (1.0 - 0.25 * y)[..., None]
    picture[((x - 0.5) / 0.42) ** 2 + ((y - 1.05) / 0.34) ** 2 < 1] = (60, 66, 88)
    picture[((x - 0.5) / 0.2) ** 2 + ((y - 0.45) / 0.27) ** 2 < 1] = (241, 205, 178)
    picture[((x - 0.5) / 0.21) ** 2 + ((y - 0.28) / 0.14) ** 2 < 1] = (70, 48, 40)
    for side in (-1, 1):
        picture[((x - 0.5 + side * 0.08) / 0.02) ** 2 + ((y - 0.43) / 0.026) ** 2 < 1] = (40, 40, 48)
    picture[((x - 0.5) / 0.07) ** 2 + ((y - 0.6) / (0.008 + 0.004 * level)) ** 2 < 1] = (150, 52, 60)
    return simplejpeg.encode_jpeg(picture.astype(np.uint8), quality=85, colorspace="RGB")


def avatar_of(jpeg: bytes) -> str:
    """Whose picture this is, by its corner."""
    corner = simplejpeg.decode_jpeg(jpeg)[2, 2].astype(int)
    return min(AVATARS, key=lambda name: int(np.abs(corner - AVATARS[name]).sum()))


@dataclass
class Behaviour:
    """What the fake does; tests change it while it runs."""

    delay: float = 0.0  # seconds from a clip's sound to its pictures
    fail: set[int] = field(default_factory=set)  # clips answered with Failed
    swallow: set[int] = field(default_factory=set)  # clips never answered
    fatal: bool = False
    shuffle: bool = False  # frames out of order and doubled
    fps: int = 24
    notice: str = ""
    warm: tuple[str, ...] = ("audio_worker", "gpu_worker", "encoder_worker")


class FakeStages(threading.Thread):
    """Start it, use it as a context manager, read `closed` and `received`.

    `pictures`: a folder of avatars to speak with instead of the drawn ones.
    """

    def __init__(
        self, settings: Settings, behaviour: Behaviour | None = None, pictures: Path | None = None
    ) -> None:
        super().__init__(daemon=True)
        self._pictures = {file.stem: file for file in sorted(pictures.glob("*.png"))} if pictures else {}
        self.behaviour = behaviour or Behaviour()
        self.closed: list[Close] = []
        self.received: list[Pcm] = []
        self.confirmed: list[tuple[str, int, int]] = []
        self._settings = settings
        self._stop_asked = threading.Event()
        self._sound: dict[tuple[str, int], dict[int, list[np.ndarray]]] = defaultdict(dict)
        self._due: list[tuple[float, Frame]] = []
        self._metrics = Metrics()

    def __enter__(self) -> FakeStages:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_asked.set()
        self.join(5)

    def run(self) -> None:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        jobs = HopClient(
            context, [self._settings.endpoint("pcm")], stage="audio_worker", worker="fake", credit=8
        )
        results = ResultClient(context, self._settings.endpoint("results"), stage="fake", worker="0")
        poller = zmq.Poller()
        for sock in (*jobs.sockets, results.socket):
            poller.register(sock, zmq.POLLIN)
        status_at = 0.0
        while not self._stop_asked.is_set():
            poller.poll(5)
            now = time.monotonic()
            if now >= status_at:
                status_at = now + 0.2
                self._tell(results)
            if "audio_worker" in self.behaviour.warm:
                jobs.heartbeat()
            for job in jobs.recv():
                if isinstance(job.msg, Pcm):
                    self.received.append(job.msg)
                    self._hear(job.msg, results, now)
                elif isinstance(job.msg, Close):
                    self.closed.append(job.msg)
                jobs.ack(job)
            self._due.sort(key=lambda entry: entry[0])
            while self._due and self._due[0][0] <= now:
                results.send(self._due.pop(0)[1])
            self.confirmed += results.acked()
        jobs.close()
        results.close()
        context.term()

    def _tell(self, results: ResultClient) -> None:
        info = {
            "avatars": list(self._pictures or AVATARS),
            "poses": POSES,
            "fps": self.behaviour.fps,
            "width": SIZE,
            "height": SIZE,
            "model": "drawn",
            "notice": self.behaviour.notice,
        }
        for stage in ("audio_worker", "gpu_worker", "encoder_worker"):
            warm = stage in self.behaviour.warm
            facts = info if stage == "gpu_worker" and warm else {}
            results.send(Status(stage, "0", warm, facts, self._metrics.snapshot()))

    def _hear(self, pcm: Pcm, results: ResultClient, now: float) -> None:
        length = pcm.clip_frames * 16000 // pcm.fps
        clip = pcm.pts // length
        if pcm.flush and not len(pcm.samples) and pcm.pts == clip * length:
            clip -= 1
        if pcm.flush and not len(pcm.samples) and clip not in self._sound[pcm.session, pcm.epoch]:
            return  # only what a resampler holds back
        parts = self._sound[pcm.session, pcm.epoch].setdefault(clip, [])
        parts.append(pcm.samples)
        have = sum(map(len, parts))
        if pcm.flush or have >= length * pcm.sample_rate // 16000:
            self._answer(pcm, clip, np.concatenate(parts), results, now)

    def _answer(self, pcm: Pcm, clip: int, sound: np.ndarray, results: ResultClient, now: float) -> None:
        del self._sound[pcm.session, pcm.epoch][clip]
        self._metrics.count("clips_total")
        self._metrics.observe("clip_seconds", 0.1)
        self._metrics.observe_clip(0.1)
        does = self.behaviour
        if clip in does.swallow:
            return
        if does.fatal or clip in does.fail:
            reason = "overload" if not does.fatal else "the model has a fault"
            results.send(Failed(pcm.session, pcm.epoch, clip, "gpu_worker", reason, does.fatal))
            return
        frames = []
        for index in range(pcm.clip_frames):
            part = np.array_split(sound, pcm.clip_frames)[index]
            loud = float(np.sqrt(np.mean(part**2))) if len(part) else 0.0
            level = min(15, int(loud * 75))
            if self._pictures:
                jpeg = draw_on(self._pictures[pcm.avatar], level)
            else:
                jpeg = draw(pcm.avatar, level)
            first = clip * pcm.clip_frames * 16000 // pcm.fps
            pts = first + index * 16000 // pcm.fps
            frames.append(Frame(pcm.session, pcm.epoch, clip, index, pcm.clip_frames, pts, SIZE, SIZE, jpeg))
        if does.shuffle:
            frames = [frames[i] for i in np.random.default_rng(clip).permutation(len(frames))] + frames[:3]
        self._due += [(now + does.delay + 0.001 * i, frame) for i, frame in enumerate(frames)]
