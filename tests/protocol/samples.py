"""Valid messages of every kind, as a hypothesis strategy and as one example each."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from protocol.wire.limits import MAX_CLIP_FRAMES, MAX_CREDIT, TOKEN_WIDTH
from protocol.wire.messages import (
    Ack,
    Bye,
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
)  # fmt: skip
from protocol.wire.video import CODECS, JPEG

ids = st.from_regex(r"[A-Za-z0-9_.-]{1,64}", fullmatch=True)
counts = st.integers(0, 2**53)
jobs = st.integers(1, 2**64 - 1)
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=100)
unit = {"session": ids, "epoch": counts, "seq": counts}
finite = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def pcm(draw: st.DrawFn) -> Pcm:
    flush = draw(st.booleans())
    n = draw(st.integers(0 if flush else 1, 50))
    samples = draw(hnp.arrays(np.float32, n, elements=st.floats(-1, 1, width=32)))
    return Pcm(
        session=draw(ids), epoch=draw(counts), seq=draw(counts), pts=draw(counts),
        sample_rate=draw(st.integers(8000, 192000)), fps=draw(st.integers(1, 60)),
        clip_frames=draw(st.integers(1, MAX_CLIP_FRAMES)), avatar=draw(ids), pose=draw(ids), flush=flush,
        samples=samples, codec=draw(st.sampled_from(CODECS)),
    )  # fmt: skip


@st.composite
def frame(draw: st.DrawFn) -> Frame:
    count = draw(st.integers(1, MAX_CLIP_FRAMES))
    index, codec = draw(st.integers(0, count - 1)), draw(st.sampled_from(CODECS))
    return Frame(
        draw(ids), draw(counts), draw(counts), index, count, draw(counts),
        draw(st.integers(1, 8192)), draw(st.integers(1, 8192)), draw(st.binary(min_size=1, max_size=100)),
        codec, index == 0 or codec == JPEG or draw(st.booleans()),
    )  # fmt: skip


def _halves(*shape: int) -> st.SearchStrategy[np.ndarray]:
    return st.integers(0, 2**32 - 1).map(
        lambda seed: np.random.default_rng(seed).standard_normal(shape).astype(np.float16)
    )


clip = st.builds(
    Clip, **unit, pts=counts, fps=st.integers(1, 60), avatar=ids, pose=ids, tokens=_halves(2, 3, TOKEN_WIDTH)
)
latents = st.builds(Latents, **unit, pts=counts, fps=st.integers(1, 60), latents=_halves(3, 4, 2, 2))
info = st.dictionaries(
    ids,
    st.one_of(text, st.integers(-(2**53), 2**53), finite, st.booleans(), st.lists(text, max_size=3)),
    max_size=5,
)
metrics = st.dictionaries(st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,30}", fullmatch=True), finite, max_size=5)

messages: st.SearchStrategy[Message] = st.one_of(
    pcm(),
    frame(),
    clip,
    latents,
    st.builds(Close, ids, counts),
    st.builds(Failed, **unit, stage=ids, reason=text, fatal=st.booleans()),
    st.builds(Status, ids, ids, st.booleans(), info, metrics),
    st.builds(Ready, ids, ids, st.integers(1, MAX_CREDIT)),
    st.builds(Ack, jobs),
    st.builds(Heartbeat, st.lists(jobs, max_size=70).map(tuple)),
    st.just(Bye()),
    st.builds(Hello, st.integers(0, 2**64 - 1)),
    st.builds(Received, **unit),
    st.builds(
        Sentence, **unit, sample_rate=st.integers(8000, 192000), voice=text.map(lambda t: t[:64]), text=text
    ),
    st.builds(
        SpokenPart,
        **unit,
        position=counts,
        last=st.booleans(),
        samples=hnp.arrays(np.float32, 9, elements=st.floats(-1, 1, width=32)),
    ),
)


def one_pcm(session: str = "s", seq: int = 0, *, pts: int = 0, epoch: int = 0) -> Pcm:
    return Pcm(session, epoch, seq, pts, 16000, 24, 12, "a", "p", False, np.full(800, 0.25, np.float32))


def one_clip(session: str = "s", seq: int = 0) -> Clip:
    return Clip(session, 0, seq, seq * 8000, 24, "a", "p", np.ones((12, 5, TOKEN_WIDTH), np.float16))


def one_latents(session: str = "s", seq: int = 0, *, epoch: int = 0) -> Latents:
    return Latents(session, epoch, seq, seq * 8000, 24, np.ones((12, 4, 8, 8), np.float16))


def one_frame(session: str = "s", seq: int = 0, index: int = 0, count: int = 1) -> Frame:
    return Frame(session, 0, seq, index, count, 0, 8, 8, b"\xff\xd8\xff\xd9")


EXAMPLES: list[Message] = [
    one_pcm(), one_clip(), one_latents(), one_frame(), Close("s", 1),
    Failed("s", 0, 3, "gpu_worker", "overload", False),
    Status("gpu_worker", "0-1", True, {"avatars": ["ann"], "fps": 24, "x": 0.5, "b": True}, {"n": 1.0}),
    Ready("encoder_worker", "0-1", 2), Ack(1), Heartbeat((1, 2)), Bye(), Hello(7), Received("s", 0, 1),
    Sentence("s", 0, 1, 16000, "en+f3", "Hello."),
    SpokenPart("s", 0, 1, 400, False, np.full(9, 0.5, np.float32)),
]  # fmt: skip
