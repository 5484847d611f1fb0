"""The decoders of the two heads of one VAE: the usual one, and the finer one of twice the side."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from encoder_worker.graph_decoder import GraphDecoder
from encoder_worker.latents import DecodeError
from protocol.model.config import ConfigError
from protocol.process.logs import first_line

if TYPE_CHECKING:
    from encoder_worker.decode import ClipDecoder

#: Seconds after which a decoder that nobody asks for any more is let go, for its memory.
UNUSED_AFTER = 30.0


class HeadDecoders:
    """Makes each decoder when it is first asked for. All methods belong to the compute thread.

    Args:
        make: makes the decoder of a head, by whether it is the finer one. It takes seconds.
        fine: whether the first decoder, which is made at once, is the finer head's.
        clock: time in seconds.

    Raises:
        Exception: whatever `make` raises.
    """

    def __init__(
        self,
        make: Callable[[bool], ClipDecoder | GraphDecoder],
        *,
        fine: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._make = make
        self._clock = clock
        self._decoders = {fine: make(fine)}
        self._used = {fine: clock()}

    def get(self, *, fine: bool) -> ClipDecoder | GraphDecoder:
        """The decoder of a head.

        Raises:
            DecodeError: the VAE has no such head.
        """
        if fine not in self._decoders:
            try:
                self._decoders[fine] = self._make(fine)
            except ConfigError as error:
                raise DecodeError(f"no decoder of that size: {first_line(error)}", fatal=True) from error
        now = self._clock()
        self._used[fine] = now
        if self._used.get(not fine, now) < now - UNUSED_AFTER:
            del self._decoders[not fine], self._used[not fine]
        return self._decoders[fine]
