"""The face as a video service of Pipecat: `pip install 'echomimic-live-client[pipecat]'`.

It stands behind the speech synthesis in a pipeline, and before the transport's output.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import numpy as np
from pipecat.audio.utils import create_stream_resampler
from pipecat.frames.frames import (
    CancelFrame,
    EndFrame,
    Frame,
    InterruptionFrame,
    OutputImageRawFrame,
    StartFrame,
    TTSAudioRawFrame,
    TTSStoppedFrame,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessorSetup
from pipecat.services.ai_service import AIService
from pipecat.services.settings import ServiceSettings

from echomimic_live_client.errors import ClientError
from echomimic_live_client.moments import Moment, moments
from echomimic_live_client.session import Session, connect
from echomimic_live_client.sized import sized_picture
from echomimic_live_client.wire import pcm_bytes

#: Seconds for which Chromium keeps the sound of a call longer than its pictures, measured on one machine.
SOUND_BUFFER = 0.08


class FaceVideoService(AIService):
    """Takes the speech of a pipeline, and gives it back with the pictures of a face that speaks it.

    `TTSAudioRawFrame`s go to the server. They come back in small pieces, each behind the picture that is seen
    with it (`OutputImageRawFrame` with `sync_with_audio`). `TTSStoppedFrame` waits until its speech is back.
    An `InterruptionFrame` drops everything at the server too.

    Args:
        url: address of the server's page.
        delay: seconds by which pictures come behind their sound, as a browser's buffer for sound does.
        **options: of `echomimic_live_client.connect`, such as `token`, `avatar` and `pose`. The face lives on
            while nobody speaks, unless `idle` says otherwise.
    """

    def __init__(self, url: str, *, delay: float = SOUND_BUFFER, **options: Any) -> None:
        super().__init__(settings=ServiceSettings(model=None))
        self._delay = delay
        self._url, self._options = url, {"idle": "life", **options}
        self._session: Session | None = None
        self._reading: asyncio.Task[None] | None = None
        self._resampler = create_stream_resampler(clear_after_secs=None)
        #: What waits for the speech before it: each frame with the sample at which that ends.
        self._after: deque[tuple[int, Frame]] = deque()

    async def setup(self, setup: FrameProcessorSetup) -> None:
        """Take over the pipeline's sample rate."""
        await super().setup(setup)
        self._options.setdefault("sample_rate", setup.audio_out_sample_rate)

    async def start(self, frame: StartFrame) -> None:
        """Open the session."""
        await super().start(frame)
        session = connect(self._url, **self._options)
        try:
            await session.__aenter__()
        except ClientError as error:
            await self.push_error(error_msg=f"no face from {self._url}: {error}", exception=error)
            return
        self._session = session
        self._reading = self.create_task(self._read(session))

    async def stop(self, frame: EndFrame) -> None:
        """Let the speech that was pushed come back, then leave."""
        await super().stop(frame)
        if self._session is not None and self._reading is not None:
            self._session.finish()
            await self._reading
            self._reading = None
        await self._leave()

    async def cancel(self, frame: CancelFrame) -> None:
        """Leave at once."""
        await super().cancel(frame)
        await self._leave()

    async def cleanup(self) -> None:
        """Leave, if that has not happened."""
        await super().cleanup()
        await self._leave()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Take speech and its interruptions. Everything else goes on."""
        await super().process_frame(frame, direction)
        session = self._session
        if session is None or direction is not FrameDirection.DOWNSTREAM:
            await self.push_frame(frame, direction)
        elif isinstance(frame, TTSAudioRawFrame):
            await self._speak(session, frame)
        elif isinstance(frame, TTSStoppedFrame):
            self._after.append((session.samples_pushed, frame))
            session.flush()
        elif isinstance(frame, InterruptionFrame):
            self._after.clear()
            await self.push_frame(frame, direction)
            await self._interrupt(session)
        else:
            await self.push_frame(frame, direction)

    async def _speak(self, session: Session, frame: TTSAudioRawFrame) -> None:
        rate = session.ready.sample_rate
        pcm = await self._resampler.resample(frame.audio, frame.sample_rate, rate)
        samples = np.frombuffer(pcm, np.int16).reshape(-1, frame.num_channels)
        try:
            session.push(samples.mean(axis=1).astype(np.int16))
        except ClientError as error:
            await self.push_error(error_msg=f"the face is gone: {error}", exception=error)

    async def _interrupt(self, session: Session) -> None:
        try:
            await session.interrupt()
        except ClientError as error:
            await self.push_error(error_msg=f"the face cannot be interrupted: {error}", exception=error)

    async def _read(self, session: Session) -> None:
        try:
            async for moment in moments(session, self._delay):
                await self._give(moment, (session.ready.width, session.ready.height))
        except ClientError as error:
            await self.push_error(error_msg=f"the face is gone: {error}", exception=error)

    async def _give(self, moment: Moment, size: tuple[int, int]) -> None:
        if moment.frame is not None:
            await self.push_frame(await asyncio.to_thread(_picture, moment.frame.jpeg, size))
        if len(moment.samples):
            await self.push_frame(TTSAudioRawFrame(pcm_bytes(moment.samples, True), moment.rate, 1))
        while self._after and self._after[0][0] <= moment.end:
            await self.push_frame(self._after.popleft()[1])

    async def _leave(self) -> None:
        reading, self._reading = self._reading, None
        if reading is not None:
            await self.cancel_task(reading)
        session, self._session = self._session, None
        if session is not None:
            await session.close()


def _picture(jpeg: bytes, size: tuple[int, int]) -> OutputImageRawFrame:
    image = sized_picture(jpeg, size)
    frame = OutputImageRawFrame(image=image.tobytes(), size=image.size, format="RGB")
    frame.sync_with_audio = True
    return frame
