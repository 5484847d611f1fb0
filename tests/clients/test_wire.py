"""The client's wire and the server's are two programs from one specification: they agree."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from echomimic_live_client import wire
from echomimic_live_client.errors import WireError
from protocol.wire import browser, controls
from protocol.wire.clock import SAMPLE_RATE
from protocol.wire.video import CODECS

CLIENT = Path(__file__).resolve().parents[2] / "clients/python"

u16, u32, u64 = (st.integers(0, 2**bits - 1) for bits in (16, 32, 64))
samples = st.lists(st.floats(-16, 16, width=32), max_size=40).map(lambda values: np.array(values, np.float32))
video = st.builds(
    browser.VideoMessage, data=st.binary(max_size=60), epoch=u32, seq=u32, index=u16, count=u16, pts=u64,
    codec=st.just("jpeg"), key=st.just(True),
)  # fmt: skip
coded = st.builds(
    browser.VideoMessage, data=st.binary(max_size=60), epoch=u32, seq=u32, index=u16, count=u16, pts=u64,
    codec=st.sampled_from(CODECS[1:]), key=st.booleans(),
)  # fmt: skip
audio = st.builds(
    browser.AudioMessage,
    samples=samples,
    epoch=u32,
    seq=u32,
    pts=u64,
    position=u64,
    frames_follow=st.booleans(),
    int16=st.booleans(),
)


@given(st.one_of(video, coded))
def test_a_picture_is_read_as_it_was_written(message: browser.VideoMessage) -> None:
    read = wire.decode(browser.encode_video(message, 2))
    assert isinstance(read, wire.FrameMessage)
    assert asdict(read) == asdict(message)


@given(audio)
def test_sound_is_read_as_it_was_written(message: browser.AudioMessage) -> None:
    read = wire.decode(browser.encode_audio(message, 2))
    assert isinstance(read, wire.SoundMessage)
    wanted = browser.parse_pcm16(browser.pcm_bytes(message.samples, int16=True))
    assert read.samples.tobytes() == (wanted if message.int16 else message.samples).tobytes()
    assert (read.epoch, read.seq, read.pts, read.position, read.has_frames) == (
        message.epoch, message.seq, message.pts, message.position, message.frames_follow,
    )  # fmt: skip


@given(st.one_of(st.binary(max_size=80), st.binary(max_size=80).map(lambda tail: b"\x01" + tail)))
def test_both_refuse_the_same_messages(data: bytes) -> None:
    def refused(decode: Any, error: type[Exception]) -> bool:
        try:
            decode()
        except error as caught:
            # Sizes of samples are for the server to judge: it is the one that sends them.
            return "sample of size" not in str(caught) and "NaN" not in str(caught)
        return False

    ours = refused(lambda: wire.decode(data), WireError)
    assert ours == refused(lambda: browser.decode_down(data, 2), browser.BrowserError)


options = st.builds(
    wire.Options,
    avatar=st.none() | st.text(min_size=1, max_size=64),
    pose=st.none() | st.text(min_size=1, max_size=64),
    fps=st.none() | st.integers(1, 120),
    sample_rate=st.none() | st.sampled_from(controls.SAMPLE_RATES),
    pcm=st.none() | st.sampled_from(controls.PCM_FORMATS),
    video=st.none() | st.lists(st.sampled_from(CODECS), max_size=3).map(tuple),
)
place = st.integers(-1, 2**16 - 1)
resume = st.builds(
    wire.Resume,
    token=st.text(max_size=80),
    epoch=st.integers(0, 2**31),
    heard=place,
    seen=st.tuples(place, place),
    position=st.integers(0, 2**53),
)


def named(options: controls.Options) -> dict[str, Any]:
    return {name: value for name, value in vars(options).items() if value is not None}


@given(options, st.none() | resume, st.booleans())
def test_a_greeting_is_understood(wishes: wire.Options, back: wire.Resume | None, live: bool) -> None:
    hello = controls.parse_control(wire.hello(wishes, back, live))
    assert isinstance(hello, controls.ClientHello)
    assert named(hello.options) == wishes.given() and hello.live == live
    assert (hello.resume and vars(hello.resume)) == (back and vars(back))


@given(options, u32, u32, u16, samples)
def test_all_else_that_goes_up_is_understood(
    wishes: wire.Options, epoch: int, seq: int, index: int, sound: wire.Samples
) -> None:
    changed = controls.parse_control(wire.change(wishes))
    assert isinstance(changed, controls.Change) and named(changed.options) == wishes.given()
    assert controls.parse_control(wire.shown(epoch, seq, index)) == controls.Shown(epoch, seq, index)
    assert controls.parse_control(wire.taken(epoch, seq, index)) == controls.Shown(epoch, seq, index, False)
    assert controls.parse_control(wire.flush()) == controls.Flush()
    assert controls.parse_control(wire.interrupt()) == controls.Interrupt()
    assert browser.parse_pcm(wire.pcm_bytes(sound)).tobytes() == sound.tobytes()
    assert wire.pcm_bytes(sound, int16=True) == browser.pcm_bytes(sound, int16=True)


def test_constants_are_the_servers() -> None:
    assert wire.SUBPROTOCOL == browser.SUBPROTOCOL_V2
    assert wire.PTS_RATE == SAMPLE_RATE


@pytest.mark.parametrize("text", ["", "[]", '{"a": 1}', '{"type": 3}', "[" * 100_000])
def test_a_text_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(WireError):
        wire.parse_text(text)


@pytest.mark.parametrize("wrong", [{}, {"fps": "x"}, {"fps": 0}, {"epoch": None}])
def test_a_ready_with_a_wrong_field_is_refused(wrong: dict[str, Any]) -> None:
    fields = json.loads(
        '{"type":"ready","session":"s","epoch":0,"avatar":"a","pose":"p","fps":24,"clip_frames":12,'
        '"sample_rate":16000,"width":1,"height":1,"notice":"","resume":"t","resumed":false,"position":0}'
    )
    assert wire.parse_ready(fields).fps == 24
    with pytest.raises(WireError):
        wire.parse_ready({**fields, **wrong} if wrong else {"type": "ready"})
    with pytest.raises(WireError):
        wire.parse_status(fields)


def test_the_client_imports_nothing_of_the_server() -> None:
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [str(program), "--no-cache"], cwd=CLIENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
