"""Sessions over the default run: every frame and sample, each session its own, encoders that come and go."""

from __future__ import annotations

import asyncio
import io
import json
import signal
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest
from PIL import Image

from scripts.live_client import Plan, server_info, speak
from scripts.managed_run import ROOT, ManagedRun
from scripts.stream_check import Report
from tests.integration.conftest import wait_for


def hold(run: ManagedRun, *plans: Plan) -> list[Report]:
    """Hold sessions at once; their reports."""
    info = server_info(run.url)
    fps = int(info["fps"])

    async def all_of_them() -> list[Report]:
        return list(await asyncio.gather(*(speak(run.url, plan, fps, fps // 2) for plan in plans)))

    return asyncio.run(all_of_them())


@pytest.mark.parametrize("version", [1, 2])
def test_every_frame_and_sample_comes_back(default_run, speech, version):
    (report,) = hold(default_run, Plan(speech, version=version))
    print(*report.lines(), sep="\n")
    assert report.problems == []
    assert report.frames_received == report.frames_expected
    assert report.received_fps > 0.9 * report.fps


def test_sessions_keep_to_their_own_face_and_sound(default_run, speech):
    names = server_info(default_run.url)["avatars"]
    assert len(names) >= 2, "the bundled model has several avatars"
    pictures = {name: small(fetch(f"{default_run.url}/avatars/{name}.png")) for name in names}
    frames: dict[str, list[bytes]] = {name: [] for name in names[:2]}
    plans = [
        Plan(sound, version=1, avatar=name, on_frame=lambda _n, jpeg, into=frames[name]: into.append(jpeg))
        for name, sound in zip(frames, (speech, speech[::-1].copy()), strict=True)
    ]
    for report in hold(default_run, *plans):
        assert report.problems == []
    for name, jpegs in frames.items():
        assert {nearest(small(jpeg), pictures) for jpeg in jpegs} == {name}


def test_an_encoder_started_by_hand_takes_work_and_leaves_without_loss(default_run, speech):
    long_speech = np.tile(speech, 5)
    command = [sys.executable, "-m", "encoder_worker", "--port", str(default_run.port)]
    encoder = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    worker = f"0-{encoder.pid}"
    waited = float("nan")

    async def come_and_go() -> None:
        nonlocal waited
        await asyncio.to_thread(wait_for, lambda: clips_of(default_run, worker) is not None, 60)
        joined = time.monotonic()
        await asyncio.to_thread(wait_for, lambda: bool(clips_of(default_run, worker)), 10)
        waited = time.monotonic() - joined
        await asyncio.sleep(2)
        encoder.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(encoder.wait, 10) == 0

    async def both() -> Report:
        fps = int(server_info(default_run.url)["fps"])
        report, _ = await asyncio.gather(
            speak(default_run.url, Plan(long_speech, version=2), fps, fps // 2), come_and_go()
        )
        return report

    try:
        report = asyncio.run(both())
    finally:
        if encoder.poll() is None:
            encoder.kill()
        encoder.wait()
    print(f"the encoder had finished its first clip {waited:.2f} s after it was warm")
    assert report.problems == []
    assert waited < 1.5  # within a second it has work; a clip is half a second of speech


def test_a_session_with_an_unknown_avatar_is_refused_and_others_go_on(default_run, speech):
    from scripts.live_client import ClientError

    with pytest.raises(ClientError, match="bad_option"):
        hold(default_run, Plan(speech, version=2, avatar="nobody"))
    (report,) = hold(default_run, Plan(speech[:16000], version=2))
    assert report.problems == []


def clips_of(run: ManagedRun, worker: str) -> float | None:
    """Clips an encoder has finished; None while it is not warm."""
    metrics = run.metrics()
    warm = any(labels["worker"] == worker and v for labels, v in metrics.get("echomimic_stage_warm", []))
    done = [v for labels, v in metrics.get("echomimic_stage_clips_total", []) if labels["worker"] == worker]
    return (done[0] if done else 0.0) if warm else None


def fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return bytes(answer.read())


def small(data: bytes) -> np.ndarray:
    """A picture as coarse colours, shape (16, 16, 3)."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB").resize((16, 16)), np.float32)


def nearest(picture: np.ndarray, among: dict[str, np.ndarray]) -> str:
    return min(among, key=lambda name: float(np.abs(picture - among[name]).mean()))


def test_the_public_description_names_avatars_and_poses(default_run):
    info = json.loads(fetch(f"{default_run.url}/avatars.json"))
    assert info["avatars"] and info["poses"] and info["fps"] in (24, 12, 8)
