"""A smaller speech corpus, to carry to a machine without a network: fewer sentences, their sound as Opus.

    python -m demo.factory.speech.thin build/speech.npz small.npz --minutes 60

An hour takes 9 MB. A machine that reads it needs soundfile.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from demo.factory.speech.corpus import Corpus, load, picked_utterances, save
from protocol.wire.clock import SAMPLE_RATE


def thinned(corpus: Corpus, minutes: float) -> Corpus:
    """Every nth training sentence, so that some `minutes` remain, and all held-out ones."""
    lengths = np.diff(corpus.starts) / SAMPLE_RATE / 60
    share = min(1.0, minutes / float(lengths[~corpus.held_out].sum()))
    turn = np.cumsum(~corpus.held_out) * share
    chosen = np.diff(np.floor(turn), prepend=0.0) > 0
    return picked_utterances(corpus, np.flatnonzero(corpus.held_out | chosen).tolist())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m demo.factory.speech.thin", description=__doc__)
    parser.add_argument("source", type=Path, help="speech.npz")
    parser.add_argument("target", type=Path)
    parser.add_argument("--minutes", type=float, default=70.0, help="of the training voices")
    arguments = parser.parse_args()
    corpus = thinned(load(arguments.source), arguments.minutes)
    save(corpus, arguments.target, lossy=True)
    print(f"{len(corpus)} sentences, {arguments.target.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
