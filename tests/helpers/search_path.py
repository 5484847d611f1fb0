"""The variable by which a Python that a test starts finds its modules."""

from __future__ import annotations

import os
from pathlib import Path


def search_first(*folders: Path) -> dict[str, str]:
    """Variables that put folders before those in which this process looks, such as another OpenVINO's."""
    paths = [*map(str, folders), os.environ.get("PYTHONPATH", "")]
    return {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}
