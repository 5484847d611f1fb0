"""Decoders of messages, texts and requests."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import jwt
import msgpack
import numpy as np
from hypothesis import strategies as st
from websockets.datastructures import Headers
from websockets.exceptions import InvalidHeaderValue
from websockets.http11 import Request

from gateway.avatars.preview import PreviewMaker
from gateway.avatars.service import OwnAvatars
from gateway.avatars.shelf import Shelf
from gateway.door.guard import Guard
from gateway.door.minting import MintError, claims_for
from gateway.door.rules import Door
from gateway.door.signed_tokens import BrowserClaims, SignedTokenError, sign, verify
from gateway.door.target import parse_target
from gateway.door.token_file import (
    TokenFileError,
    add_token,
    entry_for,
    new_book,
    new_token,
    read_book,
    write_book,
)
from gateway.door.token_watch import TokenWatch
from gateway.site import DOOR_PATH, MINT_PATH, ConnectionEnds, Site
from gateway.stages import StageBoard
from gateway.thumbnails import Thumbnails
from protocol.model.assets import AssetError, display_names, name_of, picture_files
from protocol.process.settings import Settings, SettingsError, load_settings
from protocol.process.web_hosts import parse_authority, parse_origin
from protocol.wire.browser import (
    AudioMessage,
    BrowserError,
    VideoMessage,
    decode_down,
    encode_audio,
    encode_video,
    parse_pcm,
)
from protocol.wire.clock import SAMPLE_RATE
from protocol.wire.codec import decode, encode
from protocol.wire.controls import parse_control, parse_options
from protocol.wire.limits import ProtocolError, check_id
from protocol.wire.messages import (
    Ack,
    Clip,
    Close,
    Failed,
    Frame,
    Heartbeat,
    Hello,
    Latents,
    Message,
    Pcm,
    Ready,
    Received,
    Sentence,
    SpokenPart,
    Status,
)
from scripts.torture.fuzz.decoder import FuzzedDecoder, Scratch
from scripts.torture.fuzz.mutations import NUMBERS, edited, edited_text, fields, json_of, leaves, values

NOW = 1_800_000_000

#: Pieces at which readers of addresses and headers stumble.
MARKS = [
    *"[]@:?#%;,=\\\"' ", "//", "/..", "/../../etc/passwd", "%00", "%2e%2e/", "%ff", "9" * 4301, "x" * 9000,
    "[::1]", "[::ffff:127.0.0.1]", "[::1", "127.0.0.1", "0x7f.1", "localhost", "face.example.", "*.example",
    "http://", "HTTP://", "null", "/ws", "/avatars/", "/poses/live/", ".png", ".svg", "/token", "/metrics",
    "\u0660", "\udcff", "\r\n", "\0", "for=", "proto=https", "host=", "token=", "avatar=", "fps=", "unknown",
]  # fmt: skip
marked = st.lists(st.sampled_from(MARKS) | st.text(max_size=6), max_size=6).map("".join)


def decoders() -> list[FuzzedDecoder]:
    """All of them."""
    return [*_browser(), _hop(), *_door(), *_tokens(), *_settings()]


# ------------------------------------------------------------------ the browser's wire


def _browser() -> list[FuzzedDecoder]:
    sound = np.linspace(-1, 1, 50, dtype="<f4").tobytes()
    down = [
        made
        for version in (1, 2)
        for made in (
            encode_video(VideoMessage(b"\xff\xd8\xff\xd9", 1, 2, 3, 12, 8000), version),
            encode_audio(AudioMessage(np.zeros(9, np.float32), 1, 2, 8000, 9), version),
        )
    ]
    names = ["type", "avatar", "pose", "fps", "sample_rate", "epoch", "seq", "index"]
    known = st.sampled_from(["hello", "options", "shown", "flush", "ada", 24, SAMPLE_RATE, *NUMBERS])
    controls = ['{"type":"hello","avatar":"ada","fps":24}', '{"type":"shown","epoch":0,"seq":1,"index":2}']
    # A websocket gives text that is UTF-8, so no half characters come.
    object_of = st.builds(
        lambda kind, rest: {**rest, "type": kind},
        st.sampled_from(["hello", "options", "shown", "flush"]),
        fields(names[1:], known),
    )
    texts = json_of(object_of | fields(names, known) | values) | edited_text(controls) | st.just("[" * 4000)
    return [
        FuzzedDecoder("browser: sound", edited([sound]), parse_pcm, (BrowserError,)),
        FuzzedDecoder("browser: control text", texts, parse_control, (BrowserError,)),
        FuzzedDecoder(
            "browser: messages down",
            st.tuples(edited(down), st.sampled_from([1, 2])),
            lambda case: decode_down(*case),
            (BrowserError,),
        ),
        FuzzedDecoder("browser: query options", marked, _parse_query, (BrowserError,)),
    ]


def _parse_query(query: str) -> object:
    return parse_options(dict(parse_qsl(query)))


# ------------------------------------------------------------------ between processes


def _hop() -> FuzzedDecoder:
    sound, tokens = np.zeros(9, np.float32), np.zeros((2, 50, 384), np.float16)
    messages: list[Message] = [
        Pcm("s", 0, 1, 8000, SAMPLE_RATE, 24, 12, "a", "p", False, sound),
        Clip("s", 0, 1, 8000, 24, "a", "p", tokens[:, :3]),
        Latents("s", 0, 1, 8000, 24, np.zeros((2, 4, 2, 2), np.float16)),
        Frame("s", 0, 1, 0, 2, 8000, 8, 8, b"\xff\xd8\xff\xd9"),
        Close("s", 1),
        Failed("s", 0, 3, "gpu_worker", "overload", False),
        Status("gpu_worker", "0-1", True, {"avatars": ["ann"], "fps": 24, "x": 0.5, "b": True}, {"n": 1.0}),
        *(Ready("encoder_worker", "0-1", 2), Ack(1), Heartbeat((1, 2)), Hello(7), Received("s", 0, 1)),
        Sentence("s", 0, 1, SAMPLE_RATE, "en+f3", "Hello."),
        SpokenPart("s", 0, 1, 400, False, sound),
    ]
    valid = [[bytes(part) for part in encode(message)] for message in messages]
    names = sorted({f.name for message in messages for f in dataclasses.fields(message)})
    kinds = [type(message).__name__.lower() for message in messages]
    known = st.sampled_from([*kinds, "s", 1, [2, 4], SAMPLE_RATE, *NUMBERS[:-2]])
    header = fields([*names, "kind", "version", "shape"], known).map(_packed)
    first = edited([parts[0] for parts in valid]) | header | values.map(_packed)
    body = edited([parts[1] for parts in valid if len(parts) > 1])
    near = st.sampled_from(valid).flatmap(lambda p: st.tuples(*(edited([part]) for part in p)).map(list))
    parts = near | st.builds(lambda head, rest: [head, *rest], first, st.lists(body, max_size=3))
    return FuzzedDecoder("hop: messages", parts, decode, (ProtocolError,))


def _packed(value: object) -> bytes:
    return bytes(msgpack.packb(value, unicode_errors="surrogatepass"))


# ------------------------------------------------------------------ HTTP


def _door() -> list[FuzzedDecoder]:
    avatars = Settings().avatar_dir
    return [
        FuzzedDecoder("http: addresses", marked, _parse_addresses),
        FuzzedDecoder("http: requests", _requests(), _Requests().respond),
        FuzzedDecoder("http: requests, tokens asked for", _requests(), _Requests(with_tokens=True).respond),
        FuzzedDecoder("names of files", st.lists(_file_names(), max_size=4), _show_names),
        FuzzedDecoder(
            "paths of pictures", marked, lambda text: picture_files([Path(avatars, text)]), (AssetError,)
        ),
    ]


def _parse_addresses(text: str) -> None:
    parse_target(text)
    parse_authority(text)
    parse_origin(text)


def _requests() -> st.SearchStrategy[tuple[str, str, list[tuple[str, str]], str]]:
    """(method, address, headers, the other end's address)."""
    names = st.sampled_from(
        [
            *("Host", "Origin", "Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"),
            *("Authorization", "Sec-WebSocket-Protocol", "Upgrade", "Cookie", "If-None-Match"),
        ]
    )
    told = st.sampled_from(
        [
            *("127.0.0.1:8080", "http://127.0.0.1:8080", "https://a.example", "face.example"),
            *("websocket", "Bearer x", "a, b", "echomimic-live.v2", "echomimic-live.token.x"),
        ]
    )
    headers = st.lists(st.tuples(names, told | marked), max_size=6)
    usual = headers.map(lambda rest: [("Host", "127.0.0.1:8080"), *rest])
    addresses = st.sampled_from(
        [
            *("/", "/ws", "/metrics", "/avatars.json", "/avatars/amara.png", "/readyz", "/face/"),
            *(DOOR_PATH, MINT_PATH),
        ]
    )
    targets = addresses | st.builds("{}?{}".format, addresses, marked) | marked.map("/{}".format) | marked
    methods = st.sampled_from(["GET", "HEAD", "POST", "OPTIONS", "PUT", "", "get"])
    return st.tuples(
        methods, targets, usual | headers, st.sampled_from(["127.0.0.1", "203.0.113.9", "::1", ""])
    )


class _Requests:
    """The gateway's site, which answers every request."""

    def __init__(self, *, with_tokens: bool = False) -> None:
        settings = Settings(
            trusted_proxies=("203.0.113.0/24",),
            allowed_hosts=("face.example",),
            allowed_origins=("https://*.example",),
            root_path="/face",
        )
        self._scratch = Scratch()
        watch = None
        if with_tokens:
            book = add_token(new_book(), entry_for(new_token(), "robot", ("session", "mint"), NOW))
            path = self._scratch.file("tokens.json", b"")
            write_book(path, book)
            watch = TokenWatch(path)
        # No workers: a card is made for no frame, so that requests alone are read.
        board = StageBoard(5)
        shelf = Shelf(self._scratch.file("own", b"").with_name("avatars"), 3)
        previews = PreviewMaker(lambda messages: None, lambda session, epoch: None)
        self._site = Site(
            Door(settings),
            Guard(watch),
            board,
            Thumbnails(settings),
            metrics=lambda: b"",
            catalogue=lambda grant: {"avatars": []},
            is_busy=lambda: False,
            refused=Counter(),
            own_avatars=OwnAvatars(shelf, board, previews, lambda: False, 12),
        )
        self._loop = asyncio.new_event_loop()

    def respond(self, case: tuple[str, str, list[tuple[str, str]], str]) -> object:
        method, target, named, peer = case
        headers = Headers()
        for name, value in named:
            with suppress(InvalidHeaderValue):  # the library gives no such header on
                headers[name] = value
        request = Request(target, headers, method)
        return self._loop.run_until_complete(
            self._site.respond(request, ConnectionEnds(peer, "127.0.0.1"), _no_body)
        )


async def _no_body(most: int, seconds: float) -> bytes:
    """The body of a request that has none."""
    return b""


def _file_names() -> st.SearchStrategy[str]:
    """Names as a file system gives them: any bytes but a slash and NUL."""
    odd = st.sampled_from(["..", ".", "a.png", "张三.png", "\u202ex.png", "e\u0301.png", "a" * 255])
    text = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), max_size=12)
    raw = st.binary(max_size=12).map(lambda data: os.fsdecode(data.translate(None, b"/\0")))
    return odd | text | raw


