"""The command itself, with the real workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

import numpy as np
import psutil
import pytest

from protocol.process.settings import ROOT
from scripts.talk.sound import read_channels, synthetic_voice, write_wav

pytest.importorskip("av")

from tests.scripts.render.decoded import decode

STAGES = ("audio_worker", "gpu_worker", "encoder_worker")


def command(wav: Path, target: str, tmp_path: Path, *flags: str) -> list[str]:
    own = ["--log-dir", str(tmp_path / "logs"), *flags]
    return [sys.executable, "-m", "scripts.render", str(wav), "-o", target, *own]


def leftovers(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in tmp_path.iterdir() if path.name not in ("logs", "speech.wav"))


@pytest.mark.process
@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_two_seconds_by_the_bundled_model(tmp_path: Path) -> None:
    write_wav(tmp_path / "speech.wav", synthetic_voice(2.1, rate=44100), 44100)
    target = tmp_path / "out.mkv"
    names = ("--avatar", "maya", "--pose", "calm")
    done = subprocess.run(
        command(tmp_path / "speech.wav", str(target), tmp_path, *names),
        cwd=ROOT, capture_output=True, text=True, timeout=380, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "100 %  51 of 51 pictures" in done.stderr
    film = decode(target)
    assert film.times == pytest.approx([index / 24 for index in range(51)], abs=6e-4)
    rate, channels = read_channels(tmp_path / "speech.wav")
    assert film.pictures[0].shape[:2] == (512, 512)
    assert film.rate == rate
    np.testing.assert_array_equal(film.sound, channels)
    moved = [float(np.abs(each.astype(int) - film.pictures[0].astype(int)).mean()) for each in film.pictures]
    assert max(moved) > 0.5  # the face lives
    assert leftovers(tmp_path) == ["out.mkv"]


@pytest.mark.process
@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_it_outlives_its_workers_and_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    write_wav(tmp_path / "speech.wav", synthetic_voice(1200.0))
    flags = ("--passthrough", "--run-dir", str(tmp_path / "run"))
    process = subprocess.Popen(
        command(tmp_path / "speech.wav", str(tmp_path / "out.mp4"), tmp_path, *flags),
        cwd=ROOT, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        read_until(process.stderr, " pictures, ")
        assert (tmp_path / "out.mp4.part").stat().st_size > 0
        workers = children(process.pid)
        for name in ("audio_worker", "gpu_worker"):
            os.kill(workers[name], signal.SIGKILL)
        read_until(process.stderr, "is made again: the audio worker was lost")
        before = pictures(read_until(process.stderr, " pictures, "))
        assert pictures(read_until(process.stderr, " pictures, ")) > before
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert time.monotonic() - began < 30
    finally:
        process.kill()
        process.communicate()
    assert leftovers(tmp_path) == []


def read_until(stream: IO[str], words: str) -> str:
    """The first line with these words."""
    lines = []
    while line := stream.readline():
        lines.append(line)
        if words in line:
            return line
    raise AssertionError("".join(lines))


def pictures(line: str) -> int:
    """How many a line of progress counts."""
    return int(line.split("%")[1].split(maxsplit=1)[0])


def children(parent: int) -> dict[str, int]:
    """The stages of a film, by module."""
    found = psutil.Process(parent).children()
    return {name: child.pid for child in found for name in STAGES if name in child.cmdline()}


@pytest.mark.parametrize(
    ("flags", "status", "text"),
    [
        (("--avatar", "nobody"), 1, "--avatar nobody: there is none of that name, only "),
        (("--fps", "0"), 2, "--fps"),
    ],
)
def test_wrong_words_are_told_before_anything_starts(
    tmp_path: Path, flags: tuple[str, ...], status: int, text: str
) -> None:
    write_wav(tmp_path / "speech.wav", synthetic_voice(0.5))
    done = subprocess.run(
        command(tmp_path / "speech.wav", str(tmp_path / "out.mp4"), tmp_path, *flags),
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, text in done.stderr) == (status, True), done.stderr
    assert leftovers(tmp_path) == []
