"""An agent's speech through LiveKit's avatar runner, without a server: its tracks are read in this process.

    python tests/clients/plugins/livekit_avatar.py FACE_URL WORDS REPORT

Runner, synchronizer, sources, tracks and streams are LiveKit's own. The room stands in: it takes the tracks
that are published, and reads them as a participant does. REPORT gets the curves of the mouth and of the
sound, and how each segment ended.
"""

from __future__ import annotations

import asyncio
import io
import json
import subprocess
import sys
import time
import wave
from pathlib import Path
from typing import Any

import numpy as np
from livekit import rtc
from livekit.agents.voice.avatar import AvatarRunner, QueueAudioOutput

from echomimic_live_client import connect
from echomimic_live_client.livekit import FaceGenerator

RATE = 22050


class Publication:
    """What `publish_track` returns."""

    async def wait_for_subscription(self) -> None:
        """There is always somebody."""


class Room:
    """Takes tracks, and notes what they show and play."""

    def __init__(self) -> None:
        self.local_participant = self
        self.seen: list[tuple[float, float]] = []
        self.heard: list[tuple[float, float]] = []
        self._tasks: list[asyncio.Task[None]] = []

    def on(self, *_: Any) -> None:
        """The connection never changes."""

    off = on

    def isconnected(self) -> bool:
        """From the beginning."""
        return True

    async def publish_track(self, track: rtc.Track, _options: rtc.TrackPublishOptions) -> Publication:
        """Read the track from now on."""
        read = self._watch if track.kind == rtc.TrackKind.KIND_VIDEO else self._listen
        self._tasks.append(asyncio.create_task(read(track)))
        return Publication()

    async def _watch(self, track: rtc.Track) -> None:
        async for event in rtc.VideoStream.from_track(track=track, format=rtc.VideoBufferType.RGB24):
            frame = event.frame
            picture = np.frombuffer(frame.data, np.uint8).reshape(frame.height, frame.width, 3).astype(int)
            red, green, blue = np.moveaxis(picture[130:190, 100:156], 2, 0)
            mouth = (red > 110) & (red < 200) & (green < 105) & (blue < 115)
            self.seen.append((time.monotonic() * 1000, float(mouth.sum())))

    async def _listen(self, track: rtc.Track) -> None:
        async for event in rtc.AudioStream.from_track(track=track, sample_rate=RATE, num_channels=1):
            samples = np.frombuffer(event.frame.data, np.int16) / 32768
            self.heard.append((time.monotonic() * 1000, float(np.sqrt(np.mean(samples**2)))))


def spoken(words: str) -> np.ndarray:
    """int16 samples of the words."""
    command = ["espeak-ng", "--stdout", "--stdin"]
    out = subprocess.run(command, input=words.encode(), capture_output=True, check=True).stdout
    with wave.open(io.BytesIO(out)) as file:
        assert file.getframerate() == RATE
    return np.frombuffer(out[44 : len(out) // 2 * 2], np.int16)


async def speak(output: QueueAudioOutput, pcm: np.ndarray) -> None:
    """Hand a segment to the runner in pieces of 100 ms."""
    for start in range(0, len(pcm), RATE // 10):
        piece = pcm[start : start + RATE // 10]
        await output.capture_frame(rtc.AudioFrame(piece.tobytes(), RATE, 1, len(piece)))
    output.flush()


async def main(url: str, words: str, report: str) -> None:
    """Two segments to their ends, and one that is interrupted between them."""
    room, pcm = Room(), spoken(words)
    finished = []
    async with connect(url, sample_rate=RATE, int16=True) as session:
        face, output = FaceGenerator(session), QueueAudioOutput(sample_rate=RATE)
        runner = AvatarRunner(room, audio_recv=output, video_gen=face, options=face.options)
        await runner.start()
        for interrupted in (False, True, False):
            await speak(output, pcm)
            if interrupted:
                await asyncio.sleep(3)
                output.clear_buffer()
            event = await asyncio.wait_for(output.wait_for_playout(), 60)
            finished.append(event.interrupted)
            if interrupted:
                await asyncio.sleep(1)
        await runner.aclose()
    told = {"seen": room.seen, "heard": room.heard, "finished": finished}
    Path(report).write_text(json.dumps(told))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
