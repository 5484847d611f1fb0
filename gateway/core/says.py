"""The texts that a session speaks: one after another, sentence by sentence, between the sound of the client.

A text and the client's sound take turns in the order in which they came. A client that is live, as a
microphone is, says nothing meanwhile: its sound is left out while texts are spoken.

Places are those of the session's log: samples of the client and of texts together. `client_position` counts
the client's alone, which is the number that the client knows.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from gateway.core.audio_log import ClipAudio
from gateway.core.pace import PacedInput
from gateway.core.sentences import sentences_of
from protocol.wire.clock import pts_after
from protocol.wire.controls import SayText
from protocol.wire.messages import Samples, Sentence, SpokenPart
from protocol.wire.phrases import coded, phrase

#: Seconds of speech that wait, below which the next sentence is asked for.
AHEAD = 6.0
#: Texts and characters that may wait.
MOST_TEXTS = 64
MOST_CHARACTERS = 20_000
#: Seconds without a piece of the sentence that was asked for, after which it counts as failed.
PATIENCE = 25.0
#: A text's type and its fields.
SayEvent = tuple[str, dict[str, object]]
#: Ways in which a text ends.
SAY_OUTCOMES = ("spoken", "interrupted", "failed")
#: Spans of spoken texts that are remembered. Clips are asked for soon after they were spoken.
_SPANS = 64


class TextStream(Protocol):
    """The session as its texts see it."""

    name: str
    epoch: int
    #: Whether the client's sound is a live one.
    live: bool
    #: Samples that have come from the client.
    received: int
    #: When the last sample came.
    speech_at: float
    input: PacedInput


@dataclass(eq=False)
class _Text:
    """A text on its way, from its arrival to its last word. Places are None until they are known."""

    say: SayText
    #: Sentences that were not asked for yet.
    sentences: deque[str]
    #: Places of its first sample, and of the one after its last.
    start: int | None = None
    end: int | None = None
    begun: bool = False
    #: When its last sample is played, and the pts after it.
    ends_at: float = float("inf")
    end_pts: int = 0
    #: Whether its end was told.
    over: bool = False


@dataclass
class _Asked:
    """The sentence that an engine makes now, how much of it came, and when the last piece did."""

    sentence: Sentence
    moved_at: float
    samples: int = 0


@dataclass(frozen=True)
class _PlayedClip:
    """A clip's sound, its rate, and when it begins to be played."""

    audio: ClipAudio
    rate: int
    starts_at: float


@dataclass
class _Spans:
    """Where the log has sound of texts: (place, place after it) in order."""

    spans: deque[tuple[int, int]] = field(default_factory=deque)
    #: Samples of texts in the spans that are forgotten.
    forgotten: int = 0

    def add(self, start: int, length: int) -> None:
        if self.spans and self.spans[-1][1] == start:
            self.spans[-1] = (self.spans[-1][0], start + length)
            return
        self.spans.append((start, start + length))
        if len(self.spans) > _SPANS:
            first, end = self.spans.popleft()
            self.forgotten += end - first

    def before(self, place: int) -> int:
        """Samples of texts before a place of the log."""
        return self.forgotten + sum(max(0, min(place, end) - start) for start, end in self.spans)

    def has(self, place: int) -> bool:
        """Whether the sample at a place is of a text."""
        return any(start <= place < end for start, end in self.spans)

    def borders(self, start: int, end: int) -> list[int]:
        """Places in between at which texts begin or end."""
        return sorted({place for span in self.spans for place in span if start < place < end})


