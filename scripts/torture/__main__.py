"""Runs a test that takes long.

    python -m scripts.torture faults               workers killed and stopped under a client that speaks
    python -m scripts.torture fuzz --cases 100000  every decoder with broken and hostile input
    python -m scripts.torture soak --minutes 480   what grows in a run that goes on for hours
    python -m scripts.torture growth               the same in minutes, process by process
    python -m scripts.torture                      the list of them

Each name stands for a module with `main(argv) -> int`.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

#: Name → its module, and what it does.
COMMANDS = {
    "faults": ("scripts.torture.trials", "workers killed and stopped under a client that speaks"),
    "soak": ("scripts.torture.soak", "a run that goes on for hours with sessions that come and go"),
    "growth": ("scripts.torture.growth.command", "what grows in each process for a thousand events"),
    "fuzz": ("scripts.torture.fuzz.command", "every decoder with broken and hostile input"),
    "alerts": (
        "scripts.torture.alerts",
        "which alert of the shipped rules fires for which fault, by a real Prometheus",
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that the first argument names. Returns its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] not in COMMANDS:
        print("usage: python -m scripts.torture NAME [--help | FLAGS]", file=sys.stderr)
        for name, (_, text) in COMMANDS.items():
            print(f"  {name:8} {text}", file=sys.stderr)
        return 0 if arguments[:1] in ([], ["--help"], ["-h"]) else 2
    module = importlib.import_module(COMMANDS[arguments[0]][0])
    return int(module.main(arguments[1:]))


if __name__ == "__main__":
    sys.exit(main())
