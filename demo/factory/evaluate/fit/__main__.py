"""Tries the measure of fit on drawn people and on photographs.

    python -m demo.factory.evaluate.fit --photos FOLDER --json fit.json

Drawn people come from npm's @dicebear packages, or from --people. The threshold is chosen on one
half of the pictures and tried on the other. With --minutes the command ends in that time: it takes the
kinds of pictures in turn, each in an order of chance, so that every kind has its share.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path

from protocol.model.hardware.threads import let_waiting_threads_sleep

if __name__ == "__main__":
    let_waiting_threads_sleep()  # before torch is imported

import torch

from demo.factory.evaluate.fit.pictures import (
    SAMPLE,
    FitPicture,
    draw_people,
    drawn,
    in_turn,
    own_kind,
    photographs,
)
from demo.factory.evaluate.fit.table import as_table, best_threshold, is_second_half
from demo.factory.evaluate.fit.trial import FitTrial, Measured, temporary_folder
from demo.factory.evaluate.material import HeldOut
from gateway.avatars.fit import LEAST_EDGES


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and print the tables."""
    arguments = _parse(argv)
    ends = time.monotonic() + 60 * arguments.minutes if arguments.minutes else None
    with temporary_folder() as name:
        folder = Path(name)
        voices = HeldOut(SAMPLE / "identities.npz", SAMPLE / "speech.npz", 3, 512, torch.device("cpu"))
        trial = FitTrial(folder, voices.speech(voices.voices[0], 2.0, 1).samples)
        rows: list[Measured] = []
        for measured in trial.measure(_samples(arguments, folder, trial.ratio)):
            rows.append(measured)
            fits = f"{measured.fit.edges:.2f} {measured.judged.edges:.2f} {measured.judged.psnr:.1f} dB"
            print(f"{measured.kind}: {measured.name}: {fits}", file=sys.stderr, flush=True)
            if ends is not None and time.monotonic() > ends:
                break
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    chosen = best_threshold([row for row in rows if not is_second_half(row)])
    print(f"threshold chosen on one half: {chosen:.2f}; the gateway's: {LEAST_EDGES}\n")
    print(as_table([row for row in rows if is_second_half(row)], LEAST_EDGES))
    print(f"\nboth halves\n\n{as_table(rows, LEAST_EDGES)}")
    return 0


def _samples(arguments: argparse.Namespace, folder: Path, ratio: float) -> Iterator[FitPicture]:
    people = arguments.people or draw_people(folder, arguments.each)
    photos = photographs(arguments.photos, ratio) if arguments.photos else iter(())
    samples = chain(own_kind(folder, ratio), drawn(people, ratio), photos)
    return in_turn(samples) if arguments.minutes else samples


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m demo.factory.evaluate.fit", description=__doc__)
    parser.add_argument("--photos", type=Path, help="folder of photographs")
    parser.add_argument("--people", type=Path, help="folder of drawn people, STYLE-NUMBER.png")
    parser.add_argument("--each", type=int, default=20, help="drawn people of each style (default 20)")
    parser.add_argument("--minutes", type=float, help="end after this time, with a share of each kind")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    return parser.parse_args(argv)


if __name__ == "__main__":
    raise SystemExit(main())
