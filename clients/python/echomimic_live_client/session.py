"""A session with a face: sound goes up, pictures and sound come down."""

from __future__ import annotations

import ssl
import time
from collections.abc import AsyncIterator, Callable, Sequence
from types import TracebackType
from typing import Any, Literal, TypeVar

from echomimic_live_client import wire
from echomimic_live_client.address import parse_address
from echomimic_live_client.connection import Network
from echomimic_live_client.errors import ClientError
from echomimic_live_client.inbox import Frame, Inbox, Sound
from echomimic_live_client.link import Link
from echomimic_live_client.pcm import PcmLike, to_samples
from echomimic_live_client.says import Say
from echomimic_live_client.server_recording import ServerRecording
from echomimic_live_client.wire import Interrupted, Options, Ready, Status

Item = TypeVar("Item", bound="Frame | Sound")

#: Seconds for which `media` waits for pictures that are missing before a sound.
ORDER_WAIT = 1.0
#: Seconds after the last message before a `status` that says nothing waits is taken as the end.
END_QUIET = 1.0
#: Seconds after the last message before missing pictures count as lost, whatever the server says.
END_WAIT = 25.0


def connect(
    url: str,
    *,
    token: str = "",
    avatar: str | None = None,
    pose: str | None = None,
    fps: int | None = None,
    sample_rate: int | None = None,
    frames: bool = True,
    sounds: bool = True,
    acknowledge: bool = True,
    live: bool = False,
    int16: bool = False,
    video: Sequence[str] | None = None,
    idle: Literal["life", "still"] | None = None,
    retry_for: float = 30.0,
    ssl: ssl.SSLContext | None = None,
    proxy: str | Literal[True] | None = True,
    on_text: Callable[[dict[str, Any]], None] | None = None,
) -> Session:
    """A session at a server, opened by `async with`.

    Args:
        url: address of the server's page (`https://host/face/`) or of its websocket (`wss://host/face/ws`).
        token: for a server that asks for one. It is sent in a header, never in an address.
        avatar: id of the face, None for the server's first face.
        pose: id of the gesture, None for the server's first gesture.
        fps: pictures for each second of speech, None for as many as the machine holds.
        sample_rate: of the sound that will be pushed, in Hz: 8000 to 48000, None for 16000.
        frames: False for a program that takes no pictures.
        sounds: False for a program that takes no sound.
        acknowledge: whether a picture counts as shown when it is handed out. Else call `Session.shown`.
        live: whether the sound comes from a microphone. After the network stood still, the server leaves out
            old sound or plays it faster.
        int16: whether the wire carries int16 both ways, for half the bytes.
        video: codecs of pictures besides JPEG that the program decodes, the best one first: `h264`, `vp8`.
        idle: what the face does while nothing is pushed. `life`: it breathes, blinks and moves. `still`: the
            last picture stays. None is `still`.
        retry_for: seconds for which a lost connection is tried again. The server waits 30 s.
        ssl: certificates to trust, None for the system's.
        proxy: address of a proxy, True for the one that the environment names, None for none.
        on_text: is called with each text of the server.

    Raises:
        ValueError: the url is no address of a server.
    """
    link = Link(
        Network(parse_address(url, token), ssl, proxy),
        Options(
            avatar,
            pose,
            fps,
            sample_rate,
            "s16" if int16 else None,
            None if video is None else tuple(video),
            idle,
        ),
        Inbox(frames, sounds),
        live=live,
        acknowledge_all=not frames,
        retry_for=retry_for,
        on_text=on_text,
    )
    return Session(link, acknowledge)


