"""The official layout through a whole run: small random weights, a portrait, a folder of pickled poses."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scripts.run.managed import ROOT, ManagedRun, free_port
from scripts.talk.live import Plan, server_info, speak
from tests.helpers.hub_server import HubServer
from tests.helpers.official_hub import official_repositories
from tests.helpers.official_layout import write_official_layout
from tests.helpers.official_pose import write_official_pose
from tests.integration.conftest import Sound

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder, its pictures 64 pixels wide so that a CPU is quick with it."""
    folder = tmp_path_factory.mktemp("echomimic_v2")
    write_official_layout(folder, width=64, height=64, steps=2)
    shades = np.linspace(0, 255, 96 * 96 * 3).reshape(96, 96, 3).astype(np.uint8)
    Image.fromarray(shades).save(folder / "portrait.png")
    write_official_pose(folder / "assets/halfbody_demo/pose/01", frames=30)
    return folder


@pytest.mark.timeout(300)
def test_the_official_layout_runs(official: Path, speech: Sound) -> None:
    """One second of speech: the padded Whisper window is slow on a CPU, and queues are short."""
    flags = [
        *("--config", str(official / "configs/prompts/infer_acc.yaml")),
        *("--reference-image", str(official / "portrait.png")),
        *("--pose-dir", str(official / "assets/halfbody_demo/pose/01"), "--fps", "8"),
    ]
    pictures: list[np.ndarray] = []

    def keep(_number: int, jpeg: bytes) -> None:
        pictures.append(np.asarray(Image.open(io.BytesIO(jpeg)), np.float32))

    with ManagedRun(*flags, timeout=240) as run:
        info = server_info(run.url)
        report = asyncio.run(
            speak(run.url, Plan(speech[:16000], version=2, on_frame=keep, patience=60), 8, 4)
        )
        log = run.log()
    print(*report.lines(), sep="\n")
    assert (info["avatars"], info["poses"]) == (["portrait"], ["01"])
    assert (info["width"], info["height"], info["fps"]) == (64, 64, 8)
    assert report.problems == []
    assert len(pictures) == 8
    assert all(picture.shape == (64, 64, 3) and picture.std() > 1 for picture in pictures)
    assert any(np.abs(a - b).max() > 1 for a, b in pairwise(pictures))
    for words in ("reference caching", "scaled_dot_product_attention", "window padded"):
        assert words in log, words
    assert run.stopped_in < 5


@pytest.mark.timeout(300)
def test_one_command_from_nothing_to_speech(official: Path, speech: Sound, tmp_path: Path) -> None:
    """Everything is fetched from a server like the Hub, then the real stages speak with it."""
    repositories = official_repositories(tmp_path / "hub")
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "XDG_STATE_HOME": str(tmp_path / "state")}
    environment.pop("HF_HUB_OFFLINE", None)
    flags = [
        *(
            "--model",
            "official",
            "--accept-licences",
            "--decoder",
            "tiny",
            "--log-dir",
            str(tmp_path / "logs"),
        ),
        *("--width", "64", "--height", "64", "--steps", "2", "--fps", "8"),
        *("--reference-image", str(official / "portrait.png")),
        *("--pose-dir", str(official / "assets/halfbody_demo/pose/01")),
    ]
    with HubServer(repositories) as hub:
        environment["HF_ENDPOINT"] = hub.url
        with ManagedRun(*flags, timeout=240, environment=environment) as run:
            report = asyncio.run(speak(run.url, Plan(speech[:16000], version=2, patience=60), 8, 4))
            console = run.console()
    assert report.problems == []
    assert "official weights: accelerated model" in console
    log = next((tmp_path / "logs").glob("run_*.log")).read_text()
    for words in ("denoising_unet_acc.pth (accelerated model): 2 steps, guidance 1.0", "AutoencoderTiny"):
        assert words in log, words


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("pretrained_weights/denoising_unet_acc.pth", None),
        ("pretrained_weights/audio_processor/tiny.pt", b"torn"),
        ("pretrained_weights/sd-vae-ft-mse/diffusion_pytorch_model.safetensors", b"torn"),
    ],
)
def test_a_missing_or_damaged_file_is_named(
    official: Path, name: str, damage: bytes | None, tmp_path: Path
) -> None:
    """On the console of the run, by whichever stage reads it first."""
    file = official / name
    whole = file.read_bytes()
    command = [sys.executable, "-m", "scripts.run", "--port", str(free_port())]
    command += ["--config", str(official / "configs/prompts/infer_acc.yaml"), "--log-dir", str(tmp_path)]
    try:
        file.unlink()
        if damage is not None:
            file.write_bytes(damage)
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    finally:
        file.write_bytes(whole)
    assert done.returncode == 1
    assert file.name in done.stderr
    assert "cannot work with this configuration" in done.stderr
