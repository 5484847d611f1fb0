"""Does the faults to real runs, and prints each figure beside its limit.

    python -m scripts.torture faults                                      every trial, nothing computed
    python -m scripts.torture faults --model bundled --only gpu-killed    with the model of the default run

Exit status: 0 if every limit is kept, 1 if not.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Sequence

from scripts.torture import faults, floods, load, network
from scripts.torture.viewer import spoken

#: The trials by name. Each one's docstring says what it does.
TRIALS: dict[str, faults.Trial] = {
    **faults.TRIALS,
    **load.TRIALS,
    **network.TRIALS,
    "upgrades": floods.flood_of_upgrades,
    "pings": floods.flood_of_pings,
    "connections": floods.flood_of_connections,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the trials. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.torture faults", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--only", default=",".join(TRIALS), help="trials, with commas between them")
    parser.add_argument("--model", choices=("passthrough", "bundled"), default="passthrough")
    args = parser.parse_args(argv)
    names = args.only.split(",")
    if unknown := sorted(set(names) - set(TRIALS)):
        parser.error(f"--only {','.join(unknown)}: there are {', '.join(TRIALS)}")
    flags = ["--passthrough"] if args.model == "passthrough" else []
    voice = spoken()
    print(f"{platform.machine()}, Python {platform.python_version()}, model: {args.model}")
    kept = True
    for name in names:
        figures = TRIALS[name](voice, *flags)
        print(f"\n{name}: {(TRIALS[name].__doc__ or '').strip()}", *figures, sep="\n  ", flush=True)
        kept = kept and all(figure.kept for figure in figures)
    return 0 if kept else 1
