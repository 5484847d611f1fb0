"""The decoders of the two heads of one VAE: the usual one, and the finer one of twice the side."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from encoder_worker.graph_decoder import GraphDecoder
from encoder_worker.latents import DecodeError
from protocol.model.config import ConfigError
from protocol.process.c_allocator import return_freed_memory
from protocol.process.logs import first_line
from protocol.wire.phrases import phrase

if TYPE_CHECKING:
    from encoder_worker.decode import ClipDecoder

#: Seconds after which the finer head's decoder gives memory back. A size comes back after 10 s or more.
UNUSED_AFTER = 5.0


class HeadDecoders:
    """Holds the decoders of the heads that may draw. All methods belong to the compute thread.

    A GPU worker goes from one head to the other while it is busy, so no clip may wait for a decoder then. By
    OpenVINO the second one takes 15 to 35 MiB. Most of that is given back while it draws nothing.

    Args:
        make: makes the decoder of a head, by whether it is the finer one. It takes seconds.
        heads: whose decoders are made at once. Another head's is made when it is first asked for.
        clock: time in seconds.

    Raises:
        Exception: whatever `make` raises.
    """

    def __init__(
        self,
        make: Callable[[bool], ClipDecoder | GraphDecoder],
        heads: Sequence[bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._make = make
        self._clock = clock
        #: When the finer head drew last, or None once its memory was given back.
        self._fine_at: float | None = clock()
        self._decoders = {fine: make(fine) for fine in heads}

    def get(self, *, fine: bool) -> ClipDecoder | GraphDecoder:
        """The decoder of a head.

        Raises:
            DecodeError: the VAE has no such head.
        """
        if fine not in self._decoders:
            try:
                self._decoders[fine] = self._make(fine)
            except ConfigError as error:
                why = phrase("failed_no_decoder", why=first_line(error))
                raise DecodeError(why, fatal=True) from error
        now = self._clock()
        if fine:
            self._fine_at = now
        elif self._fine_at is not None and now > self._fine_at + UNUSED_AFTER:
            self._fine_at = None
            self._release_finer()
        return self._decoders[fine]

    def _release_finer(self) -> None:
        decoder = self._decoders.get(True)
        graph = decoder if decoder is None or isinstance(decoder, GraphDecoder) else decoder.openvino
        if graph is not None:
            graph.release()
            return_freed_memory()
