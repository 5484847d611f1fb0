"""Films of a page in headless Chromium: the pictures that it painted, and the sound that it played and heard.

Both carry the computer's time: a picture that of its painting, a sound that at which a loudspeaker has it. So
they are as far apart in the film as they were for a person before the page.
"""

from __future__ import annotations

import asyncio
import base64
import io
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from tests.helpers.chromium import Page

#: Of the film's sound, in Hz.
SOUND_RATE = 48_000
#: Pictures that are left out come within this many seconds after another one: eyes need no more.
LEAST_APART = 1 / 32
#: Factor of every sound: browsers make microphones loud, and two may sound at once.
LEVEL = 0.6
#: Ticks of the film's pictures in a second.
TICKS = 1000

#: Runs in the page before its own scripts. It keeps what goes to a loudspeaker, and what a microphone gives.
EARS = """
(() => {
  const takes = (window.filmSounds = []);
  const taps = new WeakMap();
  async function keep(kind, track, context) {
    const take = { kind, rate: 0, latency: 0, at: [], came: [], sizes: [], pieces: [] };
    takes.push(take);
    for await (const piece of new MediaStreamTrackProcessor({ track }).readable) {
      const samples = new Float32Array(piece.numberOfFrames);
      piece.copyTo(samples, { planeIndex: 0, format: "f32-planar" });
      take.rate = piece.sampleRate;
      take.latency = context ? context.outputLatency || context.baseLatency || 0 : 0;
      take.at.push(piece.timestamp / 1e6);
      take.came.push((performance.timeOrigin + performance.now()) / 1e3);
      take.sizes.push(samples.length);
      take.pieces.push(Int16Array.from(samples, (sample) => 32767 * Math.max(-1, Math.min(1, sample))));
      piece.close();
    }
  }
  const connect = AudioNode.prototype.connect;
  AudioNode.prototype.connect = function (to, ...rest) {
    if (to instanceof AudioDestinationNode) {
      if (!taps.has(to)) {
        const tap = new MediaStreamAudioDestinationNode(this.context, { channelCount: 1 });
        taps.set(to, tap);
        keep("played", tap.stream.getAudioTracks()[0], this.context);
      }
      connect.call(this, taps.get(to));
    }
    return connect.call(this, to, ...rest);
  };
  const devices = navigator.mediaDevices;
  const ask = devices?.getUserMedia.bind(devices);
  if (ask) devices.getUserMedia = async (wishes) => {
    const stream = await ask(wishes);
    for (const track of stream.getAudioTracks()) keep("microphone", track.clone(), null);
    return stream;
  };
  window.filmTaken = () => takes.map(({ pieces, ...take }) => {
    const bytes = new Uint8Array(2 * take.sizes.reduce((sum, size) => sum + size, 0));
    let end = 0;
    for (const piece of pieces) {
      bytes.set(new Uint8Array(piece.buffer), end);
      end += piece.byteLength;
    }
    let text = "";
    for (let at = 0; at < bytes.length; at += 8192) {
      text += String.fromCharCode(...bytes.subarray(at, at + 8192));
    }
    return { ...take, data: btoa(text) };
  });
})();
"""

Sound = npt.NDArray[np.float32]


@dataclass(frozen=True)
class SoundTake:
    """A piece of sound without a gap. `began`: the computer's time of its first sample, in seconds."""

    kind: str
    began: float
    rate: int
    samples: Sound


