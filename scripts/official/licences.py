"""The licences of the official weights: one question, and a file that remembers the answer."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from protocol.process.settings.places import state_dir
from scripts.official.catalogue import LICENCES


class LicenceMemory:
    """The licences that this user has accepted, in a file of the project's own.

    Args:
        env: the environment, which names the user's folder.
    """

    def __init__(self, env: Mapping[str, str]) -> None:
        self.path: Path = state_dir(env) / "licences.json"

    def still_open(self, repositories: Iterable[str]) -> list[str]:
        """Those of the repositories whose licences were not accepted yet."""
        accepted = self._read()
        wanted = dict.fromkeys(repositories)
        return [name for name in wanted if accepted.get(name, {}).get("licence") != LICENCES[name]]

    def accept(self, repositories: Iterable[str]) -> None:
        """Remember an answer. Raises OSError where the file cannot be written."""
        accepted = self._read()
        today = time.strftime("%Y-%m-%d")
        accepted |= {name: {"licence": LICENCES[name], "accepted": today} for name in repositories}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_suffix(".new")
        fresh.write_text(json.dumps(accepted, indent=2) + "\n", encoding="utf-8")
        fresh.replace(self.path)

    def _read(self) -> dict[str, dict[str, str]]:
        try:
            read = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        if not isinstance(read, dict):
            return {}
        return {str(name): entry for name, entry in read.items() if isinstance(entry, dict)}


def licence_lines(repositories: Iterable[str], endpoint: str) -> list[str]:
    """A line for each repository: its name, its licence and the page that has the licence's text."""
    return [f"  {name}: {LICENCES[name]} ({endpoint}/{name})" for name in repositories]
