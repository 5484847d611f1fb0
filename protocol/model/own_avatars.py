"""Avatars that people bring while a run goes on: their ids, and where their pictures lie.

The gateway writes the pictures, and GPU workers read them when a clip first asks for one. So a worker
serves avatars that came after its start. A worker that replaces a dead one serves them too.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from protocol.process.settings import Settings
from protocol.process.settings.places import state_dir

#: Ids of people's own avatars. The digits follow from the picture and from whom it belongs to.
OWN_ID = re.compile(r"own-[0-9a-f]{32}")


def own_avatar_folder(settings: Settings) -> Path:
    """Where own avatars are kept: `--own-avatar-dir`, else a folder of the user's state."""
    return settings.own_avatar_dir or state_dir(os.environ) / "avatars"


def own_picture(folder: Path, name: str) -> Path | None:
    """The file of an own avatar's picture, whether it is there or not. None where `name` is no such id."""
    return folder / f"{name}.png" if OWN_ID.fullmatch(name) else None
