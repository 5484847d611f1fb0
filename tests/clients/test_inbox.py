"""Pictures and sound that came: once, in order, on one timeline."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from echomimic_live_client.address import parse_address
from echomimic_live_client.inbox import MOST_SOUND, Frame, Inbox
from echomimic_live_client.wire import FrameMessage, Ready, SoundMessage


def ready(**changed: Any) -> Ready:
    fields: dict[str, Any] = {
        "session": "s", "epoch": 0, "avatar": "a", "pose": "p", "fps": 4, "clip_frames": 2,
        "sample_rate": 16_000, "width": 1, "height": 1, "notice": "", "resumed": False, "position": 0,
        "resume": "t", "fields": {},
    }  # fmt: skip
    return Ready(**(fields | changed))


def sound(seq: int, *, epoch: int = 0, length: int = 8000, has_frames: bool = True) -> SoundMessage:
    return SoundMessage(np.zeros(length, np.float32), epoch, seq, seq * 8000, seq * 8000, has_frames)


def frame(seq: int, index: int, *, epoch: int = 0) -> FrameMessage:
    return FrameMessage(b"", epoch, seq, index, 2, seq * 8000 + index * 4000)


def order(box: Inbox, *, waited: bool = False) -> str:
    """The items that can be taken now: `s0 0.0 0.1` is a clip's sound and its two pictures."""
    words = []
    while (item := box.next_in_order(waited=waited)) is not None:
        words.append(f"{item.seq}.{item.index}" if isinstance(item, Frame) else f"s{item.seq}")
    return " ".join(words)


def begun(**options: Any) -> Inbox:
    box = Inbox(**options)
    box.begin(ready(), 0)
    return box


def fill(box: Inbox, *messages: FrameMessage | SoundMessage) -> None:
    for message in messages:
        if isinstance(message, FrameMessage):
            box.add_frame(message)
        else:
            box.add_sound(message)


def test_everything_is_taken_once() -> None:
    box = begun()
    assert box.add_sound(sound(0)) == 8000 and box.add_sound(sound(0)) is None
    assert box.add_frame(frame(0, 0)) and box.add_frame(frame(0, 1))
    assert not box.add_frame(frame(0, 1)) and not box.add_frame(frame(0, 0))
    assert order(box) == "s0 0.0 0.1" and order(box) == ""
    assert box.add_sound(sound(0, epoch=1)) is None and not box.add_frame(frame(5, 0, epoch=1))


def test_a_sound_waits_for_the_pictures_before_it() -> None:
    box = begun()
    fill(box, sound(0), frame(0, 0), sound(1))
    assert order(box) == "s0 0.0"
    fill(box, frame(0, 1), frame(1, 0))
    assert order(box) == "0.1 s1 1.0"


def test_pictures_that_were_dropped_hold_nothing_up() -> None:
    box = begun()
    fill(box, sound(0), frame(0, 0), sound(1), frame(1, 0))
    assert order(box) == "s0 0.0 s1 1.0"
    fill(box, sound(2, has_frames=False), sound(3), frame(3, 0))
    assert order(box) == "s2 s3 3.0"


def test_pictures_that_come_after_the_wait_are_passed_over() -> None:
    box = begun()
    fill(box, sound(0), sound(1))
    assert order(box) == "s0"
    assert order(box, waited=True) == "s1"
    fill(box, frame(0, 0), frame(0, 1), frame(1, 0))
    assert order(box) == "1.0" and box.frames_passed == 2


def test_epochs_and_sessions_follow_each_other_in_time() -> None:
    box = begun()
    fill(box, sound(0, length=100), frame(0, 0), frame(0, 1))
    box.begin(ready(epoch=1), 0)
    box.begin(ready(epoch=1, fps=4), 0)  # told again
    fill(box, sound(0, epoch=1), frame(0, 0, epoch=1))
    box.begin(ready(session="other"), 8000)
    fill(box, sound(0), frame(0, 1))
    assert [item.time for item in box.sounds] == [0.0, 0.5, 1.0]
    assert [(item.time, item.position) for item in box.frames] == [
        (0.0, 0), (0.25, 100), (0.5, 0), (1.25, 12_000),
    ]  # fmt: skip
    assert box.sounds[-1].position == 8000


def test_an_interruption_drops_everything_until_its_answer() -> None:
    box = begun()
    fill(box, sound(0), frame(0, 0), frame(0, 1), sound(1), frame(1, 0))
    assert box.next_in_order() is not None  # the first sound: half a second
    box.interrupt()
    fill(box, frame(1, 1), sound(2))
    assert order(box) == "" and not box.frames and not box.sounds
    box.interrupted(1)
    fill(box, sound(2), sound(0, epoch=1), frame(0, 0, epoch=1))
    assert box.sounds[0].time == box.frames[0].time == 0.5
    assert order(box) == "s0 0.0"
    box.begin(ready(epoch=1), 0)  # told again: nothing begins anew
    assert not box.add_frame(frame(0, 0, epoch=1))


def test_the_end_is_known() -> None:
    box = begun()
    assert box.last_clip_whole
    box.add_sound(sound(0))
    assert not box.last_clip_whole
    fill(box, frame(0, 0))
    assert not box.last_clip_whole
    fill(box, frame(0, 1))
    assert box.last_clip_whole
    box.add_sound(sound(1, has_frames=False))
    assert box.last_clip_whole


def test_sound_that_nobody_takes_is_bounded() -> None:
    box = begun()
    for seq in range(200):
        box.add_sound(sound(seq))
    assert len(box.sounds) == MOST_SOUND * 2 + 1 and box.sounds_dropped == 200 - len(box.sounds)


def test_a_kind_that_is_not_wanted_is_not_kept() -> None:
    silent, blind = begun(keep_sounds=False), begun(keep_frames=False)
    for box in (silent, blind):
        fill(box, sound(0), frame(0, 0), frame(0, 1), sound(1))
    assert order(silent) == "0.0 0.1" and order(blind) == "s0 s1"
    assert silent.heard == 1 and blind.seen == (0, 1)


@pytest.mark.parametrize(
    ("url", "socket"),
    [
        ("http://127.0.0.1:8080", "ws://127.0.0.1:8080/ws"),
        ("http://host/face/", "ws://host/face/ws"),
        ("https://host/?lang=de#x", "wss://host/ws?lang=de"),
        ("wss://host/face/ws", "wss://host/face/ws"),
        ("ws://[::1]:80/ws", "ws://[::1]:80/ws"),
        ("https://host/?token=secret&a=1", "wss://host/ws?a=1"),
        ("https://host/#token=secret", "wss://host/ws"),
    ],
)
def test_the_websocket_is_found_from_any_address(url: str, socket: str) -> None:
    address = parse_address(url)
    assert address.socket == socket and address.local == ("1" in url.split("//")[1].split("?", maxsplit=1)[0])
    assert address.token == ("secret" if "secret" in url else "")
    assert "secret" not in repr(address)
    assert parse_address(url, "given").headers == {"Authorization": "Bearer given"}


@pytest.mark.parametrize(
    "url", ["", "host:80", "ftp://host/?token=secret", "http:///x", "http://me:secret@host"]
)
def test_no_address_is_told_without_its_secrets(url: str) -> None:
    with pytest.raises(ValueError) as wrong:
        parse_address(url)
    assert "secret" not in str(wrong.value)
