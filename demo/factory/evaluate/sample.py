"""A small piece of the held-out split, kept in the repository: `python -m demo.factory.evaluate.sample`.

With it `python -m demo.factory.evaluate --quick` runs in a fresh clone, where neither identities nor speech
have been built. For measurements the larger files are built, from which the sample is cut.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from demo.factory.evaluate.command import SAMPLE, SPEECH
from demo.factory.figure.make_identities import SPLIT_FILE
from demo.factory.figure.renderer import DEFAULT_ASSETS
from demo.factory.speech.corpus import Corpus, load, picked_utterances, save
from protocol.wire.clock import SAMPLE_RATE

IDENTITIES = 3
SENTENCES = 3  # of each voice
#: Engines whose licences leave their sound free; see sample/NOTICE.md.
VOICES = ("flite:rms", "espeak:en-GB-x-rp+steph")


def cut_identities(source: Path, target: Path, count: int = IDENTITIES) -> list[str]:
    """Write `count` held-out identities spread over the split. Returns their names."""
    held_out = json.loads(SPLIT_FILE.read_text(encoding="utf-8"))["held_out"]
    with np.load(source) as data:
        arrays = {name: data[name] for name in data.files}
    names = [str(name) for name in arrays["names"]]
    picked = [held_out[i] for i in np.linspace(0, len(held_out) - 1, count).round().astype(int)]
    rows = [names.index(name) for name in picked]
    behind = {int(identity): row for row, identity in enumerate(arrays["behind_of"])}
    with_behind = [place for place, row in enumerate(rows) if row in behind]
    cut = {
        name: values[rows]
        for name, values in arrays.items()
        if name not in ("view", "proportion_names", "behind", "behind_of")
    }
    cut |= {name: arrays[name] for name in ("view", "proportion_names")}
    cut["behind"] = arrays["behind"][[behind[rows[place]] for place in with_behind]]
    cut["behind_of"] = np.array(with_behind, dtype=np.int64)
    np.savez_compressed(target, **cut)
    return picked


def cut_speech(corpus: Corpus, voices: tuple[str, ...] = VOICES, sentences: int = SENTENCES) -> Corpus:
    """The first held-out sentences of each of these voices."""
    picked = [
        int(u)
        for voice in voices
        for u in np.flatnonzero(corpus.held_out & (corpus.voice_id == corpus.voices.index(voice)))[:sentences]
    ]
    return picked_utterances(corpus, picked)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--figure", type=Path, default=DEFAULT_ASSETS)
    parser.add_argument("--speech", type=Path, default=SPEECH)
    parser.add_argument("--out", type=Path, default=SAMPLE)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    names = cut_identities(arguments.figure, arguments.out / "identities.npz")
    corpus = cut_speech(load(arguments.speech))
    save(corpus, arguments.out / "speech.npz")
    print(f"{', '.join(names)}; {len(corpus)} sentences, {len(corpus.audio) / SAMPLE_RATE:.0f} s")


if __name__ == "__main__":
    main()
