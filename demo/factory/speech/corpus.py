"""The speech corpus on disk: one npz, packed losslessly, read back as plain arrays.

Audio is int16, packed by `scripts.talk.packed_pcm`, so a training machine needs nothing but numpy.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from demo.factory.motion.mouth import TRACK_RATE, loudness_track, mouth_track
from demo.factory.motion.visemes import CHANNELS
from demo.factory.speech.opus import decode_opus, encode_opus
from demo.factory.speech.utterance import Utterance
from protocol.wire.clock import SAMPLE_RATE
from scripts.talk.packed_pcm import pack_pcm, unpack_pcm

FORMAT = 1


@dataclass
class Corpus:
    """U utterances end to end, with P phones.

    Attributes:
        audio: int16 (n,) at 16 kHz.
        starts: int64 (U + 1,), first sample of each utterance, and the end.
        phone_starts: int64 (U + 1,), first row of each utterance in the phone arrays, and the end.
        phone_begin: int32 (P,), samples from the start of the utterance.
        phone_end: int32 (P,), likewise.
        phone_id: int16 (P,), index in `phone_names`.
        phone_names: IPA.
        voice_id: int16 (U,), index in `voices`.
        voices: "engine:name" of each voice.
        held_out: bool (U,), whether training must not hear the utterance.
        texts: the sentences.
    """

    audio: NDArray[np.int16]
    starts: NDArray[np.int64]
    phone_starts: NDArray[np.int64]
    phone_begin: NDArray[np.int32]
    phone_end: NDArray[np.int32]
    phone_id: NDArray[np.int16]
    phone_names: list[str]
    voice_id: NDArray[np.int16]
    voices: list[str]
    held_out: NDArray[np.bool_]
    texts: list[str]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def samples(self, number: int) -> NDArray[np.int16]:
        """Audio of one utterance."""
        return self.audio[self.starts[number] : self.starts[number + 1]]

    def phones(self, number: int) -> list[tuple[float, float, str]]:
        """Start and end in seconds, and IPA, of each phone of one utterance."""
        rows = slice(self.phone_starts[number], self.phone_starts[number + 1])
        return [
            (begin / SAMPLE_RATE, end / SAMPLE_RATE, self.phone_names[name])
            for begin, end, name in zip(
                self.phone_begin[rows], self.phone_end[rows], self.phone_id[rows], strict=True
            )
        ]

    def minutes(self) -> dict[str, float]:
        """Minutes of audio by voice."""
        lengths = np.diff(self.starts) / SAMPLE_RATE / 60
        return {
            voice: float(lengths[self.voice_id == number].sum()) for number, voice in enumerate(self.voices)
        }


def picked_utterances(corpus: Corpus, picked: Sequence[int]) -> Corpus:
    """The corpus of these utterances alone. Voices and phones keep their numbers."""
    phones = [np.arange(corpus.phone_starts[u], corpus.phone_starts[u + 1]) for u in picked]
    pieces = [corpus.samples(u) for u in picked]
    rows = np.concatenate(phones)
    return replace(
        corpus,
        audio=np.concatenate(pieces),
        starts=np.cumsum([0, *map(len, pieces)]).astype(np.int64),
        phone_starts=np.cumsum([0, *map(len, phones)]).astype(np.int64),
        phone_begin=corpus.phone_begin[rows],
        phone_end=corpus.phone_end[rows],
        phone_id=corpus.phone_id[rows],
        voice_id=corpus.voice_id[list(picked)],
        held_out=corpus.held_out[list(picked)],
        texts=[corpus.texts[u] for u in picked],
    )


@dataclass
class MouthTracks:
    """Mouth tracks of all utterances end to end.

    Attributes:
        values: float32 (rows, 6), `CHANNELS` at 120 Hz.
        starts: int64 (U + 1,), first row of each utterance, and the end.
    """

    values: NDArray[np.float32]
    starts: NDArray[np.int64]


def mouth_tracks(corpus: Corpus) -> MouthTracks:
    """Mouth of every utterance at TRACK_RATE, row r of an utterance at r / 120 s."""
    values, starts = [], [0]
    for number in range(len(corpus)):
        samples = corpus.samples(number)
        times = np.arange(len(samples) * TRACK_RATE // SAMPLE_RATE + 1) / TRACK_RATE
        track = mouth_track(corpus.phones(number), times, loudness_track(samples, times))
        values.append(np.stack([track[name] for name in CHANNELS], axis=1))
        starts.append(starts[-1] + len(times))
    return MouthTracks(np.concatenate(values), np.array(starts, dtype=np.int64))


def build(utterances: list[Utterance], held_out: set[str]) -> Corpus:
    """Put utterances end to end. `held_out` names the voices that training never hears."""
    names: dict[str, int] = {}
    voices: dict[str, int] = {}
    begin, end, ids, phone_starts, pcm = [], [], [], [0], []
    for utterance in utterances:
        for start, stop, phone in utterance.phones:
            begin.append(round(start * SAMPLE_RATE))
            end.append(round(stop * SAMPLE_RATE))
            ids.append(names.setdefault(phone, len(names)))
        phone_starts.append(len(ids))
        pcm.append(np.clip(np.rint(utterance.audio * 32768.0), -32768, 32767).astype(np.int16))
        voices.setdefault(utterance.voice, len(voices))
    return Corpus(
        audio=np.concatenate(pcm),
        starts=np.cumsum([0, *map(len, pcm)]).astype(np.int64),
        phone_starts=np.array(phone_starts, dtype=np.int64),
        phone_begin=np.array(begin, dtype=np.int32),
        phone_end=np.array(end, dtype=np.int32),
        phone_id=np.array(ids, dtype=np.int16),
        phone_names=list(names),
        voice_id=np.array([voices[u.voice] for u in utterances], dtype=np.int16),
        voices=list(voices),
        held_out=np.array([u.voice in held_out for u in utterances], dtype=bool),
        texts=[u.text for u in utterances],
    )


_ARRAYS = ("starts", "phone_starts", "phone_begin", "phone_end", "phone_id", "voice_id", "held_out")
_LISTS = ("phone_names", "voices", "texts")


def save(corpus: Corpus, path: Path, *, lossy: bool = False) -> None:
    """Write the corpus as an npz without pickles. `lossy` packs its sound as Opus, a tenth of the size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {name: getattr(corpus, name) for name in _ARRAYS}
    arrays |= {name: np.array(getattr(corpus, name)) for name in _LISTS}
    arrays |= {
        "format": np.array(FORMAT),
        **({"opus": encode_opus(corpus.audio)} if lossy else pack_pcm(corpus.audio)),
    }
    np.savez_compressed(path, **arrays)


def load(path: Path) -> Corpus:
    """Read a corpus.

    Raises:
        ValueError: the file has another format.
        OSError: there is no such file.
    """
    with np.load(path, allow_pickle=False) as file:
        if "format" not in file or int(file["format"]) != FORMAT:
            raise ValueError(
                f"{path}: not a speech corpus of format {FORMAT};"
                " make it: python -m demo.factory.speech.make_speech"
            )
        audio = decode_opus(file["opus"]) if "opus" in file else unpack_pcm(file)
        fields: dict[str, Any] = {name: file[name] for name in _ARRAYS}
        fields |= {name: [str(item) for item in file[name]] for name in _LISTS}
    return Corpus(audio=audio, **fields)
