"""The browser wire's codec: round trips, and clear errors for wrong messages."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.wire.browser import (
    AudioMessage,
    BrowserError,
    VideoMessage,
    decode_down,
    encode_audio,
    encode_error,
    encode_video,
    parse_pcm,
    pcm_bytes,
)
from protocol.wire.controls import Change, ClientHello, Flush, Options, Shown, parse_control, parse_options
from protocol.wire.video import CODECS
from tests.gateway.clients import sound_of

U16, U32, U53 = st.integers(0, 2**16 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**53)


@given(st.binary(min_size=1, max_size=50), U32, U32, U16, U16, U53)
def test_frames_round_trip(jpeg: bytes, epoch: int, seq: int, index: int, count: int, pts: int) -> None:
    message = VideoMessage(jpeg, epoch, seq, index, count, pts)
    assert decode_down(encode_video(message, 2), 2) == message
    assert encode_video(message, 1) == b"\x01" + jpeg
    assert decode_down(encode_video(message, 1), 1) == VideoMessage(jpeg)


@given(st.binary(max_size=50), U32, U16, st.sampled_from(CODECS[1:]), st.booleans())
def test_coded_frames_round_trip(data: bytes, seq: int, index: int, codec: str, key: bool) -> None:
    message = VideoMessage(data, 1, seq, index, 12, 8000, codec, key)
    assert decode_down(encode_video(message, 2), 2) == message


@pytest.mark.parametrize(("kind", "codec"), [(1, 1), (3, 0), (3, 9)])
def test_a_codec_that_does_not_fit_its_kind_is_refused(kind: int, codec: int) -> None:
    data = bytes([kind, 1, 0, 0, 1, 0, codec, 0]) + bytes(17)
    with pytest.raises(BrowserError):
        decode_down(data, 2)


def test_hello_names_the_codecs_that_the_client_takes() -> None:
    hello = parse_control('{"type": "hello", "video": ["vp9", "vp8", "h264"]}')
    assert isinstance(hello, ClientHello) and hello.options.video == ("vp8", "h264")
    change = parse_control('{"type": "options", "video": []}')
    assert isinstance(change, Change)
    assert hello.options.merged(change.options).video == ()


@given(st.lists(st.floats(-1, 1, width=32), max_size=20), U32, U32, U53, U53, st.booleans())
def test_sound_round_trips_exactly(
    values: list[float], epoch: int, seq: int, pts: int, position: int, pictures: bool
) -> None:
    samples = np.array(values, np.float32)
    message = AudioMessage(samples, epoch, seq, pts, position, pictures)
    back = sound_of(encode_audio(message, 2), 2)
    assert np.array_equal(back.samples, samples)
    assert (back.epoch, back.seq, back.pts, back.position, back.frames_follow) == (
        epoch,
        seq,
        pts,
        position,
        pictures,
    )
    assert encode_audio(message, 1) == b"\x02" + samples.tobytes()
    assert len(encode_audio(message, 2)) % 4 == 0


@given(st.binary(max_size=60), st.sampled_from([1, 2]))
def test_clients_refuse_garbage_with_one_error_type(data: bytes, version: int) -> None:
    try:
        decode_down(data, version)
    except BrowserError as err:
        assert err.close_code == 1007


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"abc", "whole float32 samples"),
        (np.array([0, np.nan], "<f4").tobytes(), "NaN or infinite"),
        (np.array([0, -np.inf], "<f4").tobytes(), "NaN or infinite"),
        (np.array([3000.0], "<f4").tobytes(), "int16"),
    ],
)
def test_bad_audio_is_named(data: bytes, words: str) -> None:
    with pytest.raises(BrowserError, match=words) as err:
        parse_pcm(data)
    assert err.value.code == "bad_audio"


def test_good_audio_is_exact() -> None:
    samples = np.array([0.0, -1.5, 1e-30, 0.25], np.float32)
    assert np.array_equal(parse_pcm(pcm_bytes(samples)), samples)
    assert parse_pcm(b"").shape == (0,)


def test_control_messages() -> None:
    assert parse_control('{"type":"hello"}') == ClientHello(Options())
    hello = '{"type":"hello","avatar":"ada","fps":12,"sample_rate":48000,"new":1}'
    assert parse_control(hello) == ClientHello(Options("ada", None, 12, 48000))
    assert parse_control('{"type":"options","pose":"01"}') == Change(Options(pose="01"))
    assert parse_control('{"type":"shown","epoch":0,"seq":3,"index":11}') == Shown(0, 3, 11)
    assert parse_control('{"type":"flush"}') == Flush()
    assert parse_options({"pose": "01", "fps": "12", "other": "x"}) == Options(pose="01", fps=12)
    assert Options("a", "b").merged(Options(pose="c", fps=8)) == Options("a", "c", 8)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "bad_message"),
        ("[" * 4000, "bad_message"),
        ("x" * 5000, "bad_message"),
        ("[]", "bad_message"),
        ('{"type":["hello"]}', "bad_message"),
        ('{"type":"shown","epoch":0,"seq":-1,"index":0}', "bad_message"),
        ('{"type":"shown","epoch":true,"seq":1,"index":0}', "bad_message"),
        ('{"type":"shown"}', "bad_message"),
        ('{"type":"hello","fps":"24"}', "bad_option"),
        ('{"type":"hello","fps":NaN}', "bad_option"),
        ('{"type":"hello","sample_rate":16001}', "bad_option"),
        ('{"type":"hello","avatar":""}', "bad_option"),
        ('{"type":"hello","pose":{"a":1}}', "bad_option"),
    ],
)
def test_wrong_control_messages_say_what_is_wrong(text: str, code: str) -> None:
    with pytest.raises(BrowserError) as err:
        parse_control(text)
    assert err.value.code == code and len(err.value.message) > 10


@given(st.text(max_size=60))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        parse_control(text)
    except BrowserError:
        pass


def test_close_reasons_fit_a_close_frame() -> None:
    error = BrowserError("bad_option", "ü" * 200)
    assert len(error.close_reason.encode()) <= 123 and error.close_reason.startswith("bad_option: ü")
    assert json.loads(encode_error(error))["code"] == "bad_option"


def test_a_type_of_a_later_version_is_ignored() -> None:
    assert parse_control('{"type":"dance","with":{"the":"stars"}}') is None
