"""The default run where torch is not installed: a first start, real speech, and a face that is brought."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scripts.run.managed import ROOT, ManagedRun
from scripts.talk.live import Plan
from tests.helpers.blocked_torch import BLOCKED, block_torch
from tests.helpers.search_path import search_first
from tests.integration.conftest import Sound, keeper
from tests.integration.test_own_avatars import FACE, bring, speaks
from tests.integration.test_sessions import hold

pytestmark = pytest.mark.process

#: What a default run on a CPU imports, beside the page.
MODULES = (
    "gateway.gateway", "gateway.avatars.fit", "audio_worker.worker", "gpu_worker.worker",
    "gpu_worker.engine.serve", "gpu_worker.engine.cpu_sampler", "encoder_worker.worker",
    "voice_worker.worker", "scripts.run.launch", "scripts.run.needs", "scripts.talk.live",
    "scripts.render.job",
)  # fmt: skip


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables of a machine where torch is not installed and nothing is kept from an earlier start."""
    folder = tmp_path_factory.mktemp("without-torch")
    (folder / "home").mkdir()
    blocked = block_torch(folder / "blocked")
    return {**os.environ, **search_first(blocked), "HOME": str(folder / "home")}


@pytest.fixture(scope="module")
def run(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ManagedRun]:
    folder = tmp_path_factory.mktemp("run")
    flags = ("--log-dir", str(folder / "logs"), "--own-avatar-dir", str(folder / "own"), "--fps", "12")
    with ManagedRun(*flags, timeout=300, environment=environment) as made:
        made.log_dir = folder / "logs"
        yield made


def test_the_modules_of_a_default_run_import_no_torch(environment: dict[str, str]) -> None:
    code = f"import sys, {', '.join(MODULES)}; print(*(name for name in {BLOCKED!r} if name in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "\n"


def pictures_of(run: ManagedRun, sound: Sound) -> np.ndarray:
    """The pictures of a session, grey (n, H, W)."""
    jpegs: list[bytes] = []
    (report,) = hold(run, Plan(sound, version=2, on_frame=keeper(jpegs)))
    print(*report.lines(), sep="\n")
    assert report.echoed >= report.sent
    assert report.frames_received >= 0.9 * report.frames_expected
    return np.stack([np.asarray(Image.open(io.BytesIO(jpeg)).convert("L"), np.float32) for jpeg in jpegs])


@pytest.mark.timing
def test_a_face_speaks(run: ManagedRun, speech: Sound) -> None:
    """Speech moves the mouth and nothing else: the gesture is the one of a session of silence."""
    spoken, silent = (pictures_of(run, sound) for sound in (speech[:48000], np.zeros(48000, np.float32)))
    count = min(len(spoken), len(silent))
    change = np.abs(spoken[:count] - silent[:count]).mean(axis=0)
    side = change.shape[0] // 16
    tiles = change[: 16 * side, : 16 * side].reshape(16, side, 16, side).mean(axis=(1, 3))
    print(f"change of the 256 parts of a picture: greatest {tiles.max():.1f}, median {np.median(tiles):.2f}")
    assert tiles.max() > 4
    assert tiles.max() > 8 * np.median(tiles)
    log = run.log()
    assert "Traceback" not in log and "PyTorch" not in log


async def test_a_face_is_brought(run: ManagedRun, speech: Sound) -> None:
    made = bring(run, FACE.read_bytes(), "maya")
    assert not made["warning"], made
    await speaks(run, made["id"], speech)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--cpu-engine", "torch"), "--cpu-engine torch needs PyTorch, which is not installed; start with"),
        (("--gpu-devices", "cuda:0"), "--gpu-devices cuda:0 needs PyTorch, which is not installed"),
    ],
)
def test_a_run_that_needs_it_says_so(
    environment: dict[str, str], flags: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    code = "from gpu_worker.__main__ import engine_for; from protocol.process.settings import load_settings"
    code += f"; engine_for(load_settings({list(flags)!r})).load()"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stderr.splitlines()[-1].startswith("protocol.process.settings")
    assert words in done.stderr.splitlines()[-1]
    asked = subprocess.run(
        [sys.executable, "-m", "scripts.run.needs", *flags],
        env=environment, cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert asked.stdout == f"{' '.join(flags)}\n"
