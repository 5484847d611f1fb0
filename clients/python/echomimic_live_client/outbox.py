"""Sound on its way to the server: kept until it came back, and sent no further ahead than the server takes.

No I/O. Positions count every sample that was pushed, from 0, over all connections.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from echomimic_live_client.wire import Samples

#: Seconds of sound that may be sent and not yet back. The server ends a session with more than 20 s waiting.
AHEAD = 8.0
#: Samples of the longest message.
MESSAGE_SAMPLES = 8192


class Outbox:
    """The samples of one client, in three parts: come back, sent, and waiting to be sent.

    Args:
        rate: samples a second.
        ahead: seconds that may be sent and not yet back.

    Attributes:
        pushed: samples that were pushed.
        sent: samples that were sent on this connection or had by the server before.
        returned: samples up to the end of the last sound that came back.
        finished: whether no more will be pushed.
    """

    def __init__(self, rate: int, ahead: float = AHEAD) -> None:
        self.rate = rate
        self.pushed = self.sent = self.returned = 0
        self.finished = False
        self._ahead = ahead
        self._waiting: deque[Samples] = deque()
        #: Sent and not yet back, from `returned` to `sent`.
        self._kept: deque[Samples] = deque()
        #: Positions at which speech ends, of the samples in `_waiting` and in `_kept`.
        self._ends: deque[int] = deque()
        self._kept_ends: deque[int] = deque()

    @property
    def waiting(self) -> int:
        """Samples that were pushed and not yet sent."""
        return self.pushed - self.sent

    def push(self, samples: Samples) -> None:
        """Add samples, shape (n,). They are not copied."""
        # Pieces, so that the memory of a long speech is freed as it comes back.
        for start in range(0, len(samples), MESSAGE_SAMPLES):
            self._waiting.append(samples[start : start + MESSAGE_SAMPLES].copy())
        self.pushed += len(samples)

    def end_speech(self) -> None:
        """Speech ends after everything that was pushed."""
        if not self._ends or self._ends[-1] != self.pushed:
            self._ends.append(self.pushed)

    def next_is_end(self) -> bool:
        """Whether the end of speech is to be told now. It counts as told."""
        if self._ends and self._ends[0] <= self.sent:
            self._kept_ends.append(self._ends.popleft())
            return True
        return False

    def next_samples(self) -> Samples | None:
        """The samples of the next message, shape (n,), or None while none may be sent. They count as sent."""
        room = int(self._ahead * self.rate) - (self.sent - self.returned)
        if self._ends:
            room = min(room, self._ends[0] - self.sent)
        parts: list[Samples] = []
        free = min(room, MESSAGE_SAMPLES)
        while self._waiting and free > 0:
            piece = self._waiting.popleft()
            if len(piece) > free:
                self._waiting.appendleft(piece[free:])
                piece = piece[:free]
            parts.append(piece)
            free -= len(piece)
        if not parts:
            return None
        samples = np.concatenate(parts)
        self._kept.append(samples)
        self.sent += len(samples)
        return samples

    def came_back(self, position: int) -> None:
        """The server has sent back the sound up to `position`: it is not needed any more."""
        position = min(position, self.sent)
        while self._kept and self.returned < position:
            piece = self._kept.popleft()
            done = min(len(piece), position - self.returned)
            self.returned += done
            if done < len(piece):
                self._kept.appendleft(piece[done:])
        while self._kept_ends and self._kept_ends[0] <= self.returned:
            self._kept_ends.popleft()

    def go_on_at(self, position: int) -> None:
        """Another connection: the server has had the sound up to `position`, and takes the rest."""
        position = max(self.returned, min(position, self.sent))
        while self._kept and self.sent > position:
            piece = self._kept.pop()
            begin = self.sent - len(piece)
            here = max(0, position - begin)
            if here:
                self._kept.append(piece[:here])
            self._waiting.appendleft(piece[here:])
            self.sent = begin + here
        # An end at this very place may not have arrived. Told twice, it does nothing.
        while self._kept_ends and self._kept_ends[-1] >= self.sent:
            self._ends.appendleft(self._kept_ends.pop())

    def drop(self, rate: int | None = None) -> None:
        """Forget the sound that is not back, which counts as spoken. Go on at `rate` if one is given."""
        self._waiting.clear()
        self._kept.clear()
        self._ends.clear()
        self._kept_ends.clear()
        self.pushed = self.returned = self.sent
        self.rate = rate or self.rate
