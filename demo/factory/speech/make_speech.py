"""Make the training speech: `python -m demo.factory.speech.make_speech [--out FILE] [--scale FACTOR]
[--no-festival] [--opus]`.

Every voice speaks sentences, or words by chance, at changing rates and pitches. Recorded voices are also
resampled by up to ±12 %, which shifts pitch and formants as another speaker's throat would. Seeds are fixed.
"""

import argparse
import json
import logging
import random
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import soxr

from demo.factory.speech import corpus as corpora
from demo.factory.speech import engines, texts
from demo.factory.speech.closures import refine_closures
from demo.factory.speech.engines import Espeak
from demo.factory.speech.utterance import Utterance
from demo.factory.speech.words import DictionaryError, take_words
from protocol.wire.clock import SAMPLE_RATE

FOLDER = Path(__file__).resolve().parent
SPLIT = FOLDER / "split.json"
OUTPUT = FOLDER / "build" / "speech.npz"
#: RMS while speaking, of full scale. It keeps the file small, and training changes the gain anyway.
SPEECH_RMS = 0.025
#: Seconds of silence kept before and after a sentence.
LEAD, TAIL = 0.15, 0.45
#: Share of utterances that are words by chance. English has templates, the other languages a few sentences.
WORDS_ENGLISH, WORDS_OTHERS = 0.4, 0.75
#: The written split, as JSON.
Split = dict[str, Any]
logger = logging.getLogger(__name__)

_RECORDED = {"flite:slt": 5.0, "flite:awb": 4.0, "flite:kal16": 2.0}
_FESTIVAL = {
    "festival:ked_diphone": 1.6, "festival:cmu_us_slt_arctic_hts": 1.2, "festival:lp_diphone": 1.2,
    "festival:czech_dita": 0.8, "festival:czech_krb": 0.6, "festival:czech_machac": 0.8,
    "festival:czech_ph": 0.6, "festival:suo_fi_lj_diphone": 0.6, "festival:hy_fi_mv_diphone": 0.6,
    "festival:msu_ru_nsh_clunits": 0.9, "festival:upc_ca_ona_hts": 0.6,
}  # fmt: skip
# espeak-ng: language file, language of the texts, minutes, variants (all spoken in turn).
_ESPEAK = (
    ("en-US", "en", 2.2, ("m3", "f2", "f4", "m7", "Andrea", "Alex", "edward", "belinda")),
    ("en", "en", 1.2, ("m1", "f3", "Annie", "david")),
    (
        "en-US",
        "en",
        2.0,
        ("Denis", "Gene", "Jacky", "john", "Marco", "max", "quincy", "zac", "anika", "klatt3"),
    ),
    ("en-GB-x-rp", "en", 0.8, ("Andy", "benjamin", "Lee", "grandpa")),
    ("en-GB-scotland", "en", 0.8, ("f1", "m5", "Hugo")),
    ("de", "de", 1.2, ("m2", "f3", "Alicia", "Michael")),
    ("es", "es", 1.0, ("m4", "f2", "pablo")),
    ("es-419", "es", 0.5, ("f1", "Diogo")),
    ("fr", "fr", 1.0, ("m1", "f4", "paul")),
    ("it", "it", 0.6, ("f2", "sandro")),
    ("pt-BR", "pt", 0.7, ("m3", "f1")),
    ("pt", "pt", 0.4, ("m6", "linda")),
    ("cmn-Latn-pinyin", "cmn", 1.6, ("m1", "f3", "f5", "m7")),
    ("ru", "ru", 0.8, ("m2", "f4")),
    ("pl", "pl", 0.5, ("f2", "m5")),
    ("sv", "sv", 0.4, ("m3", "f3")),
    ("tr", "tr", 0.4, ("f1", "m1")),
    ("ja", "ja", 0.5, ("f4", "m4")),
    ("hi", "hi", 0.4, ("m7", "f2")),
    ("id", "id", 0.4, ("f3", "m2")),
    ("ca", "ca", 0.3, ("m1",)),
    ("nl", "nl", 0.6, ("f4", "m1", "Mario")),
)


def load_split(path: Path = SPLIT) -> Split:
    """The written split: held_out_voices (language, minutes) and held_out_texts by language."""
    split: Split = json.loads(path.read_text(encoding="utf-8"))
    return split


def plan(split: Split, scale: float = 1.0, festival: bool = True) -> list[tuple[str, str, float, bool]]:
    """Voice, language of its texts, minutes and whether it is held out, of every voice."""
    rows = [(voice, "en", minutes, False) for voice, minutes in _RECORDED.items()]
    if festival:
        for voice, minutes in _FESTIVAL.items():
            rows.append((voice, engines.FESTIVAL_VOICES[voice.partition(":")[2]][0], minutes, False))
    for name, language, minutes, variants in _ESPEAK:
        rows += [
            (f"espeak:{name}+{variant}", language, minutes / len(variants), False) for variant in variants
        ]
    for voice, facts in split["held_out_voices"].items():
        if festival or not voice.startswith("festival:"):
            rows.append((voice, facts["language"], facts["minutes"], True))
    return [(voice, language, minutes * scale, out) for voice, language, minutes, out in rows]