class SayQueue:
    """A session's texts, and the sound of the client that came behind them."""

    def __init__(self, stream: TextStream) -> None:
        """Nothing is said yet. `stream`: the session."""
        self._stream = stream
        #: The engine's name, or empty where there is none, and the reason for that.
        self.engine, self.why_none = "", phrase("say_none")
        #: Counts the interruptions: sentences of an earlier turn are not wanted.
        self.turn = 0
        #: Samples of the client that wait behind a text.
        self.held = 0
        #: Samples of texts that were put into the input.
        self._put = 0
        #: Samples of a live client that are left out, because a text is spoken.
        self._left_out = 0
        self._next_seq = 0
        #: Texts and sound in their order. Empty sound stands for an end of speech.
        self._queue: deque[_Text | Samples] = deque()
        self._asked: _Asked | None = None
        #: Texts whose sound was put into the input and not played yet.
        self._sounding: list[_Text] = []
        self._spans = _Spans()
        #: The clip that began last.
        self._clip: _PlayedClip | None = None
        self._events: list[SayEvent] = []

    # ---- texts and sound in

    @property
    def busy(self) -> bool:
        """Whether sound that comes waits behind a text. Of a live client it would be heard too late."""
        return bool(self._queue) or (self._stream.live and self._stream.input.waiting_text > 0)

    @property
    def place(self) -> int:
        """The place after everything that was put into the input."""
        return self._stream.received - self.held - self._left_out + self._put

    def saying(self) -> list[str]:
        """The ids of all texts whose end was not told."""
        waiting = [entry for entry in self._queue if isinstance(entry, _Text)]
        return [text.say.id for text in dict.fromkeys([*self._sounding, *waiting]) if not text.over]

    def add(self, say: SayText) -> None:
        """Take a text. The end of one that cannot be taken is told at once."""
        waiting = [entry for entry in self._queue if isinstance(entry, _Text)]
        characters = sum(len(sentence) for text in waiting for sentence in text.sentences)
        text = _Text(say, deque(sentences_of(say.text)))
        if not self.engine:
            self._end(text, "failed", self.why_none)
        elif len(waiting) >= MOST_TEXTS or characters + len(say.text) > MOST_CHARACTERS:
            self._end(text, "failed", phrase("say_too_much"))
        elif not text.sentences:
            self._end(text, "spoken", phrase("say_no_word"))
        else:
            if not self._queue:
                self.let_sound_in()
                self._stream.input.end()
            self._queue.append(text)

    def hold(self, samples: Samples) -> None:
        """The client's sound, or by no samples the end of it, comes behind a text."""
        if self._stream.live:
            self._left_out += len(samples)
        else:
            self._queue.append(samples)
            self.held += len(samples)

    def let_sound_in(self) -> None:
        """Sound of the client comes, and no text: count the sound that was left out before it."""
        self._stream.input.skip(self._left_out)
        self._left_out = 0

    # ---- sentences out, and their sound in

    def next_sentence(self, rate: int, now: float) -> Sentence | None:
        """The sentence to ask an engine for now, at `rate` Hz."""
        head = self._queue[0] if self._queue else None
        ahead = self._stream.input.seconds_waiting > AHEAD
        if self._asked is not None or not isinstance(head, _Text) or ahead:
            return None
        self._next_seq += 1
        text = head.sentences.popleft()
        sentence = Sentence(self._stream.name, self.turn, self._next_seq, rate, head.say.voice, text)
        self._asked = _Asked(sentence, now)
        return sentence

    def take_part(self, part: SpokenPart, now: float) -> None:
        """Put a piece of the asked sentence into the input.

        A worker that took over from one that was lost begins at the sentence's beginning: what is here
        already is passed over.
        """
        asked, head = self._asked, self._queue[0] if self._queue else None
        if asked is None or not self._is_asked(part.epoch, part.seq) or not isinstance(head, _Text):
            return
        asked.moved_at = self._stream.speech_at = now
        samples = part.samples[max(0, asked.samples - part.position) :]
        if len(samples):
            if head.start is None:
                head.start = self.place
                self._sounding.append(head)
            self._spans.add(self.place, len(samples))
            self._put += len(samples)
            asked.samples += len(samples)
            self._stream.input.put(samples, text=True)
        if part.last:
            self._asked = None
            self._finish(head)

    def sentence_failed(self, epoch: int, seq: int, reason: str) -> None:
        """An engine cannot speak this sentence. The text ends after the sound that was made before."""
        head = self._queue[0] if self._queue else None
        if self._is_asked(epoch, seq) and isinstance(head, _Text):
            self._asked = None
            head.sentences.clear()
            self._end(head, "failed", reason)
            self._finish(head)

    def _is_asked(self, epoch: int, seq: int) -> bool:
        asked = self._asked
        return asked is not None and (epoch, seq) == (asked.sentence.epoch, asked.sentence.seq)

    def _finish(self, head: _Text) -> None:
        """If the text at the head is complete, let that come which waits behind it."""
        if head.sentences:
            return
        self._queue.popleft()
        if head.start is None:
            self._end(head, "spoken", "no sound was made of it")
        head.end = self.place
        source = self._stream.input
        source.end()
        while self._queue and not isinstance(self._queue[0], _Text):
            samples = self._queue.popleft()
            assert not isinstance(samples, _Text)
            self.held -= len(samples)
            if len(samples):
                source.put(samples)
            else:
                source.end()
        if self._queue:
            source.end()

    def interrupt(self) -> int:
        """Drop every text. Returns the turn that is over."""
        texts = [entry for entry in self._queue if isinstance(entry, _Text)]
        for text in dict.fromkeys([*self._sounding, *texts]):
            self._end(text, "interrupted", "")
        self._queue.clear()
        self._sounding.clear()
        self._asked = None
        self.held = self._left_out = 0
        self.turn += 1
        return self.turn - 1

    # ---- sound out

    def client_position(self, place: int) -> int:
        """Samples of the client before a place of the log."""
        return place - self._spans.before(place)

    def is_text(self, place: int) -> bool:
        """Whether the sample at a place of the log is of a text."""
        return self._spans.has(place)

    def parts_of(self, place: int, samples: Samples) -> list[tuple[Samples, bool]]:
        """Samples from a place on, cut where texts begin or end, and whether one does at the part's end."""
        end = place + len(samples)
        cuts = [border - place for border in self._spans.borders(place, end)]
        parts = np.split(samples, cuts)
        return [(part, number < len(cuts)) for number, part in enumerate(parts)]

    def clip_begins(self, audio: ClipAudio, rate: int, starts_at: float) -> None:
        """The sound of a clip goes to the client, and is played from `starts_at` on."""
        self._clip = _PlayedClip(audio, rate, starts_at)
        end = audio.position + len(audio.samples)
        for text in self._sounding:
            if text.start is None or text.start >= end:
                continue
            if not text.begun and not text.over:
                text.begun = True
                pts = audio.pts + pts_after(max(0, text.start - audio.position), rate)
                fields: dict[str, object] = {"id": text.say.id, "epoch": self._stream.epoch, "pts": pts}
                self._events.append(("say_started", fields))

    def _find_end(self, text: _Text) -> None:
        """Note where a text ends, once the clip with its last sample has begun."""
        if self._clip is None or text.end is None:
            return
        first, after = self._clip.audio.position, self._clip.audio.position + len(self._clip.audio.samples)
        known = text.ends_at < float("inf")
        if text.end > after or (known and text.end <= first):
            return
        left = max(0, text.end - first)
        text.ends_at = self._clip.starts_at + left / self._clip.rate
        text.end_pts = self._clip.audio.pts + pts_after(left, self._clip.rate)

    def look(self, now: float) -> None:
        """Tell the ends of texts whose last sample is played, and give up an engine that says nothing."""
        for text in self._sounding:
            self._find_end(text)
        for text in [text for text in self._sounding if text.ends_at <= now]:
            self._sounding.remove(text)
            self._end(text, "spoken", "")
        asked = self._asked
        if asked is not None and now - asked.moved_at > PATIENCE:
            reason = phrase("say_no_answer", seconds=f"{PATIENCE:g}")
            self.sentence_failed(asked.sentence.epoch, asked.sentence.seq, reason)

    def take_events(self) -> list[SayEvent]:
        """The events since the last call."""
        events, self._events = self._events, []
        return events

    def _end(self, text: _Text, outcome: str, message: str) -> None:
        if text.over:
            return
        text.over = True
        pts = text.end_pts if outcome == "spoken" and text.start is not None else None
        fields: dict[str, object] = {"id": text.say.id, "epoch": self._stream.epoch, "pts": pts}
        fields |= {"outcome": outcome, "message": message, "phrase": coded(message)}
        self._events.append(("say_ended", fields))
