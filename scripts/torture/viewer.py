"""A client of version 2 that speaks, plays the answer as the page does, and notes when everything came."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from protocol.process.settings import load_settings
from protocol.wire.browser import SUBPROTOCOL_V2, AudioMessage, VideoMessage, decode_down
from protocol.wire.clock import FULL_RATE, SAMPLE_RATE
from protocol.wire.messages import Samples
from scripts.talk.sound import read_sound, synthetic_voice

#: Seconds of sound in a message.
CHUNK = 0.02
#: Seconds from a sound's arrival to its first sample, when nothing else is played.
LEAD = 0.06
#: Seconds past its time from which a picture is passed over.
TOO_LATE = 0.045
Place = tuple[int, int, int]


@dataclass
class PlayedSound:
    """A clip's sound on the speakers. Times are of `time.monotonic`."""

    message: AudioMessage
    came: float
    start: float
    end: float
    #: Samples in the clip. `message` may have let go of them.
    length: int


@dataclass
class ViewedStream:
    """The stream that one client got, and when it was heard and seen."""

    began: float = field(default_factory=time.monotonic)
    #: Set from another thread: no more is to be spoken.
    over: bool = False
    #: Whether the samples of each sound are kept for `heard`. A run of hours is better without.
    keeps_samples: bool = True
    sent: int = 0
    sounds: list[PlayedSound] = field(default_factory=list)
    #: Place and time of each picture on the screen.
    shown: list[tuple[float, Place]] = field(default_factory=list)
    #: Places of all pictures, as they came.
    places: list[Place] = field(default_factory=list)
    #: When each picture came, and how long that was after its clip's last sample was spoken.
    arrivals: list[tuple[float, float]] = field(default_factory=list)
    passed_over: int = 0
    texts: list[tuple[float, dict[str, Any]]] = field(default_factory=list)
    _clips: dict[tuple[int, int], PlayedSound] = field(default_factory=dict)
    #: Pictures of each clip of which one has come.
    _counts: dict[tuple[int, int], int] = field(default_factory=dict)

    def take(self, message: AudioMessage | VideoMessage, now: float) -> None:
        """Give a message its place on the clock of the speakers."""
        if isinstance(message, AudioMessage):
            end = self.sounds[-1].end if self.sounds else 0.0
            start = end if end > now else now + LEAD
            length = len(message.samples)
            if not self.keeps_samples:
                message = replace(message, samples=message.samples[:0].copy())
            sound = PlayedSound(message, now, start, start + length / SAMPLE_RATE, length)
            self.sounds.append(sound)
            self._clips[message.epoch, message.seq] = sound
            return
        place = message.epoch, message.seq, message.index
        self.places.append(place)
        clip = self._clips[message.epoch, message.seq]
        # A clip whose sound begins within it has no pictures before that.
        before = message.index if message.pts - clip.message.pts < SAMPLE_RATE / FULL_RATE else 0
        self._counts.setdefault(place[:2], message.count - before)
        spoken = clip.message.position + clip.length
        self.arrivals.append((now, now - self.began - spoken / SAMPLE_RATE))
        due = clip.start + (message.pts - clip.message.pts) / SAMPLE_RATE
        if now > due + TOO_LATE:
            self.passed_over += 1
        else:
            self.shown.append((max(now, due), place))

    def picture_gap(self, since: float) -> float:
        """The longest time from one picture on the screen to the next, from the one before `since` on."""
        times = sorted(at for at, _ in self.shown)
        return max((b - a for a, b in pairwise(times) if b > since), default=float("inf"))

    def sound_gap(self, since: float) -> float:
        """The longest silence between two sounds, in seconds, after `since`."""
        return max(
            (max(0.0, b.start - a.end) for a, b in pairwise(self.sounds) if b.start > since), default=0.0
        )

    def sound_delay(self, since: float) -> float:
        """The longest time from a clip's last sample spoken to its sound on the speakers, after `since`."""
        late = [sound.start - self.spoken_at(sound) for sound in self.sounds if sound.start > since]
        return max(late, default=0.0)

    def spoken_at(self, sound: PlayedSound) -> float:
        """When the last sample of a sound was spoken."""
        return self.began + (sound.message.position + sound.length) / SAMPLE_RATE

    @property
    def doubled(self) -> int:
        """Pictures that came twice."""
        return len(self.places) - len(set(self.places))

    @property
    def out_of_order(self) -> int:
        """Pictures that came after a later one."""
        return sum(b < a for a, b in pairwise(self.places))

    def lost_frames(self) -> int:
        """Pictures of sounds that were heard which never came."""
        counts = {(s.message.epoch, s.message.seq): 12 for s in self.sounds} | self._counts
        return sum(counts.values()) - len(set(self.places))

    @property
    def heard(self) -> Samples:
        """All sound in the order in which it came, shape (n,)."""
        return np.concatenate([np.empty(0, np.float32), *(sound.message.samples for sound in self.sounds)])

    def told(self, words: str, since: float) -> float:
        """Seconds from `since` to the first text with `words` in its notice."""
        return next(
            (at - since for at, t in self.texts if at > since and words in str(t.get("notice"))), float("inf")
        )

    def status(self) -> dict[str, Any]:
        """The last `status`."""
        return next((text for _, text in reversed(self.texts) if text["type"] == "status"), {})


