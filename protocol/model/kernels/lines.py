"""The lines that the helper writes and the worker reads."""

from __future__ import annotations

from dataclasses import dataclass

#: Before the name of a part that is done and the number of its kernels.
PART = "part "
#: Before the folder of compiled code.
FOLDER = "folder "
#: Before why the helper gives up.
FAILED = "failed "
#: All parts are done.
END = "end"


def part_line(name: str, kernels: int) -> str:
    """The line of a part that is done."""
    return f"{PART}{kernels} {name}"


@dataclass(frozen=True)
class PartDone:
    """A part that is done.

    Attributes:
        name: of the part.
        kernels: that it needs and no part before it.
    """

    name: str
    kernels: int


def read_part(line: str) -> PartDone | None:
    """The part of a line that `part_line` made, or None."""
    if not line.startswith(PART):
        return None
    count, _, name = line.removeprefix(PART).partition(" ")
    return PartDone(name, int(count)) if count.isdecimal() else None
