"""The queue of texts: turns, failures, interruptions, positions, with a clock of its own."""

from __future__ import annotations

import numpy as np

from gateway.core.audio_log import ClipShape
from gateway.core.options import SessionLimits, SessionOptions
from gateway.core.says import MOST_TEXTS, PATIENCE
from gateway.core.session import SessionCore
from protocol.wire.controls import SayText
from protocol.wire.messages import Frame, Pcm, Sentence, SpokenPart

OPTIONS = SessionOptions("a", "p", ClipShape(24, 12), 16000)


def new_core(live: bool = False) -> SessionCore:
    core = SessionCore("s", 2, OPTIONS, SessionLimits(), 0.0)
    core.says.engine, core.live = "espeak-ng", live
    return core


def sound(seconds: float, value: float = 0.5) -> np.ndarray:
    return np.full(round(seconds * 16000), value, np.float32)


def say(core: SessionCore, text: str = "One. Two.", own_id: str = "x") -> None:
    core.says.add(SayText(text, "", own_id))


def asked(core: SessionCore, now: float = 0.0) -> Sentence:
    sentence = core.says.next_sentence(16000, now)
    assert sentence is not None
    return sentence


def answer(
    core: SessionCore, sentence: Sentence, seconds: float, position: int = 0, last: bool = True
) -> None:
    part = SpokenPart("s", sentence.epoch, sentence.seq, position, last, sound(seconds, 0.25))
    core.says.take_part(part, 0.0)


def feed(core: SessionCore, seconds: float = 10.0) -> list[Pcm]:
    """Everything that goes to the audio worker in this time."""
    return [pcm for step in range(round(seconds * 50)) for pcm in core.next_pcm(step / 50, 0)]


def spoken(messages: list[Pcm]) -> np.ndarray:
    return np.concatenate([pcm.samples for pcm in messages])


def ends(core: SessionCore) -> list[tuple[object, object]]:
    return [(f["id"], f["outcome"]) for kind, f in core.take_events() if kind == "say_ended"]