def spoken() -> Samples:
    """Real speech at 16 kHz, shape (n,), or a synthetic voice where the recording is missing."""
    file = load_settings([]).shared_dir / "data/audio/news.wav"
    return read_sound(file) if file.is_file() else synthetic_voice(4.2)


async def watch(url: str, voice: Samples, stream: ViewedStream, rest: float = 3.0) -> None:
    """Speak `voice`, again and again, until `stream.over`. Take the answer for `rest` seconds more.

    Raises:
        ConnectionClosed: the server ended the session.
    """
    address = url.replace("http", "ws", 1) + "/ws"
    async with connect(
        address,
        subprotocols=[Subprotocol(SUBPROTOCOL_V2)],
        max_size=8 << 20,
        max_queue=None,
        compression=None,
        proxy=None,
    ) as ws:
        await ws.send('{"type":"hello"}')
        text = json.loads(await asyncio.wait_for(ws.recv(), 15))
        stream.texts.append((time.monotonic(), text))
        stream.began = time.monotonic()
        speaking = asyncio.create_task(_speak(ws, voice, stream))
        end = float("inf")
        try:
            while time.monotonic() < end:
                if speaking.done() and end == float("inf"):
                    end = time.monotonic() + rest
                with contextlib.suppress(asyncio.TimeoutError):
                    await _take(ws, await asyncio.wait_for(ws.recv(), 0.2), stream)
        finally:
            speaking.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionClosed):
                await speaking


async def _speak(ws: ClientConnection, voice: Samples, stream: ViewedStream) -> None:
    size = round(CHUNK * SAMPLE_RATE)
    while not stream.over:
        place = stream.sent % (len(voice) - size)
        await ws.send(np.ascontiguousarray(voice[place : place + size], "<f4").tobytes())
        stream.sent += size
        await asyncio.sleep(max(0.0, stream.began + stream.sent / SAMPLE_RATE - time.monotonic()))
    await ws.send('{"type":"flush"}')


async def _take(ws: ClientConnection, data: str | bytes, stream: ViewedStream) -> None:
    now = time.monotonic()
    if isinstance(data, str):
        stream.texts.append((now, json.loads(data)))
        return
    message = decode_down(data, 2)
    stream.take(message, now)
    if isinstance(message, VideoMessage):
        shown = {"type": "shown", "epoch": message.epoch, "seq": message.seq, "index": message.index}
        await ws.send(json.dumps(shown))
