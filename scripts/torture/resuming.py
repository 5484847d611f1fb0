"""A client with a microphone that comes back to its session, and plays the answer as the page does."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, WebSocketException
from websockets.typing import Subprotocol

from gateway.core.hasten import Cut, cuts_of, place_in_rest, without_cuts
from protocol.wire.browser import SUBPROTOCOL_V2, AudioMessage, VideoMessage, decode_down
from protocol.wire.clock import SAMPLE_RATE
from protocol.wire.messages import Samples
from scripts.torture.viewer import CHUNK, LEAD, TOO_LATE, PlayedSound, ViewedStream

#: The rules of playout.js and wire.js in clients/js/client, by the names that they have there.
MOST_AHEAD = 1.5
GAP = 1.0
FAR_BEHIND = 0.35
SPARE = 0.08
LOST_SECONDS = (0.0, 0.25, 0.5, 1.0, 1.5)
SILENT_AFTER = 5.0
HELD_AFTER = 2.0
#: Samples of a message, where many wait.
MOST_AT_ONCE = SAMPLE_RATE // 4


@dataclass
class LiveStream(ViewedStream):
    """The stream of a client with a microphone. Late sound catches up."""

    #: Whether the client says no more that it has taken a frame, as one that reads nothing.
    takes_nothing: bool = False
    #: When each connection was lost, and when the session went on at the next one.
    lost_at: list[float] = field(default_factory=list)
    ready_at: list[float] = field(default_factory=list)
    #: Times at which sound that had come was left out, and its seconds.
    unheard: list[tuple[float, float]] = field(default_factory=list)
    #: All sound that came, played or not.
    came: list[AudioMessage] = field(default_factory=list)
    #: Seconds won by shorter pauses and faster speech.
    faster: float = 0.0
    #: Seconds by which each picture on the screen was after its sound.
    offsets: list[float] = field(default_factory=list)
    _cuts: dict[tuple[int, int], list[Cut]] = field(default_factory=dict)
    _early: list[float] = field(default_factory=list)
    _behind: bool = False

    def take(self, message: AudioMessage | VideoMessage, now: float) -> None:
        """Give a message its place on the clock of the speakers."""
        if isinstance(message, AudioMessage):
            self._take_sound(message, now)
        else:
            self._take_picture(message, now)

    def _take_sound(self, message: AudioMessage, now: float) -> None:
        self.came.append(message)
        end = self.sounds[-1].end if self.sounds else 0.0
        heard = self.sounds[-1].message if self.sounds else message
        gap = message.position - heard.position - len(heard.samples)
        if end > now and (end - now > MOST_AHEAD or gap > GAP * SAMPLE_RATE):
            self._leave_out(now)
            end = max(now + LEAD, self.sounds[-1].end)
        cuts: list[Cut] = []
        start = end
        if end <= now:
            start, self._early = now + LEAD, []
        else:
            self._early = [*self._early[-1:], end - now]
            cuts = self._shorten(message.samples)
        rest = without_cuts(message.samples, SAMPLE_RATE, cuts)
        sound = PlayedSound(message, now, start, start + len(rest) / SAMPLE_RATE, len(message.samples))
        self.sounds.append(sound)
        self._clips[message.epoch, message.seq] = sound
        self._cuts[message.epoch, message.seq] = cuts

    def _shorten(self, samples: Samples) -> list[Cut]:
        latest = min(self._early) - LEAD
        self._behind = latest > (SPARE if self._behind else FAR_BEHIND)
        if not self._behind:
            return []
        cuts = cuts_of(samples, SAMPLE_RATE, int(latest * SAMPLE_RATE))
        won = sum(length for _, length in cuts) / SAMPLE_RATE
        self.faster += won
        self._early = [seconds - won for seconds in self._early]
        return cuts

    def _leave_out(self, now: float) -> None:
        begun = [sound for sound in self.sounds if sound.start <= now]
        left = self.sounds[len(begun) :]
        self.unheard.append((now, sum(sound.end - sound.start for sound in left)))
        for sound in left:
            self._clips.pop((sound.message.epoch, sound.message.seq), None)
        self.sounds, self._early = begun, []

    def _take_picture(self, message: VideoMessage, now: float) -> None:
        place = message.epoch, message.seq, message.index
        self.places.append(place)
        clip = self._clips.get(place[:2])
        if clip is None:
            self.passed_over += 1
            return
        spoken = self.began + (clip.message.position + clip.length) / SAMPLE_RATE
        self.arrivals.append((now, now - spoken))
        spot = place_in_rest(self._cuts[place[:2]], message.pts - clip.message.pts)
        due = clip.start + spot / SAMPLE_RATE
        if now > due + TOO_LATE:
            self.passed_over += 1
            return
        self.shown.append((max(now, due), place))
        self.offsets.append(max(0.0, now - due))

    def delays(self, since: float, until: float = float("inf")) -> list[float]:
        """Seconds from each clip's first sample spoken to its sound, for the sounds of this time."""
        return [
            sound.start - (self.began + sound.message.position / SAMPLE_RATE)
            for sound in self.sounds
            if since <= sound.start < until
        ]

    def server_left_out(self, at: float) -> float:
        """Seconds of speech that the server had left out at this time."""
        told = [
            text["seconds_left_out"] for when, text in self.texts if when <= at and text["type"] == "status"
        ]
        return float(told[-1]) if told else 0.0

    def lost_sound(self, since: float, until: float) -> float:
        """Seconds of sound that nobody heard, of those left out in this time."""
        here = sum(seconds for at, seconds in self.unheard if since <= at < until)
        # A new gateway counts anew.
        return here + max(0.0, self.server_left_out(until) - self.server_left_out(since))

    def back_after(self, at: float) -> float:
        """Seconds from `at` to the next picture on the screen."""
        return min((shown - at for shown, _ in self.shown if shown > at), default=float("inf"))

    def unaccounted(self) -> float:
        """Seconds of sound that neither came nor was counted by the server (of one gateway) as left out."""
        status = self.status()
        gone = status["seconds_left_out"] + status["seconds_faster"]
        last = self.came[-1]
        end = last.position + len(last.samples)
        return abs((end - sum(len(message.samples) for message in self.came)) / SAMPLE_RATE - float(gone))

    @property
    def sessions(self) -> set[str]:
        """Names of the sessions that it was in."""
        return {text["session"] for _, text in self.texts if text["type"] == "ready"}


