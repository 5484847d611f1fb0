"""A call with a Pipecat pipeline: espeak-ng speaks, the face moves, and a browser sees it over WebRTC.

    python tests/clients/plugins/pipecat_call.py FACE_URL PORT

`GET /` is the page that receives. `POST /offer` begins the call. `POST /say` speaks the body, and
`POST /interrupt` speaks over the face.
"""

from __future__ import annotations

import asyncio
import io
import sys
import wave
from collections.abc import AsyncGenerator
from pathlib import Path

from aiohttp import web
from pipecat.frames.frames import Frame, InterruptionFrame, TTSAudioRawFrame, TTSSpeakFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.services.settings import TTSSettings
from pipecat.services.tts_service import TTSService
from pipecat.transports.base_transport import TransportParams
from pipecat.transports.smallwebrtc.connection import SmallWebRTCConnection
from pipecat.transports.smallwebrtc.transport import SmallWebRTCTransport
from pipecat.workers.runner import WorkerRunner

from echomimic_live_client.pipecat import FaceVideoService

PAGE = Path(__file__).with_name("receiver.html")


class EspeakService(TTSService):
    """Speech by espeak-ng."""

    def __init__(self) -> None:
        settings = TTSSettings(model=None, voice="en", language=None)
        super().__init__(settings=settings, push_start_frame=True, push_stop_frames=True)

    async def run_tts(self, text: str, context_id: str) -> AsyncGenerator[Frame, None]:
        command = ["espeak-ng", "--stdout", "--stdin"]
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
        out, _ = await process.communicate(text.encode())
        with wave.open(io.BytesIO(out)) as file:
            rate, pcm = file.getframerate(), out[44:]
        for start in range(0, len(pcm), rate // 5 * 2):
            piece = pcm[start : start + rate // 5 * 2]
            yield TTSAudioRawFrame(piece, rate, 1, context_id=context_id)


class Call:
    """One call, and the pipeline behind it."""

    def __init__(self, face_url: str) -> None:
        self._face_url = face_url
        self._worker: PipelineWorker | None = None
        self._running: asyncio.Task[None] | None = None

    async def offer(self, request: web.Request) -> web.Response:
        """Take the browser's offer, and answer it."""
        wanted = await request.json()
        connection = SmallWebRTCConnection()
        await connection.initialize(sdp=wanted["sdp"], type=wanted["type"])
        size = 256
        transport = SmallWebRTCTransport(
            connection,
            TransportParams(
                audio_out_enabled=True,
                video_out_enabled=True,
                video_out_width=size,
                video_out_height=size,
                video_out_framerate=30,
            ),
        )
        stages = [EspeakService(), FaceVideoService(self._face_url), transport.output()]
        params = PipelineParams(audio_out_sample_rate=24000)
        self._worker = PipelineWorker(Pipeline(stages), params=params, idle_timeout_secs=None)
        runner = WorkerRunner(handle_sigint=False)
        await runner.add_workers(self._worker)
        self._running = asyncio.create_task(runner.run())
        return web.json_response(connection.get_answer())

    async def say(self, request: web.Request) -> web.Response:
        """Speak the body."""
        assert self._worker is not None
        await self._worker.queue_frame(TTSSpeakFrame(await request.text()))
        return web.Response()

    async def interrupt(self, _request: web.Request) -> web.Response:
        """Speak over the face."""
        assert self._worker is not None
        await self._worker.queue_frame(InterruptionFrame())
        return web.Response()


async def page(_request: web.Request) -> web.FileResponse:
    """The page that receives the call."""
    return web.FileResponse(PAGE)


def main(face_url: str, port: str) -> None:
    """Serve until the process is ended."""
    call = Call(face_url)
    app = web.Application()
    app.add_routes(
        [
            web.get("/", page),
            web.post("/offer", call.offer),
            web.post("/say", call.say),
            web.post("/interrupt", call.interrupt),
        ]
    )
    web.run_app(app, host="127.0.0.1", port=int(port), print=None, shutdown_timeout=1.0)


if __name__ == "__main__":
    main(*sys.argv[1:])