@dataclass(frozen=True)
class Film:
    """Everything that was taken. Pictures have the computer's time of their painting."""

    pictures: list[tuple[float, Image.Image]]
    sounds: list[SoundTake]

    def write(self, path: Path, kinds: tuple[str, ...] = ("played", "microphone")) -> None:
        """Write an MP4 with the sounds of these kinds, mixed."""
        import av

        first, last = self.pictures[0][0], self.pictures[-1][0]
        width, height = (side // 2 * 2 for side in self.pictures[0][1].size)
        with av.open(str(path), "w", options={"movflags": "+faststart"}) as film:
            video = film.add_stream("libx264", rate=24, options={"crf": "30", "preset": "slow"})
            video.width, video.height, video.pix_fmt = width, height, "yuv420p"
            video.codec_context.time_base = Fraction(1, TICKS)
            audio = film.add_stream("aac", rate=SOUND_RATE, layout="mono")
            audio.bit_rate = 56_000
            before = -1.0
            for at, image in self.pictures:
                if at - first - before < LEAST_APART:
                    continue
                before = at - first
                pixels = np.asarray(image.convert("RGB").crop((0, 0, width, height)))
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame.pts, frame.time_base = round(before * TICKS), Fraction(1, TICKS)
                film.mux(video.encode(frame))
            film.mux(video.encode(None))
            sound = self._mixed(first, last, kinds)
            for start in range(0, len(sound), 1024):
                block: Any = av.AudioFrame.from_ndarray(sound[None, start : start + 1024], "flt", "mono")
                block.sample_rate, block.pts, block.time_base = SOUND_RATE, start, Fraction(1, SOUND_RATE)
                film.mux(audio.encode(block))
            film.mux(audio.encode(None))
        kilobytes = path.stat().st_size / 1000
        print(f"{path}: {kilobytes:.0f} kB, {last - first:.0f} s, {len(self.pictures)} pictures were painted")

    def _mixed(self, first: float, last: float, kinds: tuple[str, ...]) -> Sound:
        mixed = np.zeros(int((last - first) * SOUND_RATE), np.float32)
        for take in self.sounds:
            if take.kind not in kinds:
                continue
            times = take.began + np.arange(len(take.samples)) / take.rate - first
            begin, end = (max(0, int(at * SOUND_RATE)) for at in (times[0], times[-1]))
            at = np.arange(begin, min(end, len(mixed)))
            mixed[at] += LEVEL * np.interp(at / SOUND_RATE, times, take.samples).astype(np.float32)
        return np.clip(mixed, -1, 1)


class Camera:
    """Takes a page's pictures from `start` on and its sounds from `listen` on, until `stop`.

    Args:
        page: whose scripts have not run yet: `listen` comes before it is opened.
        finish: makes the film's picture of one of the page.
        transparent: whether the page's pictures keep their transparency, which takes more time.
    """

    def __init__(
        self,
        page: Page,
        finish: Callable[[Image.Image], Image.Image] | None = None,
        *,
        transparent: bool = False,
    ) -> None:
        self._page, self._finish = page, finish
        self._format = {"format": "png"} if transparent else {"format": "jpeg", "quality": 90}
        self._pictures: list[tuple[float, bytes]] = []
        self._acknowledging: set[asyncio.Task[Any]] = set()

    async def listen(self) -> None:
        """Keep the sounds of the pages that are opened from now on."""
        await self._page.command("Page.addScriptToEvaluateOnNewDocument", source=EARS)

    async def start(self) -> None:
        """Keep the pictures from now on."""
        self._page.listeners["Page.screencastFrame"] = self._painted
        await self._page.command("Page.startScreencast", **self._format)

    def _painted(self, params: dict[str, Any]) -> None:
        self._pictures.append((params["metadata"]["timestamp"], base64.b64decode(params["data"])))
        answer = self._page.command("Page.screencastFrameAck", sessionId=params["sessionId"])
        task = asyncio.ensure_future(answer)
        self._acknowledging.add(task)
        task.add_done_callback(self._acknowledging.discard)

    async def stop(self) -> Film:
        """The film."""
        await self._page.command("Page.stopScreencast")
        taken = await self._page.evaluate("window.filmTaken()")
        opened = [(at, Image.open(io.BytesIO(data))) for at, data in self._pictures]
        finish = self._finish or (lambda image: image)
        return Film([(at, finish(image)) for at, image in opened], [s for t in taken for s in _sounds_of(t)])


def _sounds_of(take: dict[str, Any]) -> list[SoundTake]:
    """A take as pieces without gaps.

    A piece of a track carries the track's own time, which is even. Its place on the computer's clock is where
    pieces came soonest.
    """
    if not take["at"]:
        return []
    samples = (np.frombuffer(base64.b64decode(take["data"]), "<i2") / 32768).astype(np.float32)
    lengths = [size / take["rate"] for size in take["sizes"]]
    # a piece is there when its last sample is
    late = [c - (a + n) for a, c, n in zip(take["at"], take["came"], lengths, strict=True)]
    shift = statistics.quantiles(late, n=20)[0] if len(late) > 1 else late[0]
    pieces: list[Sound] = np.split(samples, np.cumsum(take["sizes"])[:-1])
    found: list[tuple[float, list[Sound]]] = []
    end = -1.0
    for at, length, piece in zip(take["at"], lengths, pieces, strict=True):
        if not found or abs(at - end) > 0.02:
            found.append((at, []))
        found[-1][1].append(piece)
        end = at + length
    began = [at + shift + take["latency"] for at, _ in found]
    return [
        SoundTake(take["kind"], b, take["rate"], np.concatenate(parts))
        for b, (_, parts) in zip(began, found, strict=True)
    ]
