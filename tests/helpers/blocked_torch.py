"""Pythons that cannot import torch and what comes with it, as where it is not installed."""

from __future__ import annotations

from pathlib import Path

#: The packages of the extra `torch`, and some that come with them.
BLOCKED = ("torch", "diffusers", "transformers", "accelerate", "huggingface_hub", "xformers", "triton")

_SITECUSTOMIZE = f"""
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}} (blocked)", name=name)

sys.meta_path.insert(0, Blocked())
"""


def block_torch(folder: Path) -> Path:
    """Writes a folder that blocks these packages in every Python which has it on PYTHONPATH. Returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(_SITECUSTOMIZE, encoding="utf-8")
    return folder
