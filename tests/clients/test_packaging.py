"""The client is a distribution of its own, and the project carries it too."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "echomimic_live_client"
BUILD = ("--no-deps", "--no-build-isolation", "--no-index", "-q")

PROGRAM = """
import numpy as np
from echomimic_live_client import Frame, connect

async def main() -> None:
    async with connect("http://host") as face:
        face.push(np.zeros(3, np.float32))
        frame: Frame = await anext(face.frames())
        face.push(frame)
"""


@pytest.fixture(scope="module")
def venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the client's wheel, and numpy and websockets from this one."""
    folder = tmp_path_factory.mktemp("packaging")
    source = shutil.copytree(
        ROOT / "clients/python", folder / "source", ignore=shutil.ignore_patterns("build", "*.egg-info")
    )
    pip = [sys.executable, "-m", "pip"]
    subprocess.run([*pip, "wheel", *BUILD, "-w", str(folder), str(source)], check=True)
    (wheel,) = folder.glob("*.whl")
    assert wheel.name.startswith("echomimic_live_client-")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
    site = next((folder / "venv/lib").glob("python*/site-packages"))
    subprocess.run(
        [*pip, "install", "--no-deps", "--no-index", "-q", "--target", str(site), str(wheel)], check=True
    )
    (site / "others.pth").write_text(f"{Path(np.__file__).parents[1]}\n")
    return folder / "venv"


def test_its_wheel_works_alone(venv: Path, tmp_path: Path) -> None:
    program = f"import {PACKAGE}; print({PACKAGE}.__file__); {PACKAGE}.connect('http://host')"
    done = subprocess.run(
        [str(venv / "bin/python"), "-I", "-c", program],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(venv)


@pytest.mark.long
@pytest.mark.slow
def test_programs_see_its_types(venv: Path, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, "-m", "mypy", "--strict", "--python-executable", str(venv / "bin/python")]
    done = subprocess.run(
        [*command, "--cache-dir", str(tmp_path / "cache"), "program.py"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    errors = [line for line in done.stdout.splitlines() if "error:" in line]
    assert len(errors) == 1 and 'Argument 1 to "push" of "Session"' in errors[0], done.stdout + done.stderr


def test_the_two_distributions_have_one_version() -> None:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no reader of TOML")
    whole, client = (
        tomllib.loads((ROOT / folder / "pyproject.toml").read_text(encoding="utf-8"))
        for folder in (".", "clients/python")
    )
    assert whole["project"]["version"] == client["project"]["version"]


def test_the_project_carries_it() -> None:
    """The packages of the project's own wheel, as setuptools finds them."""
    program = (
        "from setuptools.config.pyprojecttoml import read_configuration as read;"
        "found = read('pyproject.toml', expand=True)['tool']['setuptools'];"
        "print(found['package-dir']['echomimic_live_client'], *found['packages'])"
    )
    command = [sys.executable, "-W", "ignore", "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    folder, *packages = done.stdout.split()
    assert folder == f"clients/python/{PACKAGE}" and {PACKAGE, "gateway"} <= set(packages)
