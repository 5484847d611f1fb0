"""Programs for Node.js that use the client for JavaScript."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from protocol.process.settings import ROOT

PACKAGE = ROOT / "clients/js"


def node_version() -> tuple[int, int]:
    """Major and minor version of Node.js, (0, 0) where there is none."""
    if shutil.which("node") is None:
        return 0, 0
    told = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout
    major, minor = re.findall(r"\d+", told)[:2]
    return int(major), int(minor)


#: Whether Node.js has a websocket of its own, and the flag that switches it on.
HAS_SOCKET = node_version() >= (20, 10)
FLAGS = ["--experimental-websocket"] if node_version() < (22, 0) else []


def installed(folder: Path) -> Path:
    """A folder in which programs find the package, as npm installs one of a checkout."""
    (folder / "node_modules").mkdir(exist_ok=True)
    link = folder / "node_modules/echomimic-live-client"
    if not link.exists():
        link.symlink_to(PACKAGE)
    return folder


def run_node(folder: Path, program: str, *arguments: str) -> list[str]:
    """The lines that a program prints, run in a folder made by `installed`."""
    file = folder / "program.mjs"
    file.write_text(program)
    command = ["node", *FLAGS, "--no-warnings", str(file), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()