def test_sound_and_texts_take_turns_and_no_clip_has_both() -> None:
    core = new_core()
    core.add_speech(sound(0.3), 0.0)
    say(core)
    core.add_speech(sound(0.2), 0.0)
    first = asked(core)
    assert first.text == "One." and core.says.next_sentence(16000, 0.0) is None
    answer(core, first, 0.4)
    answer(core, asked(core), 0.3)
    assert not core.says.busy and core.says.held == 0
    messages = feed(core)
    assert len(spoken(messages)) == 19200
    clips: dict[int, set[float]] = {}
    for pcm in messages:
        clips.setdefault(pcm.pts // 8000, set()).update(pcm.samples.tolist())
    assert [clips[clip] for clip in sorted(clips)] == [{0.5}, {0.25}, {0.25}, {0.5}]


def test_positions_count_the_clients_samples_alone() -> None:
    core = new_core()
    core.add_speech(sound(0.5), 0.0)
    say(core, "One.")
    core.add_speech(sound(0.5), 0.0)
    answer(core, asked(core), 0.5)
    feed(core)
    for clip in range(3):
        for index in range(12):
            core.add_frame(Frame("s", 0, clip, index, 12, clip * 8000 + index * 667, 8, 8, b"j"), 11.0)
    positions = [core.says.client_position(place) for place in (0, 8000, 12000, 16000, 24000)]
    assert positions == [0, 8000, 8000, 8000, 16000]
    assert [core.says.is_text(place) for place in (0, 7999, 8000, 15999, 16000)] == [
        False,
        False,
        True,
        True,
        False,
    ]
    assert core.received == 16000


def test_a_live_client_says_nothing_while_a_text_is_spoken() -> None:
    core = new_core(live=True)
    core.add_speech(sound(0.1), 0.0)
    say(core, "One.")
    core.add_speech(sound(0.4), 0.0)  # nobody asked for it
    answer(core, asked(core), 0.5)
    core.add_speech(sound(0.1), 0.1)
    messages = feed(core)
    assert spoken(messages).tolist() == [0.5] * 1600 + [0.25] * 8000
    core.add_speech(sound(0.2), 10.0)
    # what was left out counts, so that the client finds its own samples again
    assert core.says.place == core.received + 8000
    later = core.next_pcm(10.1, 0)
    assert len(spoken(later)) == 3200
    assert core._log.position == core.says.place


def test_pieces_that_come_twice_are_put_once() -> None:
    core = new_core()
    say(core, "One.")
    sentence = asked(core)
    answer(core, sentence, 0.3, last=False)
    answer(core, sentence, 0.2, last=False)  # another worker begins anew
    answer(core, sentence, 0.3, position=3200)
    assert core.says.place == 8000


def test_an_interrupt_ends_all_texts_and_late_pieces_are_ignored() -> None:
    core = new_core()
    say(core, own_id="a")
    say(core, own_id="b")
    sentence = asked(core)
    answer(core, sentence, 0.3, last=False)
    core.interrupt(0.5)
    assert ends(core) == [("a", "interrupted"), ("b", "interrupted")]
    answer(core, sentence, 0.3, position=4800)
    assert not core.says.busy and core.says.next_sentence(16000, 0.5) is None
    say(core, "Three.", "c")
    assert asked(core).epoch == sentence.epoch + 1


def test_a_text_ends_when_it_was_played() -> None:
    core = new_core()
    say(core, "One.", "a")
    answer(core, asked(core), 0.7)
    feed(core, 0.3)
    for clip, count in ((0, 12), (1, 12)):
        for index in range(count):
            core.add_frame(Frame("s", 0, clip, index, 12, clip * 8000 + index * 667, 8, 8, b"j"), 1.0)
    core.next_messages(1.0, True)
    assert [kind for kind, _ in core.take_events() if kind.startswith("say")] == ["say_started"]
    core.next_messages(1.65, True)
    assert ends(core) == []
    core.next_messages(1.75, True)
    events = [fields for kind, fields in core.take_events() if kind == "say_ended"]
    assert [(e["pts"], e["outcome"]) for e in events] == [(11200, "spoken")]


def test_failures_end_a_text_with_their_reason() -> None:
    core = new_core()
    say(core, own_id="a")
    sentence = asked(core)
    core.says.sentence_failed(sentence.epoch, sentence.seq, "no such voice")
    assert [f["message"] for _, f in core.take_events()] == ["no such voice"]
    say(core, own_id="b")
    asked(core, 1.0)
    core.next_messages(1.0 + PATIENCE + 0.1, True)
    assert ends(core) == [("b", "failed")] and not core.says.busy
    core.says.engine, core.says.why_none = "", "install one"
    say(core, own_id="c")
    assert ends(core) == [("c", "failed")]


def test_texts_that_wait_are_bounded() -> None:
    core = new_core()
    for number in range(MOST_TEXTS + 2):
        say(core, "Word.", str(number))
    assert len(ends(core)) == 2
    assert len(core.says.saying()) == MOST_TEXTS


def test_a_new_epoch_keeps_the_borders_of_texts() -> None:
    core = new_core()
    core.add_speech(sound(0.3), 0.0)
    say(core, "One.")
    answer(core, asked(core), 0.3)
    feed(core, 0.5)
    core.restart(OPTIONS, 0.5)
    carried = core.next_pcm(0.5, 0)
    assert {round(float(pcm.samples[-1]), 2) for pcm in carried if len(pcm.samples)} == {0.5, 0.25}
    assert {pcm.pts // 8000 for pcm in carried} == {0, 1}


def test_a_pause_of_a_burst_is_not_padded_while_clips_are_played() -> None:
    """Sound comes in pieces of 0.7 s with 0.7 s in between, once a second of it is being played."""
    core = new_core()
    core.add_speech(sound(1.2), 0.0)
    feed(core, 0.02)
    for clip in range(2):
        for index in range(12):
            core.add_frame(Frame("s", 0, clip, index, 12, clip * 8000 + index * 667, 8, 8, b"j"), 0.1)
    core.next_messages(0.1, True)  # two clips are played until 1.1
    assert not any(pcm.flush for step in range(20) for pcm in core.next_pcm(0.02 + step / 50, 0))
    assert any(pcm.flush for step in range(60) for pcm in core.next_pcm(0.42 + step / 50, 0))