class Session:
    """One client's conversation, made by `connect`.

    Sound may be pushed in pieces of any size and at any speed. At most 8 s of it are on their way. Each
    picture and each sound is handed out once, however often the connection is lost in between.

    All calls raise the ClientError with which the session ended, once everything that came was handed out.
    """

    def __init__(self, link: Link, acknowledge: bool) -> None:
        self._link = link
        self._acknowledge = acknowledge
        self._closed = False

    async def __aenter__(self) -> Session:
        """Connect.

        Raises:
            Refused: the door does not let the client in.
            SessionEnded: the server takes no session, such as `busy`.
            ConnectionLost: nobody answers.
        """
        await self._link.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Say goodbye."""
        await self.close()

    async def close(self) -> None:
        """Leave. Iterators end."""
        self._closed = True
        await self._link.close()
        self._link.news.wake()

    # ---- state

    @property
    def ready(self) -> Ready:
        """The session as the server runs it: rate, size, avatar and so on."""
        if self._link.ready is None:
            raise RuntimeError("the session is opened by `async with`")
        return self._link.ready

    @property
    def status(self) -> Status | None:
        """The server's newest figures of the session, None before the first."""
        return self._link.status

    @property
    def notice(self) -> str:
        """A sentence about an outage or a lower rate, or an empty text."""
        ready, status = self._link.ready, self._link.status
        if status is not None:
            return status.notice
        return ready.notice if ready is not None else ""

    @property
    def reconnects(self) -> int:
        """How often the connection was lost and found again."""
        return self._link.reconnects

    @property
    def seconds_unsent(self) -> float:
        """Seconds of sound that were pushed and wait to be sent."""
        return self._link.outbox.waiting / self._link.outbox.rate

    @property
    def samples_pushed(self) -> int:
        """Samples that were pushed so far: the position of the next one."""
        return self._link.outbox.pushed

    @property
    def seconds_unanswered(self) -> float:
        """Seconds of sound that were pushed and have not come back."""
        outbox = self._link.outbox
        return (outbox.pushed - outbox.returned) / outbox.rate

    # ---- up

    def push(self, pcm: PcmLike) -> None:
        """Speak: add sound at the session's rate. It returns at once, see `drained` to wait.

        Args:
            pcm: float32 in −1..1 or int16, shape (n,), or bytes of int16.

        Raises:
            ValueError: it is sound of another kind.
            RuntimeError: after `finish`, or while `change` changes the rate.
            ClientError: the session has ended.
        """
        self._check()
        if self._link.outbox.finished or self._link.hold_sound:
            state = "is changing its rate" if self._link.hold_sound else "was finished"
            raise RuntimeError(f"no sound can be pushed: the session {state}")
        self._link.outbox.push(to_samples(pcm))
        self._link.wake_sender()

    def say(self, text: str, voice: str = "") -> Say:
        """Speak a text by the server's engine, after everything that was pushed or said before.

        Args:
            text: plain text of at most 2000 characters.
            voice: the engine's name of a voice, such as `en-us` or `de`. Empty: the server's usual one.

        Returns:
            The text on its way. `await` it for its end.

        Raises:
            ValueError: the text is empty or too long.
            ClientError: `unsupported`: the server has no engine, or is too old. Or the session has ended.
        """
        self._check()
        if not self.ready.fields.get("voice_engine"):
            raise ClientError("unsupported", "this server has no speech engine for texts")
        if not 1 <= len(text) <= wire.MAX_SAY_CHARS:
            raise ValueError(f"a text of {len(text)} characters: give 1 to {wire.MAX_SAY_CHARS}")
        return self._link.say(text, voice)

    def flush(self) -> None:
        """Speech pauses here: the begun clip is made at once, and not 0.3 s later."""
        self._check()
        self._link.outbox.end_speech()
        self._link.wake_sender()

    def finish(self) -> None:
        """Nothing more will be pushed. Iterators end when all of it came back with its pictures."""
        self.flush()
        self._link.outbox.finished = True
        self._link.news.wake()

    async def drained(self, seconds: float = 0.0) -> None:
        """Wait until no more than so many seconds of the sound that was pushed wait to be sent."""
        while self.seconds_unsent > seconds:
            self._check()
            await self._link.news.wait()

    async def change(
        self,
        *,
        avatar: str | None = None,
        pose: str | None = None,
        fps: int | None = None,
        sample_rate: int | None = None,
    ) -> Ready:
        """Go on with other options, in a new epoch. Speech that was not played yet goes on in it.

        With another `sample_rate`, everything that was pushed is sent first, and its sound that is not
        back is lost.

        Returns:
            The session as it goes on.

        Raises:
            SessionEnded: `bad_option` or `forbidden`. The session is over.
        """
        self._check()
        asked = Options(avatar, pose, fps, sample_rate)
        other_rate = sample_rate not in (None, self.ready.sample_rate)
        if other_rate:
            await self.drained()
        self._link.options = self._link.options.merged(asked)
        self._link.hold_sound = other_rate
        before = self._link.ready
        self._link.send_text(wire.change(asked))
        try:
            while self._link.ready is before or not self._has(asked):
                self._check()
                await self._link.news.wait()
        finally:
            self._link.hold_sound = False
            self._link.wake_sender()
        return self.ready

    def _has(self, asked: Options) -> bool:
        """Whether the session runs with these options. The rate of pictures is the machine's to lower."""
        given = asked.given()
        return all(given.get(n, v) == v for n, v in vars(self.ready).items() if n in given and n != "fps")

    async def interrupt(self) -> Interrupted:
        """Drop everything at once: pushed sound, and pictures and sound that were not handed out.

        Sound that is pushed from the call on is the beginning of a new epoch. The program stops playing what
        it has.

        Returns:
            The server's answer.

        Raises:
            ClientError: `unsupported`: the server is too old.
        """
        self._check()
        if "credit" not in self.ready.fields:
            raise ClientError("unsupported", "this server knows no interruptions")
        before = self._link.interrupted
        self._link.interrupt()
        while (answer := self._link.interrupted) is before or answer is None:
            self._check()
            await self._link.news.wait()
        return answer

    def shown(self, frame: Frame) -> None:
        """This picture was shown, or passed over: for programs that connect with `acknowledge=False`."""
        self._link.frame_shown(frame.epoch, frame.seq, frame.index)

    async def record(self) -> ServerRecording:
        """Have the server record the session, from the next clip on.

        Returns:
            The recording. Its `save` ends it and fetches the file.

        Raises:
            ClientError: the server cannot record, or records this session already. The code is the server's,
                such as `recording_off`.
        """
        self._check()
        recording = ServerRecording(self._link.network, self.ready.session)
        await recording.begin()
        return recording

    # ---- down

    async def frames(self) -> AsyncIterator[Frame]:
        """The pictures, each once, in order. A program that takes none for a second misses some."""
        while (frame := await self._next(self._link.inbox.next_frame)) is not None:
            yield frame

    async def sounds(self) -> AsyncIterator[Sound]:
        """The sound as it comes back, each clip once, in order."""
        while (sound := await self._next(self._link.inbox.next_sound)) is not None:
            yield sound

    async def media(self) -> AsyncIterator[Frame | Sound]:
        """Pictures and sounds in order of time: each clip's sound, then its pictures.

        It takes from the same store as `frames` and `sounds`. Pictures that are not there within 1 s after
        the sound that follows them are left out.
        """
        inbox, since = self._link.inbox, 0.0

        def take() -> Frame | Sound | None:
            nonlocal since
            late = since > 0 and time.monotonic() - since >= ORDER_WAIT
            item = inbox.next_in_order(waited=late or self._over)
            since = 0.0 if item is not None or not inbox.sounds else since or time.monotonic()
            return item

        while (item := await self._next(take, ORDER_WAIT)) is not None:
            yield item

    async def _next(self, take: Callable[[], Item | None], tick: float = END_QUIET) -> Item | None:
        """The next item that `take` gives, or None when none comes any more."""
        while True:
            item = take()
            if isinstance(item, Frame):
                tell = self._link.frame_shown if self._acknowledge else self._link.frame_taken
                tell(item.epoch, item.seq, item.index)
            if item is not None:
                return item
            if self._over:
                return None
            self._check()
            await self._link.news.wait(tick)

    @property
    def _over(self) -> bool:
        """Whether no more comes, of a session that has not failed."""
        link = self._link
        outbox = link.outbox
        if self._closed:
            return True
        if link.failure is not None or not outbox.finished or outbox.waiting or link.says.waiting:
            return False
        back = outbox.returned >= outbox.pushed
        if back and link.inbox.last_clip_whole:
            return True
        # Pictures may be lost, and live sound may be left out: the server's word counts when all is quiet.
        status, since = link.status, link.status_at - link.moved_at
        if status is not None and since > END_QUIET and not (status.clips_waiting or status.seconds_waiting):
            return True
        return back and time.monotonic() - link.moved_at > END_WAIT

    def _check(self) -> None:
        """Raise the reason for which the session is over, if it is."""
        if self._link.failure is not None:
            raise self._link.failure
        if self._closed or self._link.ready is None:
            raise RuntimeError("the session is not open")
