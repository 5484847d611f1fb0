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
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from protocol.wire.clock import frames_of_clip
from scripts.run.managed import ROOT, ManagedRun
from scripts.talk.live import Plan, server_info, speak
from scripts.talk.stream_check import Report
from tests.helpers.waiting import wait_for
from tests.integration.conftest import Sound, keeper

pytestmark = [pytest.mark.process, pytest.mark.timing]


def hold(run: ManagedRun, *plans: Plan, fps: int | None = None) -> list[Report]:
    """Hold sessions at once. Returns their reports. `fps`: rate of version 1 sessions, if not the default."""
    info = server_info(run.url)
    fps = fps or int(info["fps"])
    clip_frames = frames_of_clip(fps, int(info["clip_frames"]))

    async def all_of_them() -> list[Report]:
        return list(await asyncio.gather(*(speak(run.url, plan, fps, clip_frames) for plan in plans)))

    return asyncio.run(all_of_them())


@pytest.mark.parametrize("version", [1, 2])
def test_every_frame_and_sample_comes_back(default_run: ManagedRun, speech: Sound, version: int) -> None:
    (report,) = hold(default_run, Plan(speech, version=version))
    print(*report.lines(), sep="\n")
    assert report.problems == []
    assert report.frames_received == report.frames_expected


@pytest.fixture
def run_of_two() -> Iterator[ManagedRun]:
    """The default run, but the door lets two in whatever warm-up measured beside other work."""
    with ManagedRun("--fps", "8", "--max-sessions", "2", timeout=300) as run:
        yield run


def test_sessions_have_their_own_face_and_sound(run_of_two: ManagedRun, speech: Sound) -> None:
    """Two at once, at the lowest rate. A small machine may have to leave pictures out even then. Those that
    come must be the session's own, and its sound whole."""
    names = server_info(run_of_two.url)["avatars"]
    assert len(names) >= 2, "the bundled model has several avatars"
    pictures = {name: small(fetch(f"{run_of_two.url}/avatars/{name}.png")) for name in names}
    frames: dict[str, list[bytes]] = {name: [] for name in names[:2]}
    plans = [
        Plan(
            sound,
            version=2,
            avatar=name,
            fps=8,
            on_frame=keeper(frames[name]),
        )
        for name, sound in zip(frames, (speech, speech[::-1].copy()), strict=True)
    ]
    for report in hold(run_of_two, *plans):
        print(*report.lines(), sep="\n")
        assert not [problem for problem in report.problems if "echoed" in problem or "sound of" in problem]
        assert report.echoed >= report.sent
    for name, jpegs in frames.items():
        assert len(jpegs) >= 4 * len(speech) // 16000
        assert {nearest(small(jpeg), pictures) for jpeg in jpegs} == {name}


def test_many_sessions_of_both_versions_keep_apart(plain_run: ManagedRun, speech: Sound) -> None:
    """Each with a sound of its own, all at 24 fps."""
    sounds = [np.roll(speech, 4000 * number) * np.float32(0.9 - 0.1 * number) for number in range(6)]
    plans = [Plan(sound, version=1 + number % 2, fps=24) for number, sound in enumerate(sounds)]
    for report in hold(plain_run, *plans, fps=24):
        assert report.problems == []


def test_an_encoder_started_by_hand_takes_work_and_leaves_without_loss(
    plain_run: ManagedRun, speech: Sound
) -> None:
    command = [sys.executable, "-m", "encoder_worker", "--port", str(plain_run.port), "--passthrough"]
    encoder = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    worker = f"0-{encoder.pid}"
    waited = float("nan")

    async def come_and_go() -> None:
        nonlocal waited
        await asyncio.to_thread(wait_for, lambda: clips_of(plain_run, worker) is not None, 60)
        warm = time.monotonic()
        await asyncio.to_thread(wait_for, lambda: bool(clips_of(plain_run, worker)), 10)
        waited = time.monotonic() - warm
        await asyncio.sleep(2)
        encoder.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(encoder.wait, 10) == 0

    async def all_of_it() -> list[Report]:
        plan = Plan(np.tile(speech, 6), version=2, fps=24)
        sessions = asyncio.gather(*(speak(plain_run.url, plan, 24, 12) for _ in range(3)))
        reports, _ = await asyncio.gather(sessions, come_and_go())
        return reports

    try:
        reports = asyncio.run(all_of_it())
    finally:
        if encoder.poll() is None:
            encoder.kill()
        encoder.wait()
    print(f"the encoder had finished a first clip {waited:.2f} s after it was warm")
    assert [report.problems for report in reports] == [[], [], []]
    assert waited < 1.0


def test_a_session_with_an_unknown_avatar_is_refused_and_others_go_on(
    default_run: ManagedRun, speech: Sound
) -> None:
    from scripts.talk.live import ClientError

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


def test_the_public_description_names_avatars_and_poses(default_run: ManagedRun) -> None:
    info = json.loads(fetch(f"{default_run.url}/avatars.json"))
    assert info["avatars"] and info["poses"] and info["fps"] in (24, 12, 8)
