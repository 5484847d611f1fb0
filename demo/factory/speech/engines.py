"""Speech engines that say when each phone sounds: flite, espeak-ng and festival (all offline).

Times are the engines' own: flite's segment ends, espeak-ng's phoneme events, festival's segment relation.
Audio comes back as float32 at 16 kHz.
"""

import ctypes
import itertools
import shutil
import subprocess
import tempfile
import wave
from pathlib import Path
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

from demo.factory.speech import phones as sets
from demo.factory.speech.phones import PAUSE, to_ipa
from demo.factory.speech.utterance import Utterance
from protocol.wire.clock import SAMPLE_RATE


class EngineError(RuntimeError):
    """An engine is missing or failed. The message names the package to install."""


def _to_16k(samples: NDArray[np.int16], rate: int) -> NDArray[np.float32]:
    floats = np.asarray(samples, dtype=np.float32) / 32768.0
    return floats if rate == SAMPLE_RATE else soxr.resample(floats, rate, SAMPLE_RATE).astype(np.float32)


def _read_wav(path: Path) -> tuple[NDArray[np.int16], int]:
    with wave.open(str(path)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), dtype="<i2"), file.getframerate()


def _chain(ends: list[tuple[float, str]], table: dict[str, str]) -> list[tuple[float, float, str]]:
    """Phones with start and end from (end, phone) pairs."""
    out, start = [], 0.0
    for end, phone in ends:
        if end > start:
            out.append((start, end, to_ipa(phone, table)))
            start = end
    return out


# --- flite ---------------------------------------------------------------------------------------------
def flite(voice: str, text: str, *, stretch: float = 1.0) -> Utterance:
    """Speak English with one of flite's voices. `stretch` multiplies all durations.

    Raises:
        EngineError: flite is missing or failed.
    """
    program = shutil.which("flite")
    if program is None:
        raise EngineError("flite is not installed; install it (Debian: apt-get install flite)")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
        command = [
            program,
            "-voice",
            voice,
            "--setf",
            f"duration_stretch={stretch:.3f}",
            "-psdur",
            "-t",
            text,
        ]
        done = subprocess.run(
            [*command, "-o", str(path)], capture_output=True, text=True, timeout=60, check=False
        )
        if done.returncode != 0 or not path.exists():
            raise EngineError(f"flite failed for voice {voice!r}: {done.stderr.strip()[:200]}")
        samples, rate = _read_wav(path)
    ends = [(float(end), phone) for phone, _, end in (item.partition(":") for item in done.stdout.split())]
    return Utterance(_to_16k(samples, rate), _chain(ends, sets.ARPABET), f"flite:{voice}", "en", text)


# --- espeak-ng -----------------------------------------------------------------------------------------
class _Id(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int), ("unique_identifier", ctypes.c_uint), ("text_position", ctypes.c_int),
        ("length", ctypes.c_int), ("audio_position", ctypes.c_int), ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p), ("id", _Id),
    )  # fmt: skip


_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)
_EVENT_END, _EVENT_PHONEME = 0, 7
_SYNCHRONOUS, _PHONEME_EVENTS, _PHONEME_IPA, _NO_EXIT = 2, 1, 2, 0x8000
_UTF8, _RATE, _PITCH, _RANGE = 1, 1, 3, 4


