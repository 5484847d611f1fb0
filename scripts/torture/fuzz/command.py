"""Gives every decoder inputs that hypothesis makes, and prints what came of it.

    python -m scripts.torture fuzz --cases 100000
    python -m scripts.torture fuzz --only pictures,sounds --cases 5000 --seed 7

Each decoder has a process of its own, so that a crash is told and the memory is its own. Exit status: 0 when
no decoder raised an undocumented error, crashed, hung, or grew by more than 5 MB.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import logging
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from scripts.torture.fuzz.decoder import FuzzedDecoder, FuzzOutcome, fuzz

#: Seconds that a process gets beside those for its inputs, and for each input.
START_SECONDS, CASE_SECONDS = 600.0, 0.1


def main(argv: Sequence[str] | None = None) -> int:
    """Run the decoders. Returns the exit status."""
    args = _parser().parse_args(argv)
    if args.child:
        faulthandler.enable()
        logging.disable()  # what is odd in an input, and who is refused, is logged
        print(json.dumps(fuzz(_named(args.child), args.cases, args.seed).as_json()))
        return 0
    wanted = args.only.split(",") if args.only else [""]
    names = [d.name for d in all_decoders() if any(part.strip() in d.name for part in wanted)]
    if not names:
        print(f"fuzz: no decoder has {args.only} in its name", file=sys.stderr)
        return 2
    print(_row("decoder", "inputs", "taken", "refused", "undocumented", "MB more", "slowest, ms", "seconds"))
    good = True
    with ThreadPoolExecutor(args.jobs) as pool:
        for outcome in pool.map(lambda name: _in_process(name, args.cases, args.seed), names):
            print(table_row(outcome), flush=True)
            good = good and is_good(outcome)
            for kind, example in outcome.examples.items():
                print(f"    {kind}: {example}", file=sys.stderr)
    return 0 if good else 1


def all_decoders() -> Iterable[FuzzedDecoder]:
    """Every decoder of the project that reads what others made."""
    from scripts.torture.fuzz import files, texts

    return [*texts.decoders(), *files.decoders()]


def is_good(outcome: FuzzOutcome) -> bool:
    """Whether the decoder raised nothing undocumented and kept no memory."""
    return not outcome.faults and outcome.growth <= outcome.most_growth


def table_row(outcome: FuzzOutcome) -> str:
    """One line of the table."""
    return _row(
        outcome.name,
        f"{outcome.cases:,}",
        f"{outcome.taken:,}",
        f"{outcome.refused:,}",
        f"{sum(outcome.faults.values()):,}",
        f"{outcome.growth / 1e6:.1f}",
        f"{outcome.slowest * 1e3:.0f}",
        f"{outcome.seconds:.0f}",
    )


def _row(name: str, *cells: str) -> str:
    return f"| {name:34} |" + "".join(f" {cell:>12} |" for cell in cells)


def _named(name: str) -> FuzzedDecoder:
    from scripts.torture.fuzz import texts

    for decoder in texts.decoders():  # at first, since those of files load torch, which takes seconds
        if decoder.name == name:
            return decoder
    return next(decoder for decoder in all_decoders() if decoder.name == name)


def _in_process(name: str, cases: int, seed: int) -> FuzzOutcome:
    """Fuzz one decoder in a process of its own."""
    command = [sys.executable, "-m", "scripts.torture", "fuzz"]
    command += ["--child", name, "--cases", str(cases), "--seed", str(seed)]
    limit = START_SECONDS + CASE_SECONDS * cases
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return _ended(name, f"hung: no end after {limit:.0f} s", "")
    if done.returncode != 0:
        return _ended(name, f"crashed: exit status {done.returncode}", done.stderr[-2000:])
    return FuzzOutcome.from_json(json.loads(done.stdout.splitlines()[-1]))


def _ended(name: str, how: str, words: str) -> FuzzOutcome:
    return FuzzOutcome(name, faults=Counter([how]), examples={how: words})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.torture fuzz", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--cases", type=int, default=100_000, help="inputs of each decoder (default 100000)")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same inputs (default 0)")
    parser.add_argument("--only", default="", help="parts of the decoders' names, with commas between them")
    parser.add_argument("--jobs", type=int, default=1, help="decoders at a time (default 1)")
    parser.add_argument("--child", default="", help=argparse.SUPPRESS)
    return parser
