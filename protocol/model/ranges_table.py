"""The ranges of a network in eight bits, in a table beside it that belongs to one set of weights."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path

logger = logging.getLogger(__name__)

#: The greatest input of each layer that rounds, by its name in the network.
Ranges = Mapping[str, float]


def read_ranges(file: Path, instead: str) -> tuple[str, Ranges] | None:
    """The digest of the weights that a table belongs to, and the ranges.

    Args:
        file: the table.
        instead: what happens without it, for the log.

    Returns:
        None where there is no table, or none that can be read. The log says why.
    """
    try:
        table = json.loads(file.read_text(encoding="utf-8"))
        ranges = {str(name): float(value) for name, value in table["ranges"].items()}
        return str(table["weights"]), ranges
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        logger.warning("%s cannot be used, %s: %s", file, instead, error)
        return None


def write_ranges_table(file: Path, digest: str, ranges: Ranges) -> None:
    """Writes a table for the weights of this digest."""
    table = {"weights": digest, "ranges": dict(ranges)}
    file.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
