"""Sound out of a WAV file that is still being written, whose header does not know the length."""

from __future__ import annotations

import numpy as np

from protocol.wire.messages import Samples
from voice_worker.engine_api import VoiceError

#: Bytes within which the sound begins.
_LONGEST_HEADER = 4096


class WavReader:
    """Takes the bytes of a WAV file of 16 bits in pieces of any size, and gives their samples.

    Bytes that do not begin as a WAV file are taken for int16 at `raw_rate`.
    """

    def __init__(self, raw_rate: int = 24000) -> None:
        #: In Hz, 0 until it is known.
        self.rate = 0
        self._raw_rate = raw_rate
        self._channels = 1
        self._rest = b""

    def add(self, data: bytes) -> Samples:
        """The samples that `data` completes, float32 (n,), channels averaged.

        Raises:
            VoiceError: the file is of another kind.
        """
        self._rest += data
        if not self.rate and not self._read_header():
            return np.empty(0, np.float32)
        step = 2 * self._channels
        whole = len(self._rest) // step * step
        samples = np.frombuffer(self._rest[:whole], "<i2").astype(np.float32) / 32768
        self._rest = self._rest[whole:]
        mono: Samples = samples.reshape(-1, self._channels).mean(axis=1, dtype=np.float32)
        return mono

    def _read_header(self) -> bool:
        """Find the sound. False until enough bytes are here."""
        if len(self._rest) < 12:
            return False
        if self._rest[:4] != b"RIFF":
            self.rate = self._raw_rate
            return True
        place = 12
        while place + 8 <= len(self._rest):
            name = self._rest[place : place + 4]
            size = int.from_bytes(self._rest[place + 4 : place + 8], "little")
            if name == b"data":
                if not self.rate:
                    raise VoiceError("the engine's sound has no format")
                self._rest = self._rest[place + 8 :]
                return True
            if name == b"fmt ":
                if place + 24 > len(self._rest):
                    break
                self._read_format(self._rest[place + 8 : place + 24])
            place += 8 + size + size % 2
        if len(self._rest) > _LONGEST_HEADER:
            raise VoiceError("the engine's sound is no WAV file")
        self.rate = 0  # it is read again with more bytes
        return False

    def _read_format(self, chunk: bytes) -> None:
        channels, bits = int.from_bytes(chunk[2:4], "little"), int.from_bytes(chunk[14:16], "little")
        rate = int.from_bytes(chunk[4:8], "little")
        if bits != 16 or not 1 <= channels <= 8 or not 4000 <= rate <= 192000:
            raise VoiceError(f"the engine's sound has {bits} bits, {channels} channels and {rate} Hz")
        self.rate, self._channels = rate, channels