class Speakers:
    """All engines behind one call."""

    def __init__(self) -> None:
        self._espeak: Espeak | None = None

    def speak(self, voice: str, lines: list[str], rng: random.Random) -> list[Utterance]:
        """Speak every line with a rate and pitch drawn for it."""
        engine, _, name = voice.partition(":")
        if engine == "flite":
            return [engines.flite(name, line, stretch=rng.uniform(0.85, 1.25)) for line in lines]
        if engine == "festival":
            return engines.festival(name, [(line, rng.uniform(0.9, 1.2)) for line in lines])
        if self._espeak is None:
            self._espeak = Espeak()
        return [
            self._espeak.speak(
                name,
                line,
                speed=rng.randint(125, 195),
                pitch=rng.randint(28, 72),
                intonation=rng.randint(35, 75),
            )
            for line in lines
        ]


def speak_voice(
    speakers: Speakers, voice: str, language: str, minutes: float, held_out: Mapping[str, list[str]] | None
) -> list[Utterance]:
    """Utterances of one voice until its minutes are reached. A held-out voice has sentences by language."""
    rng = random.Random(zlib.crc32(voice.encode()))
    pool = list(held_out[language]) if held_out else []
    done: list[Utterance] = []
    seconds = 0.0
    while seconds < 60 * minutes:
        lines = []
        for _ in range(8 if voice.startswith("festival") else 1):
            if held_out:
                if not pool:
                    pool = list(held_out[language])
                lines.append(pool.pop(0))
            else:
                chance = rng.random() < (WORDS_ENGLISH if language == "en" else WORDS_OTHERS)
                lines.append(take_words(language, rng) if chance else texts.take(language, rng))
        for spoken in speakers.speak(voice, lines, rng):
            if seconds < 60 * minutes and any(phone != "_" for *_, phone in spoken.phones):
                done.append(finish(spoken, rng, warp=not voice.startswith("espeak") and held_out is None))
                seconds += len(done[-1].audio) / SAMPLE_RATE
    return done


def finish(spoken: Utterance, rng: random.Random, *, warp: bool) -> Utterance:
    """Refine closures, trim the ends and set the level. `warp` changes throat and tempo by resampling."""
    phones = refine_closures(spoken.audio, spoken.phones)
    audio = spoken.audio
    if warp:
        factor = rng.uniform(0.88, 1.13)
        audio = soxr.resample(audio, SAMPLE_RATE, SAMPLE_RATE * factor).astype(np.float32)
        phones = [(start * factor, end * factor, phone) for start, end, phone in phones]
    speech = [(start, end) for start, end, phone in phones if phone != "_"]
    first, last = speech[0][0], speech[-1][1]
    begin, stop = max(0, int((first - LEAD) * SAMPLE_RATE)), int((last + 0.12) * SAMPLE_RATE)
    audio = audio[begin:stop]
    audio = np.concatenate([audio, np.zeros(int((TAIL - 0.12) * SAMPLE_RATE), np.float32)])
    spans = [(int(start * SAMPLE_RATE) - begin, int(end * SAMPLE_RATE) - begin) for start, end in speech]
    active = np.concatenate([audio[max(0, start) : end] for start, end in spans])
    level = float(np.sqrt(np.mean(active**2))) or 1.0
    audio = np.clip(audio * (SPEECH_RMS / level), -1.0, 1.0)
    offset, length = begin / SAMPLE_RATE, len(audio) / SAMPLE_RATE
    moved = [(max(0.0, start - offset), min(length, end - offset), phone) for start, end, phone in phones]
    spoken.audio, spoken.phones = audio, [row for row in moved if row[1] > row[0]]
    return spoken


def main() -> None:
    """Speak, pack, and print the minutes of each voice."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=OUTPUT)
    parser.add_argument("--scale", type=float, default=3.0, help="factor on every voice's minutes")
    parser.add_argument(
        "--no-festival", dest="festival", action="store_false", help="flite and espeak-ng alone"
    )
    parser.add_argument("--opus", action="store_true", help="sound as Opus: a tenth of the size")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    split = load_split()
    speakers = Speakers()
    utterances: list[Utterance] = []
    try:
        for voice, language, minutes, out in plan(split, arguments.scale, arguments.festival):
            utterances += speak_voice(
                speakers, voice, language, minutes, split["held_out_texts"] if out else None
            )
            logger.info("%s: %d utterances so far", voice, len(utterances))
    except (engines.EngineError, DictionaryError) as error:
        parser.exit(1, f"make_speech: {error}\n")
    corpus = corpora.build(utterances, set(split["held_out_voices"]))
    corpora.save(corpus, arguments.out, lossy=arguments.opus)
    for voice, minutes in corpus.minutes().items():
        print(f"{minutes:6.2f} min  {voice}{'  (held out)' if voice in split['held_out_voices'] else ''}")
    lengths = np.diff(corpus.starts) / SAMPLE_RATE / 60
    train, held_out = lengths[~corpus.held_out].sum(), lengths[corpus.held_out].sum()
    size = arguments.out.stat().st_size / 2**20
    print(
        f"{train:.1f} min to train on, {held_out:.1f} min held out, {len(corpus)} utterances, {size:.1f} MiB"
    )


if __name__ == "__main__":
    main()