class Espeak:
    """libespeak-ng (1.50 or later) with its phoneme events (espeak-ng's speak_lib.h). One per process."""

    def __init__(self) -> None:
        try:
            self._library = ctypes.CDLL("libespeak-ng.so.1")
        except OSError as error:
            raise EngineError(
                "libespeak-ng.so.1 is not installed; install it (Debian: apt-get install espeak-ng)"
            ) from error
        options = _PHONEME_EVENTS | _PHONEME_IPA | _NO_EXIT
        self.rate = self._library.espeak_Initialize(_SYNCHRONOUS, 0, None, options)
        if self.rate <= 0:
            raise EngineError(
                "espeak-ng has no voice data; install it (Debian: apt-get install espeak-ng-data)"
            )
        self._audio = bytearray()
        self._events: list[tuple[int, str]] = []
        self._callback = _CALLBACK(self._collect)
        self._library.espeak_SetSynthCallback(self._callback)

    def _collect(self, wav: Any, count: int, events: Any) -> int:
        if count > 0:
            self._audio.extend(ctypes.string_at(wav, 2 * count))
        number = 0
        while events[number].type != _EVENT_END:
            event = events[number]
            if event.type == _EVENT_PHONEME:
                name = event.id.string.decode("utf-8", "ignore")
                if not name.startswith("("):  # "(en)": the language changes, nothing sounds
                    self._events.append((event.sample, name))
            number += 1
        return 0

    def speak(
        self, voice: str, text: str, *, speed: int = 165, pitch: int = 50, intonation: int = 50
    ) -> Utterance:
        """Speak with one of espeak-ng's voices.

        Args:
            voice: "language+variant".
            text: the sentence.
            speed: words a minute.
            pitch: 0 to 100.
            intonation: range of the pitch, 0 to 100.

        Raises:
            EngineError: there is no such voice.
        """
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise EngineError(f"espeak-ng has no voice {voice!r}")
        for parameter, value in ((_RATE, speed), (_PITCH, pitch), (_RANGE, intonation)):
            self._library.espeak_SetParameter(parameter, value, 0)
        self._audio.clear()
        self._events.clear()
        data = text.encode()
        self._library.espeak_Synth(data, len(data) + 1, 0, 0, 0, _UTF8, None, None)
        self._library.espeak_Synchronize()
        samples = np.frombuffer(bytes(self._audio), dtype="<i2")
        marks = [*self._events, (len(samples), PAUSE)]
        timed = [
            (start / self.rate, end / self.rate, PAUSE if name.strip() in sets.PAUSES else name.strip())
            for (start, name), (end, _) in itertools.pairwise(marks)
            if end > start
        ]
        return Utterance(
            _to_16k(samples, self.rate), timed, f"espeak:{voice}", voice.split("+", maxsplit=1)[0], text
        )


# --- festival ------------------------------------------------------------------------------------------
# Voice: language, text encoding, phone set.
FESTIVAL_VOICES = {
    "ked_diphone": ("en", "ascii", sets.ARPABET),
    "cmu_us_slt_arctic_hts": ("en", "ascii", sets.ARPABET),
    "lp_diphone": ("it", "latin-1", sets.ITALIAN),
    "pc_diphone": ("it", "latin-1", sets.ITALIAN),
    "czech_dita": ("cs", "iso8859-2", sets.CZECH),
    "czech_krb": ("cs", "iso8859-2", sets.CZECH),
    "czech_machac": ("cs", "iso8859-2", sets.CZECH),
    "czech_ph": ("cs", "iso8859-2", sets.CZECH),
    "suo_fi_lj_diphone": ("fi", "latin-1", sets.FINNISH),
    "hy_fi_mv_diphone": ("fi", "latin-1", sets.FINNISH),
    "msu_ru_nsh_clunits": ("ru", "utf-8", sets.RUSSIAN),
    "upc_ca_ona_hts": ("ca", "latin-1", sets.CATALAN),
}


def festival(voice: str, texts: list[tuple[str, float]]) -> list[Utterance]:
    """Speak each (text, duration factor) with a festival voice, in one process."""
    program = shutil.which("festival")
    if program is None:
        raise EngineError("festival is not installed; see demo/factory/speech/README.md for its packages")
    language, encoding, table = FESTIVAL_VOICES[voice]
    spoken = []
    with tempfile.TemporaryDirectory() as folder:
        script = [f"(voice_{voice})"]
        for number, (text, stretch) in enumerate(texts):
            clean = text.replace('"', " ").replace("\\", " ").replace("\u2019", "'")
            script += [
                f"(Parameter.set 'Duration_Stretch {stretch:.3f})",
                f'(set! u (SynthText "{clean}"))',
                f'(utt.save.wave u "{folder}/{number}.wav" \'riff)',
                f'(utt.save.segs u "{folder}/{number}.segs")',
            ]
        path = Path(folder) / "speak.scm"
        path.write_bytes("\n".join(script).encode(encoding, "replace"))
        done = subprocess.run([program, "-b", str(path)], capture_output=True, timeout=600, check=False)
        for number, (text, _) in enumerate(texts):
            wav, segments = Path(folder) / f"{number}.wav", Path(folder) / f"{number}.segs"
            if not (wav.exists() and segments.exists()):
                reason = done.stderr.decode("utf-8", "replace").strip()[:200]
                raise EngineError(
                    f"festival failed for voice {voice!r} (is its package installed?): {reason}"
                )
            samples, rate = _read_wav(wav)
            rows = [line.split() for line in segments.read_text(encoding="latin-1").splitlines()]
            ends = [(float(row[0]), row[2]) for row in rows if len(row) == 3]
            spoken.append(
                Utterance(_to_16k(samples, rate), _chain(ends, table), f"festival:{voice}", language, text)
            )
    return spoken