class ResumingClient:
    """Speaks without a pause from `run` on until `stream.over`; lost connections do not stop it."""

    def __init__(self, url: str, voice: Samples, stream: LiveStream) -> None:
        self._address = url.replace("http", "ws", 1) + "/ws"
        self._voice = voice
        self._stream = stream
        self._random = random.Random(1)
        #: Position of the next sample to send.
        self._sent = 0
        self._resume: dict[str, Any] | None = None

    async def run(self) -> None:
        """Connect, speak and listen; connect again when the connection is lost."""
        attempt = 0
        self._stream.began = time.monotonic()
        while not self._stream.over:
            began = time.monotonic()
            with contextlib.suppress(OSError, asyncio.TimeoutError, WebSocketException, InvalidHandshake):
                await self._serve_connection()
            if self._stream.ready_at and self._stream.ready_at[-1] > began:
                self._stream.lost_at.append(time.monotonic())
                if time.monotonic() - self._stream.ready_at[-1] > HELD_AFTER:
                    attempt = 0
            base = LOST_SECONDS[min(attempt, len(LOST_SECONDS) - 1)]
            attempt += 1
            await asyncio.sleep(base * self._random.uniform(0.8, 1.2))

    async def _serve_connection(self) -> None:
        async with connect(
            self._address,
            subprotocols=[Subprotocol(SUBPROTOCOL_V2)],
            open_timeout=SILENT_AFTER,
            close_timeout=0.1,
            ping_interval=None,
            max_size=8 << 20,
            max_queue=None,
            compression=None,
            proxy=None,
        ) as ws:
            resume = {} if self._resume is None else {"resume": self._resume}
            await ws.send(json.dumps({"type": "hello", "live": True, **resume}))
            speaking: asyncio.Task[None] | None = None
            try:
                while not self._stream.over:
                    data = await asyncio.wait_for(ws.recv(), SILENT_AFTER)
                    if isinstance(data, str):
                        text = json.loads(data)
                        self._stream.texts.append((time.monotonic(), text))
                        if text["type"] == "ready":
                            self._take_ready(text, speaking is None)
                            speaking = speaking or asyncio.create_task(self._speak(ws))
                    else:
                        await self._take(ws, data)
            finally:
                if speaking is not None:
                    speaking.cancel()

    def _take_ready(self, text: dict[str, Any], first: bool) -> None:
        if first:
            self._stream.ready_at.append(time.monotonic())
            self._sent = int(text["position"])
        before = self._resume or {}
        same = before if before.get("epoch") == text["epoch"] else {}
        self._resume = {
            "token": text["resume"],
            "epoch": text["epoch"],
            "heard": same.get("heard", -1),
            "seen_seq": same.get("seen_seq", -1),
            "seen_index": same.get("seen_index", -1),
            "position": before.get("position", 0),
        }

    async def _take(self, ws: ClientConnection, data: bytes) -> None:
        message = decode_down(data, 2)
        if self._resume is None or message.epoch != self._resume["epoch"]:
            return
        self._stream.take(message, time.monotonic())
        if isinstance(message, AudioMessage):
            self._resume |= {"heard": message.seq, "position": message.position + len(message.samples)}
            return
        self._resume |= {"seen_seq": message.seq, "seen_index": message.index}
        if not self._stream.takes_nothing:
            place = {"epoch": message.epoch, "seq": message.seq, "index": message.index}
            await ws.send(json.dumps({"type": "taken", **place}))

    async def _speak(self, ws: ClientConnection) -> None:
        chunk = round(CHUNK * SAMPLE_RATE)
        while True:
            spoken = int((time.monotonic() - self._stream.began) * SAMPLE_RATE) // chunk * chunk
            while self._sent < spoken:
                count = min(spoken - self._sent, MOST_AT_ONCE)
                place = np.arange(self._sent, self._sent + count) % len(self._voice)
                await ws.send(np.ascontiguousarray(self._voice[place], "<f4").tobytes())
                self._sent += count
            self._stream.sent = max(self._stream.sent, self._sent)
            await asyncio.sleep(CHUNK)
