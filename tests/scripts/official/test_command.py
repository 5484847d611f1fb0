"""Whole downloads by `python -m scripts.official`: killed, full disk, offline, refused."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from protocol.model.config import ModelConfig
from scripts.official import prepare
from scripts.official.catalogue import ECHOMIMIC, TAESD, WHISPER_WEIGHTS
from scripts.official.errors import OfficialError
from scripts.run.managed import ROOT
from tests.helpers.hub_server import Fault, HubServer
from tests.scripts.official.world import POINTER, given, hub_of, run_here

FILES = 8
OWN = "huggingface/echomimic-live/pretrained_weights"


def command(*flags: str) -> list[str]:
    pictures = ["--reference-image", "a.png", "--pose-dir", "b.npz"]
    return [sys.executable, str(ROOT / "scripts/run/start.py"), "scripts.official", *pictures, *flags]


def fetch(
    env: dict[str, str], server: HubServer, *flags: str, limits: Callable[[], None] | None = None
) -> subprocess.CompletedProcess[str]:
    """The command with the Hub's address in HF_ENDPOINT, without a terminal."""
    return subprocess.run(
        command(*flags),
        env={**env, "HF_ENDPOINT": server.url},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        preexec_fn=limits,
    )


@pytest.mark.process
def test_everything_is_fetched_once(env: dict[str, str], server: HubServer, tmp_path: Path) -> None:
    refused = fetch(env, server)
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1].startswith("echomimic-live: nobody can be asked here")
    assert f"{ECHOMIMIC}: Apache-2.0; its authors intend it for academic research" in refused.stderr
    assert f"({server.url}/{ECHOMIMIC})" in refused.stderr
    assert f"({TAESD})" in refused.stderr, "--quality auto may pick the small decoder"
    assert "are free" in refused.stderr and "missing of the official weights" in refused.stderr
    if "NVIDIA GPU" in refused.stderr:
        assert "far from real time" in refused.stderr
    assert not server.gets("denoising_unet_acc.pth")

    done = fetch(env, server, "--accept-licences", "--decoder", "kl")
    assert done.returncode == 0, done.stderr
    assert "100 % of" in done.stderr
    config = ModelConfig.load(done.stdout.strip())
    assert config.denoising_unet_path.resolve() == tmp_path / OWN / "denoising_unet_acc.pth"
    assert len(list((tmp_path / OWN).rglob("*.*"))) == FILES
    for name in ("taesd", "model_index.json", "diffusion_pytorch_model.bin"):
        assert not server.gets(name), "only the files that are needed"

    server.requests.clear()
    assert fetch(env, server).returncode == 0
    assert not server.requests, "nothing is asked when all but the small decoder is here"
    small = fetch(env, server, "--decoder", "tiny")  # one more repository: its licence is still open
    assert small.returncode == 1 and TAESD in small.stderr and f"{ECHOMIMIC}:" not in small.stderr


@pytest.mark.process
def test_killed_in_the_middle_and_started_again(
    env: dict[str, str], server: HubServer, tmp_path: Path
) -> None:
    server.repositories = {
        **server.repositories,
        # zip archives may have other bytes before them, so this stays a file of weights
        ECHOMIMIC: {**server.repositories[ECHOMIMIC], "pose_encoder.pth": bytes(5 * 2**20)},
    }
    server.faults[f"{ECHOMIMIC}/pose_encoder.pth"] = Fault(hold_after=3 * 2**20)
    running = subprocess.Popen(
        command("--accept-licences", "--model-dir", str(tmp_path / "new")),
        env={**env, "HF_ENDPOINT": server.url},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    weights = tmp_path / "new/pretrained_weights"
    deadline = time.monotonic() + 60
    while sum(path.stat().st_size for path in weights.glob("pose_encoder.pth.*.part")) < 2 * 2**20:
        assert time.monotonic() < deadline and running.poll() is None
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    _, told = running.communicate(timeout=30)
    assert running.returncode == 130 and "Traceback" not in told
    assert told.splitlines()[-1].endswith("what has come stays, and the next start goes on")
    server.faults.clear()
    server.go_on.set()
    server.requests.clear()
    done = fetch(env, server, "--model-dir", str(tmp_path / "new"))
    assert done.returncode == 0, done.stderr
    assert "are here from an earlier start" in done.stderr
    assert server.gets("pose_encoder.pth")[-1].range.startswith("bytes=")
    assert not server.gets("denoising_unet_acc.pth"), "it was whole before"
    assert (weights / "pose_encoder.pth").read_bytes() == bytes(5 * 2**20)


@pytest.mark.process
def test_a_disk_that_is_full(env: dict[str, str], server: HubServer) -> None:
    """A limit on a file's size stands for the end of the disk: the write fails in the middle."""
    size = len(server.repositories[ECHOMIMIC]["denoising_unet_acc.pth"])

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2))

    full = fetch(env, server, "--accept-licences", limits=limit)
    assert full.returncode == 1 and "Traceback" not in full.stderr
    last = full.stderr.splitlines()[-1]
    assert "no more can be written to" in last and "make space" in last
    done = fetch(env, server, "--accept-licences")
    assert done.returncode == 0, done.stderr
    assert server.gets("denoising_unet_acc.pth")[-1].range == f"bytes={size // 2}-"


def test_a_disk_that_would_become_full(
    env: dict[str, str], server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "Hub", hub_of(server))
    monkeypatch.setattr(prepare, "_free_bytes", lambda folder: prepare.LEFT_FREE)
    with pytest.raises(OfficialError, match=r"are to come and 210 MB are free; make space, or name a folder"):
        run_here(given("--accept-licences"), env)
    assert not [request for request in server.requests if request.method == "GET"]


@pytest.mark.process
def test_offline_says_what_is_missing(env: dict[str, str], server: HubServer, mine: Path) -> None:
    (mine / "pretrained_weights/reference_unet.pth").unlink()
    done = fetch({**env, "HF_HUB_OFFLINE": "1"}, server, "--model-dir", str(mine))
    assert done.returncode == 1
    assert f"1 files are not on this machine: reference_unet.pth of {ECHOMIMIC}" in done.stderr
    assert not server.requests


@pytest.mark.process
def test_one_sentence_for_a_failure(env: dict[str, str], server: HubServer) -> None:
    server.faults[f"{ECHOMIMIC}/reference_unet.pth"] = Fault(404, "EntryNotFound")
    done = fetch(env, server, "--accept-licences")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "has no file reference_unet.pth" in done.stderr.splitlines()[-1]


def test_a_pointer_in_the_users_folder_is_replaced(
    env: dict[str, str], server: HubServer, mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "Hub", hub_of(server))
    monkeypatch.setattr(prepare, "ask_outlook", lambda: None)
    pointer = mine / "pretrained_weights/reference_unet.pth"
    pointer.write_text(POINTER)
    settings, told = run_here(given("--model-dir", str(mine), "--accept-licences"), env)
    assert f"not used: {pointer}: is a Git LFS pointer" in told
    assert pointer.read_bytes() == server.repositories[ECHOMIMIC]["reference_unet.pth"]
    assert WHISPER_WEIGHTS.place not in told, "the file in OpenAI's form serves"
    ModelConfig.load(settings.config)
