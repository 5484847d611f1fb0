"""The program in the README of the Python client does what the README says."""

from __future__ import annotations

import re
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest

from tests.gateway.clients import noise
from tests.gateway.conftest import Running

# On a machine that stands still for a second, the gateway leaves pictures out.
pytestmark = [pytest.mark.process, pytest.mark.timing]

CLIENT = Path(__file__).resolve().parents[2] / "clients/python"


def write_speech(path: Path, samples: np.ndarray, rate: int = 16_000) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((samples * 32767).astype("<i2").tobytes())


def test_the_program_of_the_readme_gets_a_picture_for_every_moment(gateway: Running, tmp_path: Path) -> None:
    programs = re.findall(r"```python\n(.*?)```", (CLIENT / "README.md").read_text(encoding="utf-8"), re.S)
    program = tmp_path / "program.py"
    program.write_text(programs[0])
    lines = [line for line in programs[0].splitlines() if line.strip() and "import" not in line]
    assert len(lines) <= 10
    write_speech(tmp_path / "speech.wav", noise(2.2))
    done = subprocess.run(
        [sys.executable, str(program), gateway.url(), str(tmp_path / "speech.wav")],
        env={"PYTHONPATH": str(CLIENT)}, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    times = [float(line.split(" s: ")[0]) for line in done.stdout.splitlines()]
    assert times == pytest.approx([number / 24 for number in range(5 * 12)], abs=0.001)
