"""A websocket client of the gateway that speaks in real time and checks the answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit

import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.typing import Subprotocol

from protocol.wire.browser import SUBPROTOCOL_V2, BrowserError, VideoMessage
from protocol.wire.clock import SAMPLE_RATE
from protocol.wire.messages import Samples
from scripts.talk.stream_check import Report, StreamCheck

#: Seconds of sound in a message, as a browser sends it.
CHUNK = 0.02
MAX_MESSAGE = 8 << 20
TIMEOUTS = (TimeoutError, asyncio.TimeoutError)  # two classes before Python 3.11


class ClientError(RuntimeError):
    """The session could not be held. The text says why."""


@dataclass(frozen=True)
class Plan:
    """The course of one session."""

    #: The speech, shape (n,), at `rate` Hz.
    samples: Samples
    rate: int = SAMPLE_RATE
    #: Version of the wire.
    version: int = 1
    avatar: str = ""
    pose: str = ""
    #: Frame rate to ask for.
    fps: int | None = None
    #: Seconds to wait for the next message after all was sent.
    patience: float = 15.0
    #: Opens the gateway, where it asks for a token. Empty for none.
    token: str = field(default="", repr=False)
    #: Gets each frame's number and JPEG.
    on_frame: Callable[[int, bytes], None] = lambda number, jpeg: None
    #: Text messages that came; filled during the session.
    texts: list[dict[str, Any]] = field(default_factory=list)


#: Opens addresses past every proxy that the environment names, as the websocket does.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def server_info(url: str, token: str = "") -> dict[str, Any]:
    """The gateway's description of its run: avatars, poses, fps, size.

    Args:
        url: the gateway's.
        token: where it asks for one.

    Raises:
        ClientError: it is not ready, or not there.
    """
    try:
        for path in ("/readyz", "/avatars.json"):
            request = urllib.request.Request(url.rstrip("/") + path, headers=_bearer(token))
            with _DIRECT.open(request, timeout=5) as answer:
                info = json.load(answer)
    except urllib.error.HTTPError as error:
        state = "refused" if error.code in (401, 403, 429) else "not ready"
        raise ClientError(f"{url}: {state}: {error.read(2000).decode(errors='replace').strip()}") from error
    except (OSError, ValueError) as error:
        if isinstance(getattr(error, "reason", None), ssl.SSLCertVerificationError):
            remedy = "a self-signed one counts as SSL_CERT_FILE=~/.config/echomimic-live/self-signed.pem"
            raise ClientError(f"{url}: nobody here vouches for its certificate; {remedy}") from error
        raise ClientError(f"{url}: no gateway answers there ({error}); start scripts/run_all.sh") from error
    return dict(info)


async def speak(url: str, plan: Plan, fps: int, clip_frames: int) -> Report:
    """Hold one session: send `plan.samples` in real time, take the answer, check it.

    Raises:
        ClientError: the server refuses or ends the session.
    """
    return (await hold(url, plan, fps, clip_frames)).report(plan.samples, plan.avatar)


async def hold(url: str, plan: Plan, fps: int, clip_frames: int) -> StreamCheck:
    """As `speak`, and returns the whole record of the stream.

    Args:
        url: the gateway's.
        plan: the session's course.
        fps: frame rate of the session. Version 1 is not told it by the server.
        clip_frames: frames of a clip, likewise.
    """
    options = {key: value for key, value in (("avatar", plan.avatar), ("pose", plan.pose)) if value}
    if plan.fps:
        options["fps"] = str(plan.fps)
    try:
        async with connect(
            _socket_url(url, {} if plan.version == 2 else options),
            subprotocols=[Subprotocol(SUBPROTOCOL_V2)] if plan.version == 2 else None,
            additional_headers=_bearer(plan.token),
            max_size=MAX_MESSAGE,
            max_queue=None,
            compression=None,
            open_timeout=10,
            proxy=None,
        ) as socket:
            if plan.version == 2:
                fps, clip_frames = await _greet(socket, plan)
            check = StreamCheck(plan.version, fps, clip_frames, plan.rate)
            await _talk(socket, plan, check)
    except (OSError, *TIMEOUTS, WebSocketException) as error:
        raise ClientError(f"{url}: {_reason(error)}") from error
    return check


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}


def _socket_url(url: str, options: dict[str, str]) -> str:
    parts = urlsplit(url)
    scheme = "wss" if parts.scheme == "https" else "ws"
    query = f"?{urlencode(options)}" if options else ""
    return f"{scheme}://{parts.netloc}/ws{query}"


async def _greet(socket: ClientConnection, plan: Plan) -> tuple[int, int]:
    """Say hello in version 2 and wait for ready. Returns the session's frame rate and frames of a clip."""
    if socket.subprotocol != SUBPROTOCOL_V2:
        raise ClientError("the server does not speak version 2")
    hello = {"avatar": plan.avatar, "pose": plan.pose, "fps": plan.fps, "sample_rate": plan.rate}
    with contextlib.suppress(ConnectionClosed):  # the reason is read below
        await socket.send(json.dumps({"type": "hello", **{k: v for k, v in hello.items() if v}}))
    while True:
        message = await asyncio.wait_for(socket.recv(), plan.patience)
        if isinstance(message, str):
            text = _take_text(message, plan)
            if text.get("type") == "ready":
                return int(text["fps"]), int(text["clip_frames"])


