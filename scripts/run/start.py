"""Run a module of the project as `python -m` would, but with the project first on Python's path.

    python /anywhere/scripts/run/start.py gateway --port 8080

`python -m` puts the working folder first, so that a user's own `torch.py` or `scripts/` would be imported
instead. The working folder itself stays, so that relative paths mean the user's. Python's `-P` does not
serve: 3.10 lacks it, and it would leave out the project too.
"""

from __future__ import annotations

import os
import runpy
import sys

#: Path of this file, for command lines.
START = os.path.abspath(__file__)
_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(START)))


def main() -> None:
    """Run the module that the first argument names, with the arguments behind it."""
    own_folder = os.path.dirname(START)
    # Python puts a program's folder first, unless PYTHONSAFEPATH is set.
    if sys.path and os.path.abspath(sys.path[0]) == own_folder:
        del sys.path[0]
    sys.path.insert(0, _ROOT)
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


def module_of(words: list[str]) -> str | None:
    """The module that a process with the command line `words` runs, or None if it runs none."""
    for option in ("-m", START):
        if option in words[:-1]:
            return words[words.index(option) + 1]
    return None


def command_of(python: str, module: str, *arguments: str) -> list[str]:
    """The command line that runs a module of the project from any working folder."""
    return [python, "-u", START, module, *arguments]


if __name__ == "__main__":
    main()
