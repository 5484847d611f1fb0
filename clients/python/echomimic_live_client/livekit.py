"""The face as an avatar of LiveKit Agents: `pip install 'echomimic-live-client[livekit]'`.

`livekit.agents.voice.avatar.AvatarRunner` publishes what a `VideoGenerator` makes. The README shows both.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator

import numpy as np
from livekit import rtc
from livekit.agents.voice.avatar import AudioSegmentEnd, AvatarOptions, VideoGenerator

from echomimic_live_client.moments import Moment, moments
from echomimic_live_client.session import Session
from echomimic_live_client.sized import sized_picture
from echomimic_live_client.wire import int16_of

#: Seconds of the longest piece of sound. LiveKit's source refuses one that is longer than its queue of 0.1 s.
LONGEST = 0.04


class FaceGenerator(VideoGenerator):
    """Speech of an agent goes in, pictures and sound of the face come out.

    Args:
        session: an open session. Its sample rate is the one of the agent's speech.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        #: Where each segment of the agent's speech ends, in samples of everything that was pushed.
        self._ends: deque[int] = deque()

    @property
    def options(self) -> AvatarOptions:
        """Size, rates and channels of the output, for an `AvatarRunner`."""
        ready = self._session.ready
        return AvatarOptions(ready.width, ready.height, ready.fps, ready.sample_rate, 1)

    async def push_audio(self, frame: rtc.AudioFrame | AudioSegmentEnd) -> None:
        """Speak this, or end a segment.

        Raises:
            ValueError: the sound has another rate than the session.
        """
        if isinstance(frame, AudioSegmentEnd):
            self._ends.append(self._session.samples_pushed)
            self._session.flush()
            return
        rate = self._session.ready.sample_rate
        if frame.sample_rate != rate:
            raise ValueError(f"sound of {frame.sample_rate} Hz for a session of {rate} Hz")
        samples = np.frombuffer(frame.data, np.int16)
        if frame.num_channels > 1:
            samples = samples.reshape(-1, frame.num_channels).mean(axis=1).astype(np.int16)
        self._session.push(samples)
        await self._session.drained(1.0)

    async def clear_buffer(self) -> None:
        """Somebody speaks over the agent: drop everything, here and at the server."""
        self._ends.clear()
        await self._session.interrupt()

    async def __aiter__(self) -> AsyncIterator[rtc.VideoFrame | rtc.AudioFrame | AudioSegmentEnd]:
        """Pictures, each with the sound that follows it, and the ends of segments."""
        async for moment in moments(self._session):
            if moment.frame is not None:
                ready = self._session.ready
                yield await asyncio.to_thread(_picture, moment.frame.jpeg, (ready.width, ready.height))
            for sound in _sounds(moment):
                yield sound
            while self._ends and self._ends[0] <= moment.end:
                self._ends.popleft()
                yield AudioSegmentEnd()


def _picture(jpeg: bytes, size: tuple[int, int]) -> rtc.VideoFrame:
    image = sized_picture(jpeg, size)
    return rtc.VideoFrame(image.width, image.height, rtc.VideoBufferType.RGB24, image.tobytes())


def _sounds(moment: Moment) -> list[rtc.AudioFrame]:
    pcm = int16_of(moment.samples)
    step = int(LONGEST * moment.rate)
    pieces = [pcm[start : start + step] for start in range(0, len(pcm), step)]
    return [rtc.AudioFrame(piece.tobytes(), moment.rate, 1, len(piece)) for piece in pieces]
