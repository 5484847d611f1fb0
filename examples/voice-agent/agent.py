"""A voice agent with a face: `python examples/voice-agent/agent.py`, then open http://127.0.0.1:8100/.

The page sends the microphone's sound here, and shows the face that comes back. In between:

    microphone → utterance → words (audio/transcriptions) → answer (chat/completions) → face.say → pictures
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import struct
from http import HTTPStatus
from pathlib import Path

import numpy as np
from conversation import Conversation
from listener import Heard, Listener
from openai_api import OpenAiApi
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Origin

from echomimic_live_client import ClientError, Frame, Session, connect

logger = logging.getLogger("voice-agent")
PAGE = Path(__file__).with_name("page.html")
HOST = "127.0.0.1"
#: First byte of a message to the page. Its time in seconds (float64) and JPEG, or float32 at 16 kHz, follow.
PICTURE, SOUND = 1, 2


async def main() -> None:
    """Serve the page and its conversations until Ctrl-C."""
    options = _options()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    api = OpenAiApi(options.api, options.chat_model, options.hearing_model)

    async def converse(page: ServerConnection) -> None:
        try:
            async with connect(options.face, token=options.token, avatar=options.avatar) as face:
                await serve_page(page, face, api)
        except ClientError as error:
            logger.error("the face: %s", error)
            await page.close(1011, error.message[:100])

    own = [Origin(f"http://{name}:{options.port}") for name in (HOST, "localhost")]
    async with serve(converse, HOST, options.port, process_request=send_page, origins=[None, *own]):
        print(f"ready: http://{HOST}:{options.port}/", flush=True)
        await asyncio.get_running_loop().create_future()


async def serve_page(page: ServerConnection, face: Session, api: OpenAiApi) -> None:
    """One conversation, until the page is closed."""
    conversation, listener = Conversation(face, api), Listener()
    showing = asyncio.create_task(show(page, face))
    try:
        async for message in page:
            if isinstance(message, str):
                continue
            for change in listener.add(np.frombuffer(message, "<f4")):
                if change is Heard.ENDED:
                    conversation.answer(listener.utterance)
                elif conversation.busy:
                    await conversation.interrupt()
                    await page.send(json.dumps({"type": "interrupted"}))
    finally:
        showing.cancel()


async def show(page: ServerConnection, face: Session) -> None:
    """Hand pictures and sound on to the page, each with its time."""
    try:
        async for item in face.media():
            if isinstance(item, Frame):
                await page.send(struct.pack("<Bd", PICTURE, item.time) + item.jpeg)
            else:
                await page.send(struct.pack("<Bd", SOUND, item.time) + item.samples.astype("<f4").tobytes())
    except ConnectionClosed:
        pass


def send_page(connection: ServerConnection, request: Request) -> Response | None:
    """The page's file. None: the request opens a websocket."""
    if request.headers.get("Upgrade"):
        return None
    if request.path.partition("?")[0] != "/":
        return connection.respond(HTTPStatus.NOT_FOUND, "There is nothing here.\n")
    answer = connection.respond(HTTPStatus.OK, PAGE.read_text(encoding="utf-8"))
    del answer.headers["Content-Type"]
    answer.headers["Content-Type"] = "text/html; charset=utf-8"
    return answer


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A voice agent with a face.")
    parser.add_argument("--face", default="http://127.0.0.1:8080/", help="address of echomimic-live")
    parser.add_argument("--token", default="", help="token of echomimic-live, where it asks for one")
    parser.add_argument("--avatar", help="id of the face")
    parser.add_argument("--api", default="https://api.openai.com/v1", help="address of the models")
    parser.add_argument("--chat-model", default="gpt-4o-mini")
    parser.add_argument("--hearing-model", default="whisper-1")
    parser.add_argument("--port", type=int, default=8100)
    return parser.parse_args()


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        pass