def _show_names(names: Sequence[str]) -> None:
    """The ids and names of files. Every id may stand on the wire, and every name can be sent as text."""
    files = {f"{number}": Path(name) for number, name in enumerate(names)}
    for file in files.values():
        check_id("avatar", name_of(file))
    json.dumps(display_names(files), ensure_ascii=False).encode()


# ------------------------------------------------------------------ tokens


def _tokens() -> list[FuzzedDecoder]:
    book = new_book()
    entry = entry_for(new_token(), "robot", ("session", "mint"), NOW, sessions=3, avatars=("ada", "ben"))
    claims = BrowserClaims(entry.id, "j", NOW, NOW + 60, 1)
    token = sign(book.key, claims)
    payload: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    ids = {"alg": "HS256", "kid": book.key.id}

    def signed(changes: dict[str, Any]) -> str:
        """Signed with the right key, and of another content."""
        try:
            return jwt.encode({**payload, **changes}, book.key.secret, algorithm="HS256", headers=ids)
        except (TypeError, ValueError):  # no such token can be made
            return "a.b.c"

    odd = fields([*payload, "nbf", "avatars", "session_seconds"], leaves).map(signed)
    scratch = Scratch()
    path = scratch.file("book.json", b"")
    write_book(path, add_token(book, entry))
    whole = path.read_bytes()

    def read(content: bytes) -> object:
        return read_book(scratch.file("tokens.json", content))

    contents = edited([whole]) | json_of(_changed(json.loads(whole))).map(str.encode)
    wishes = st.dictionaries(
        st.sampled_from(["ttl", "sessions", "avatars", "session_seconds", "x"]),
        marked | st.sampled_from(["1", "60", "ada", "ada,ben", *map(str, NUMBERS)]),
    )
    return [
        FuzzedDecoder(
            "tokens: of browsers",
            edited_text([token]) | odd,
            lambda text: verify(book.key, ("old",), text, NOW + 1),
            (SignedTokenError,),
        ),
        FuzzedDecoder("tokens: the file", contents, read, (TokenFileError,)),
        FuzzedDecoder("tokens: wishes", wishes, lambda asked: claims_for(entry, asked, NOW), (MintError,)),
    ]


