"""How fast a client's samples go to the audio worker: in real time, with a small head start.

A live microphone never notices it. A client that pours in a whole file is slowed to real time. A client that
keeps more samples waiting than the bound gets an error.

After a network stood still, the sound of a live client comes all at once. It catches up: sound older
than `MOST_BEHIND` is left out, then pauses are cut, then speech is made faster until it is `CALM` behind.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

import numpy as np

from gateway.core.hasten import BLOCK, cuts_of, without_cuts
from protocol.wire.browser import BrowserError
from protocol.wire.messages import Samples

#: A client's clock may run faster than real time by this factor without being slowed.
TOLERANCE = 1.02
#: Seconds that live sound may be behind real time before it catches up.
BEHIND = 0.6
#: Seconds behind real time at which live sound has caught up.
CALM = 0.4
#: Seconds behind real time beyond which live sound is left out.
MOST_BEHIND = 2.0


@dataclass
class _WaitingPart:
    """Samples that wait for the audio worker.

    Attributes:
        samples: at the client's rate.
        cut: how many samples were cut out of them.
        final: whether no more may be cut.
        ends: whether speech ends behind them. The samples that follow are then taken by another call.
        text: whether they were made of a text.
    """

    samples: Samples
    cut: int = 0
    final: bool = False
    ends: bool = False
    text: bool = False


class PacedInput:
    """Samples that wait for the audio worker, released in real time with a small head start."""

    def __init__(self, rate: int, *, ahead: float = 1.0, high: float = 2.0, bound: float = 120.0) -> None:
        """Hold nothing yet.

        Args:
            rate: samples a second.
            ahead: seconds of head start.
            high: seconds waiting at which the client should not be read any more (`full`).
            bound: seconds waiting at which the client gets an error.
        """
        self._rate = rate
        self._speed = rate * TOLERANCE
        self._ahead = ahead
        self._high = high
        self._bound = bound
        self._parts: deque[_WaitingPart] = deque()
        self._free_at = 0.0  # when, at real time, everything taken so far has been spoken
        self.waiting = 0
        #: How many of those were made of a text.
        self.waiting_text = 0
        self._cut_out = 0
        self._left_out = 0
        #: Whether an end of speech follows on the samples that were taken last.
        self.at_end = False
        #: Whether live sound is catching up.
        self.behind = False
        #: Seconds behind real time beyond which live sound is left out, until it has caught up.
        self.most_behind = MOST_BEHIND

    @property
    def room(self) -> int:
        """Samples that may come before the client gets an error."""
        return int(self._bound * self._rate) - self.waiting

    @property
    def full(self) -> bool:
        """Whether the client should not be read any more."""
        return self.waiting > self._high * self._rate

    @property
    def ends(self) -> bool:
        """Whether an end of speech follows on the samples that wait."""
        return self.at_end or bool(self._parts and self._parts[-1].ends)

    @property
    def seconds_waiting(self) -> float:
        """Seconds of speech that are not yet on their way to the audio worker."""
        return self.waiting / self._rate

    @property
    def seconds_faster(self) -> float:
        """Seconds that live speech has won by shorter pauses and faster speech."""
        return max(0, self._cut_out) / self._rate

    @property
    def seconds_left_out(self) -> float:
        """Seconds of live speech that were too late to be spoken."""
        return self._left_out / self._rate

    def put(self, samples: Samples, text: bool = False) -> None:
        """Add samples. Raises BrowserError("too_fast") past the bound, unless they were made of a text."""
        if not text and self.waiting + len(samples) > self._bound * self._rate:
            raise BrowserError(
                "too_fast",
                f"more than {self._bound:g} s of audio waits to be spoken; send it no faster than real time",
            )
        if len(samples):
            self._parts.append(_WaitingPart(samples, final=text, text=text))
            self.waiting += len(samples)
            self.waiting_text += len(samples) if text else 0

    def end(self) -> None:
        """Speech ends behind everything that was put."""
        if self._parts:
            self._parts[-1].ends = self._parts[-1].final = True
        else:
            self.at_end = True

    def skip(self, count: int) -> None:
        """So many samples of the client more are left out, behind everything that was put."""
        if count:
            self._parts.append(_WaitingPart(np.empty(0, np.float32), count, final=True))
            self._left_out += count

    def catch_up(self, now: float) -> int:
        """Shorten the sound of a live client that is behind real time.

        Returns:
            How many of the oldest samples were left out, with those that were cut out of them before.
        """
        seconds = max(0.0, self._free_at - now) + self.waiting / self._rate
        was_behind, self.behind = self.behind, seconds > (CALM if self.behind else BEHIND)
        if not self.behind:
            if was_behind:
                self.most_behind = MOST_BEHIND
            return 0
        left_out = self._leave_out(int((seconds - self.most_behind) * self._rate))
        self._cut(int((min(seconds, self.most_behind) - CALM) * self._rate))
        return left_out

    @property
    def gathering(self) -> bool:
        """Whether more sound is wanted before some is taken, so that it can be cut."""
        return self.behind and self.waiting < BLOCK * self._rate

    def _leave_out(self, count: int) -> int:
        left = max(0, min(count, self.waiting))
        self.waiting -= left
        gone = left
        while left:
            part = self._parts.popleft()
            if len(part.samples) > left:
                self._parts.appendleft(replace(part, samples=part.samples[left:]))
            else:
                gone += part.cut
                self._cut_out -= part.cut
                self.at_end = self.at_end or part.ends
            left -= min(left, len(part.samples))
        self._left_out += gone
        return gone

    def _cut(self, most: int) -> None:
        """Cut at most this many samples out of the parts that are not final, and make them one part."""
        parts: list[_WaitingPart] = []
        while self._parts and not self._parts[-1].final:
            parts.insert(0, self._parts.pop())
        samples = _join([part.samples for part in parts])
        cuts = cuts_of(samples, self._rate, most)
        if not cuts:
            self._parts.extend(parts)
            return
        rest = without_cuts(samples, self._rate, cuts)
        count = len(samples) - len(rest)
        self._parts.append(_WaitingPart(rest, count, final=True))
        self.waiting -= count
        self._cut_out += count

    def take(self, now: float, most: int | None = None) -> tuple[Samples, int]:
        """The samples that may go to the audio worker now, shape (n,), and how many were cut out of them.

        It goes no further than an end of speech, which `at_end` then tells, and takes no more than `most`.
        """
        allowed = int((now + self._ahead - max(self._free_at, now)) * self._speed)
        allowed = allowed if most is None else min(allowed, most)
        taken: list[Samples] = []
        count = cut = 0
        while self._parts and count < allowed and not self.at_end:
            part = self._parts.popleft()
            samples = part.samples
            if count + len(samples) > allowed:
                samples = samples[: allowed - count]
                self._parts.appendleft(replace(part, samples=part.samples[len(samples) :]))
            else:
                cut += part.cut
                self.at_end = part.ends
            taken.append(samples)
            self.waiting_text -= len(samples) if part.text else 0
            count += len(samples)
        self.waiting -= count
        self._free_at = max(self._free_at, now) + count / self._speed
        return _join(taken), cut

    def charge(self, seconds: float, now: float) -> None:
        """Count `seconds` of padding as spoken: a clip costs its whole length, however little it holds."""
        self._free_at = max(self._free_at, now) + seconds / TOLERANCE

    def wait(self, now: float, least: float = 0.02) -> float | None:
        """Seconds until `least` seconds of audio may be taken. None when none waits."""
        if not self.waiting:
            return None
        return max(0.0, self._free_at + least - self._ahead - now)


def _join(parts: list[Samples]) -> Samples:
    return np.concatenate(parts) if parts else np.empty(0, np.float32)
