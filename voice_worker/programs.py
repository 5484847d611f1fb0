"""Engines that are programs of this machine. The text goes to their standard input."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator, Sequence

from protocol.wire.messages import Samples
from protocol.wire.phrases import phrase
from voice_worker.engine_api import Cancellation, VoiceError
from voice_worker.wav_stream import WavReader

#: Bytes read at once: 0.2 s at 22 kHz.
_PIECE = 1 << 13
#: Seconds that a program may take for one sentence.
_WITHIN = 30.0


class EspeakEngine:
    """espeak-ng: many languages, a sentence in some milliseconds, streamed."""

    def __init__(self, voice: str | None) -> None:
        self._voice = voice or "en"
        self._program = _find("espeak-ng")

    def speak(self, text: str, voice: str, cancelled: Cancellation) -> Iterator[tuple[int, Samples]]:
        """As `SpeechEngine.speak`."""
        command = [self._program, "-b", "1", "-v", voice or self._voice, "--stdin", "--stdout"]
        process = _start(command, cancelled, stdout=subprocess.PIPE)
        # Another thread writes: the program may fill its output before it has read all of the text.
        threading.Thread(target=_feed, args=(process, text), daemon=True).start()
        reader = WavReader()
        with process:
            assert process.stdout is not None
            while data := os.read(process.stdout.fileno(), _PIECE):
                samples = reader.add(data)
                if len(samples):
                    yield reader.rate, samples
            _check_end(process, cancelled, "espeak-ng")


class FliteEngine:
    """flite: English, small. It writes a sentence in one go."""

    def __init__(self, voice: str | None) -> None:
        self._voice = voice or "slt"
        self._program = _find("flite")
        listed = subprocess.run([self._program, "-lv"], capture_output=True, text=True, check=False)
        #: Its own voices. Any other name would be opened as a file or fetched as an address.
        self._voices = listed.stdout.partition(":")[2].split()

    def speak(self, text: str, voice: str, cancelled: Cancellation) -> Iterator[tuple[int, Samples]]:
        """As `SpeechEngine.speak`."""
        if voice and voice not in self._voices:
            raise VoiceError(
                phrase("say_no_voice", engine="flite", voice=repr(voice), voices=", ".join(self._voices))
            )
        # flite seeks in its output, so a pipe would not do.
        file = os.memfd_create("speech")
        try:
            command = [self._program, "-voice", voice or self._voice, "-o", f"/proc/self/fd/{file}"]
            process = _start(command, cancelled, stdout=subprocess.DEVNULL, pass_fds=(file,))
            with process:
                _feed(process, text)
                _check_end(process, cancelled, "flite")
            reader = WavReader()
            os.lseek(file, 0, os.SEEK_SET)
            while not cancelled and (data := os.read(file, _PIECE * 4)):
                samples = reader.add(data)
                if len(samples):
                    yield reader.rate, samples
        finally:
            os.close(file)


def _find(name: str) -> str:
    program = shutil.which(name)
    if program is None:
        raise VoiceError(f"{name} is not installed; apt-get install {name}")
    return program


def _start(
    command: Sequence[str], cancelled: Cancellation, stdout: int, pass_fds: tuple[int, ...] = ()
) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=stdout, stderr=subprocess.PIPE, pass_fds=pass_fds
    )
    cancelled.on_cancel(process.kill)
    return process


def _feed(process: subprocess.Popen[bytes], text: str) -> None:
    assert process.stdin is not None
    try:
        process.stdin.write(text.encode() + b"\n")
        process.stdin.close()
    except OSError:  # it has ended, and its status says why
        pass


def _check_end(process: subprocess.Popen[bytes], cancelled: Cancellation, name: str) -> None:
    """Wait for the end. Raises VoiceError for a program that failed by itself."""
    assert process.stderr is not None
    try:
        status = process.wait(_WITHIN)
    except subprocess.TimeoutExpired:
        process.kill()
        raise VoiceError(f"{name} did not end within {_WITHIN:g} s") from None
    if status and not cancelled:
        told = process.stderr.read(2000).decode("utf-8", "replace").strip()
        raise VoiceError(
            phrase("say_engine_failed", engine=name, status=status, why=told or "it said nothing")
        )