def _changed(whole: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """The file's object, with other values in it and in its first token."""
    entry = whole["tokens"][0]
    return st.builds(
        lambda outer, inner: {**whole, "tokens": [{**entry, **inner}], **outer},
        fields([*whole]),
        fields([*entry]),
    )


# ------------------------------------------------------------------ settings


def _settings() -> list[FuzzedDecoder]:
    names = [field.name for field in dataclasses.fields(Settings)]
    scratch = Scratch()

    def load_file(content: bytes) -> object:
        return load_settings(["--settings", str(scratch.file("run.yaml", content))], env={})

    lines = st.tuples(
        st.sampled_from(names), st.sampled_from(["", "3", "on", "[a, b]", "{a: 1}", "!!int x"]) | marked
    )
    file = (
        st.lists(lines.map(": ".join), max_size=4)
        .map("\n".join)
        .map(lambda text: text.encode(errors="replace"))
    )

    def load_flags(argv: list[str]) -> object:
        # -h and --help end the program, as they should.
        return load_settings([flag for flag in argv if not flag.startswith(("-h", "--h"))], env={})

    named = st.sampled_from([name.replace("_", "-") for name in names])
    flags = st.lists(st.builds("--{}={}".format, named, marked | st.sampled_from(["3", "on"])), max_size=4)
    whole = [b"port: 8081\nfps: 12\nreference-image: [a.png, b.png]\nuse_init_latent: no\n"]
    return [
        FuzzedDecoder("settings: the file", edited(whole) | file, load_file, (SettingsError,)),
        FuzzedDecoder("settings: flags", flags, load_flags, (SettingsError,)),
    ]
