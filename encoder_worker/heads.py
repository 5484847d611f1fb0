"""The decoders of the two heads of one VAE: the usual one, and the finer one of twice the side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from encoder_worker.graph_decoder import GraphDecoder
from encoder_worker.latents import DecodeError
from protocol.model.config import ConfigError
from protocol.process.logs import first_line

if TYPE_CHECKING:
    from encoder_worker.decode import ClipDecoder


class HeadDecoders:
    """Holds the decoders of the heads that may draw. All methods belong to the compute thread.

    A GPU worker goes from one head to the other while it is busy, so no clip may wait for a decoder then. By
    OpenVINO the second one takes 15 to 20 MiB.

    Args:
        make: makes the decoder of a head, by whether it is the finer one. It takes seconds.
        heads: whose decoders are made at once. Another head's is made when it is first asked for.

    Raises:
        Exception: whatever `make` raises.
    """

    def __init__(
        self,
        make: Callable[[bool], ClipDecoder | GraphDecoder],
        heads: Sequence[bool],
    ) -> None:
        self._make = make
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
                raise DecodeError(f"no decoder of that size: {first_line(error)}", fatal=True) from error
        return self._decoders[fine]
