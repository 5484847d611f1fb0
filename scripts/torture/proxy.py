"""A network between a client and the gateway: a TCP proxy that is slow, stands still and breaks."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections import deque

#: Bytes that are on their way in one direction. More wait in the sender's buffers, as with a real network.
ON_THE_WAY = 1 << 17
#: Bytes that are read at once.
READ = 1 << 14


class PoorNetwork:
    """Carries every connection to `port`, in the order of its bytes.

    Attributes:
        port: where it listens.
        resets: connections that it broke.
    """

    def __init__(self, target: int, *, delay: float = 0.0, jitter: float = 0.0, seed: int = 0) -> None:
        """Carry nothing yet.

        Args:
            target: port on this machine to carry to.
            delay: seconds that bytes take in one direction.
            jitter: seconds by which each piece takes more or less than that.
            seed: of the jitter.
        """
        self.port = 0
        self.resets = 0
        self._target = target
        self._delay, self._jitter = delay, jitter
        self._random = random.Random(seed)
        self._moves = asyncio.Event()
        self._moves.set()
        self._connections: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()

    @property
    def url(self) -> str:
        """Address of the gateway behind the network."""
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> PoorNetwork:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_exc: object) -> None:
        self._server.close()
        self._break_all()

    def reset(self) -> None:
        """Break every connection at once (RST). Bytes on their way are lost."""
        self.resets += 1
        self._break_all()

    async def stand_still(self, seconds: float) -> None:
        """Nothing moves for this time. Then all of it comes."""
        self._moves.clear()
        await asyncio.sleep(seconds)
        self._moves.set()

    def _break_all(self) -> None:
        for ends in self._connections:
            for end in ends:
                sock = end.get_extra_info("socket")
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._moves.wait()
        await asyncio.sleep(self._seconds())
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        ends = (writer, far_writer)
        self._connections.add(ends)
        ways = [self._way(reader, far_writer), self._way(far_reader, writer)]
        try:
            await asyncio.gather(*ways, return_exceptions=True)
        except asyncio.CancelledError:
            pass  # the network is gone
        finally:
            self._connections.discard(ends)
            for end in ends:
                end.close()

    def _seconds(self) -> float:
        return max(0.0, self._delay + self._random.uniform(-self._jitter, self._jitter))

    async def _way(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one direction: bytes arrive in order, each piece no sooner than its time."""
        loop = asyncio.get_running_loop()
        pieces: deque[tuple[float, bytes]] = deque()
        came, room = asyncio.Event(), asyncio.Event()
        on_the_way = 0

        async def deliver() -> None:
            nonlocal on_the_way
            while True:
                while not pieces:
                    came.clear()
                    await came.wait()
                due, data = pieces[0]
                await asyncio.sleep(max(0.0, due - loop.time()))
                await self._moves.wait()
                pieces.popleft()
                if not data:
                    writer.write_eof()
                    return
                writer.write(data)
                await writer.drain()
                on_the_way -= len(data)
                room.set()

        delivery = asyncio.create_task(deliver())
        try:
            while not delivery.done():
                data = await reader.read(READ)
                pieces.append((loop.time() + self._seconds(), data))
                on_the_way += len(data)
                came.set()
                if not data:
                    break
                while on_the_way > ON_THE_WAY and not delivery.done():
                    room.clear()
                    await asyncio.wait(
                        [delivery, asyncio.create_task(room.wait())], return_when="FIRST_COMPLETED"
                    )
            await delivery
        except (ConnectionError, OSError):
            writer.transport.abort()
        finally:
            delivery.cancel()