async def _talk(socket: ClientConnection, plan: Plan, check: StreamCheck) -> None:
    sender = asyncio.create_task(_send(socket, plan, check))
    heard = time.monotonic()  # time of the last binary message; status texts do not count
    try:
        while not (sender.done() and check.complete):
            if sender.done() and time.monotonic() - heard > plan.patience:
                return  # the report names the missing frames
            try:
                message = await asyncio.wait_for(socket.recv(), 0.5)
            except TIMEOUTS:
                continue
            now = time.monotonic()
            if isinstance(message, str):
                _take_text(message, plan)
                continue
            heard = now
            picture = check.received(message, now)
            if picture is not None:
                plan.on_frame(check.numbers[-1], picture.data)
                if plan.version == 2:
                    await _acknowledge(socket, picture)
    except BrowserError as error:
        raise ClientError(f"the server sent no valid message: {error}") from error
    finally:
        sender.cancel()
        with contextlib.suppress(asyncio.CancelledError, ConnectionClosed):
            await sender


async def _send(socket: ClientConnection, plan: Plan, check: StreamCheck) -> None:
    """Send each chunk when its last sample has been spoken, as a microphone does."""
    start = time.monotonic()
    size = max(1, round(CHUNK * plan.rate))
    for begin in range(0, len(plan.samples), size):
        chunk = plan.samples[begin : begin + size]
        wait = start + (begin + len(chunk)) / plan.rate - time.monotonic()
        if wait > 0:
            await asyncio.sleep(wait)
        await socket.send(np.ascontiguousarray(chunk, "<f4").tobytes())
        check.sent(len(chunk), time.monotonic())
    if plan.version == 2:
        await socket.send('{"type":"flush"}')


async def _acknowledge(socket: ClientConnection, picture: VideoMessage) -> None:
    shown = {"type": "shown", "epoch": picture.epoch, "seq": picture.seq, "index": picture.index}
    await socket.send(json.dumps(shown))


def _take_text(message: str, plan: Plan) -> dict[str, Any]:
    text = json.loads(message)
    plan.texts.append(text)
    if text.get("type") == "error":
        raise ClientError(f"{text.get('code')}: {text.get('message')}")
    return dict(text)


def _reason(error: Exception) -> str:
    if isinstance(error, ConnectionClosed) and error.rcvd is not None:
        return f"the server closed the session ({error.rcvd.code}): {error.rcvd.reason or 'no reason given'}"
    return str(error) or type(error).__name__
