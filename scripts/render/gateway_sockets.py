"""The gateway's two sockets towards the stages, for programs that take its place."""

from __future__ import annotations

import zmq

from protocol.hop.results import ResultServer
from protocol.hop.server import HopServer
from protocol.process.settings import Settings


class GatewaySockets:
    """The hop `pcm` and the results, bound where the run's stages look for them. Not thread-safe.

    Args:
        settings: of the run.

    Raises:
        EndpointError: an address cannot be bound.
    """

    def __init__(self, settings: Settings) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        key = settings.hop_key()
        self.hop = HopServer(
            self._context,
            settings.endpoint("pcm"),
            sticky=True,
            dead_after=settings.dead_after,
            name="pcm",
            key=key,
        )
        self.results = ResultServer(self._context, settings.endpoint("results"), key=key)
        self._poller = zmq.Poller()
        for sock in (self.hop.socket, self.results.socket):
            self._poller.register(sock, zmq.POLLIN)

    def wait(self, milliseconds: int) -> None:
        """Wait until a message is there, or the time is over."""
        self._poller.poll(milliseconds)

    def close(self) -> None:
        """Close both sockets."""
        self.hop.close()
        self.results.close()
        self._context.destroy(linger=200)
