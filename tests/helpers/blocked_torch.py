"""Pythons that cannot import torch and its companions, as where they are not installed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from protocol.process.settings import ROOT
from tests.helpers.search_path import search_first

#: The packages of the extra `torch`, and some that come with them.
BLOCKED = ("torch", "diffusers", "transformers", "accelerate", "huggingface_hub", "xformers", "triton")

_SITECUSTOMIZE = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}} (blocked)", name=name)

sys.meta_path.insert(0, Blocked())
"""


def block_torch(folder: Path, more: Sequence[str] = ()) -> Path:
    """Writes a folder that blocks these packages in every Python which has it on PYTHONPATH. Returns it.

    Args:
        folder: to be written.
        more: further packages to block.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = _SITECUSTOMIZE.format(blocked=(*BLOCKED, *more))
    (folder / "sitecustomize.py").write_text(text, encoding="utf-8")
    return folder


def run_without_torch(
    code: str, *argv: str, home: Path, missing: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Runs code in such a Python, at the repository's root.

    Args:
        code: the program.
        argv: its arguments.
        home: the process's home folder, which holds what is kept for the next start.
        missing: further packages that cannot be imported.
    """
    blocking = block_torch(home / "blocking", missing)
    return subprocess.run(
        [sys.executable, "-c", code, *argv],
        cwd=ROOT,
        env={**os.environ, "HOME": str(home), **search_first(blocking)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
