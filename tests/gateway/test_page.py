"""The page in headless Chromium: speech from a microphone and from a file, faults, keyboard, phone."""

from __future__ import annotations

import asyncio
import base64
import json
import math
import wave
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from protocol.process.settings import ROOT
from protocol.wire.browser import AudioMessage, VideoMessage, encode_audio, encode_video
from scripts.fake_stages.workers import FakeBehaviour
from tests.gateway.conftest import Running, running
from tests.helpers.chromium import Chromium, Page, find_chromium

pytestmark = [
    pytest.mark.process,
    pytest.mark.browser,
    pytest.mark.skipif(find_chromium() is None, reason="needs Chromium (apt install chromium)"),
]

STATS = "JSON.parse(JSON.stringify(window.echomimic.stats))"


@pytest.fixture(scope="module")
def gateway() -> Iterator[Running]:
    with running(portraits=ROOT / "demo/bundled/avatars", max_sessions=2) as run:
        yield run


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Syllables: bursts of a buzzing tone with pauses, 48 kHz stereo, 3 s."""
    rate = 48000
    t = np.arange(3 * rate) / rate
    buzz = sum(np.sin(2 * np.pi * 140 * k * t) / k for k in range(1, 12))
    voice = buzz * np.clip(np.sin(2 * np.pi * 2.5 * t), 0, 1) * 0.25
    path = tmp_path_factory.mktemp("sound") / "speech.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((2, 2, rate, 0, "NONE", ""))
        file.writeframes((np.repeat(voice[:, None], 2, 1) * 32767).astype("<i2").tobytes())
    return path


@asynccontextmanager
async def opened(run: Running, microphone: Path | None = None) -> AsyncIterator[Page]:
    async with Chromium(microphone=microphone) as browser:
        page = await browser.open(run.url("/"))
        await page.until("window.echomimic?.state === 'idle'")
        yield page


async def test_the_microphone_speaks_and_picture_and_sound_are_in_step(
    gateway: Running, speech: Path
) -> None:
    async with opened(gateway, speech) as page:
        await page.size(1280, 800)
        await page.until("document.querySelector('#portrait').naturalWidth > 100")
        assert await page.evaluate("[...document.querySelectorAll('#avatars input')].length") >= 4
        await page.click("#start")
        await page.until("window.echomimic.stats?.shown > 100")
        stats = await page.evaluate(STATS)
        assert abs(stats["offsetMs"]) < 40, stats
        assert stats["fps"] == pytest.approx(24, abs=6) and stats["drops"] < 40, stats
        assert 0 < stats["latencyMs"] < 1500, stats
        assert await page.evaluate("document.querySelector('#offset').textContent") != "–"

        # another face in the middle of it: a new epoch, and the canvas shows it
        colour = (
            "[...document.querySelector('#canvas').getContext('2d').getImageData(2, 2, 1, 1).data].join()"
        )
        before = await page.evaluate(colour)
        await page.click("#avatars label:nth-child(3)")
        await page.until(f"{colour} !== '{before}'")
        gateway.does.notice = "12 frames per second, what this machine holds"
        await page.until("document.querySelector('#notice').textContent.startsWith('12 frames')")

        await page.size(390, 844, phone=True, dark=True)
        wide = "document.documentElement.scrollWidth <= 390"
        assert await page.evaluate(wide), "the page is wider than a phone"
        await page.click("#start")
        await page.until("window.echomimic.state === 'idle'")
        assert page.problems == []


async def test_a_file_is_spoken_to_its_end_by_keyboard(gateway: Running, speech: Path) -> None:
    async with opened(gateway) as page:
        await page.evaluate("document.querySelector('[name=source][value=file]').click()")
        await page.evaluate("document.querySelector('#start').focus()")
        await page.press("Enter", 13)
        await page.until("document.querySelector('#error').textContent.includes('Choose an audio file')")
        await page.choose_file("#file", speech)
        await page.until("document.querySelector('#file-label').textContent === 'speech.wav'")
        await page.evaluate("document.querySelector('#start').focus()")
        await page.press(" ", 32)
        await page.until("window.echomimic.stats?.shown > 24")
        session = "window.kept = window.echomimic.stats"
        await page.evaluate(f"void ({session})")
        await page.until("window.echomimic.state === 'idle'", 12)
        stats = await page.evaluate("JSON.parse(JSON.stringify(window.kept))")
        assert stats["clips"] in (6, 7) and stats["shown"] + stats["drops"] >= 72, stats
        assert abs(stats["offsetMs"]) < 40 and page.problems == []
        said = np.concatenate([pcm.samples for pcm in list(gateway.stages.audio.received)[-50:]])
        assert len(said) > 40000 and 0.05 < np.abs(said).max() < 1.0


async def test_each_session_is_told_that_frames_are_left_out(gateway: Running, speech: Path) -> None:
    gateway.does.failing_clips = {1}
    notice = "document.querySelector('#notice').textContent"
    async with opened(gateway, speech) as page:
        for _ in range(2):
            await page.until(f"{notice} === ''")
            await page.click("#start")
            await page.until(f"{notice}.startsWith('The machine is behind')")
            await page.click("#start")
            await page.until("window.echomimic.state === 'idle'")
        assert page.problems == []


async def test_faults_are_told_and_a_lost_connection_comes_back(speech: Path, tmp_path: Path) -> None:
    with running(max_sessions=1) as run:
        async with opened(run, speech) as page:
            media = "navigator.mediaDevices"
            refuse = "Promise.reject(new DOMException('', '%s'))"
            for name, words in (("NotFoundError", "No microphone"), ("NotAllowedError", "blocked")):
                await page.evaluate(f"void ({media}.getUserMedia = () => {refuse % name})")
                await page.click("#start")
                await page.until(f"document.querySelector('#error').textContent.includes('{words}')")
                assert await page.evaluate("window.echomimic.state") == "idle"
            await page.evaluate(f"void (delete {media}.getUserMedia)")

            damaged = tmp_path / "damaged.wav"
            damaged.write_bytes(b"RIFF nothing of a sound")
            await page.evaluate("document.querySelector('[name=source][value=file]').click()")
            await page.choose_file("#file", damaged)
            await page.click("#start")
            await page.until("document.querySelector('#error').textContent.includes('could not be read')")
            await page.evaluate("document.querySelector('[name=source][value=microphone]').click()")

            await page.click("#start")
            await page.until("window.echomimic.stats?.shown > 5")
            run.does.fatal = True
            await page.until("document.querySelector('#error').textContent.includes('could not go on')")
            run.stages.behaviour = FakeBehaviour()

            await page.click("#start")
            await page.until("window.echomimic.stats?.shown > 5")
            run.restart()
            await page.until("window.echomimic.state === 'waiting'")
            shown = await page.evaluate("window.echomimic.stats.shown")
            await page.until(
                f"window.echomimic.state === 'live' && window.echomimic.stats.shown > {shown + 10}"
            )

            async with Chromium(microphone=speech) as second:
                other = await second.open(run.url("/"))
                await other.until("window.echomimic?.state === 'idle'")
                await other.click("#start")
                await other.until("document.querySelector('#state').textContent === 'Waiting for a place…'")
                await page.click("#start")
                await other.until("window.echomimic.state === 'live'")


async def test_page_and_gateway_agree_on_bytes_and_the_resampler_is_clean(gateway: Running) -> None:
    async with opened(gateway) as page:
        video = encode_video(VideoMessage(b"jpeg", 3, 70_000, 11, 12, 2**33 + 5), 2)
        audio = encode_audio(AudioMessage(np.array([0.5, -1], np.float32), 1, 2, 3, 2**40, False), 2)
        decode = (
            "(async (text) => { const { decode } = await import('/client/messages.js');"
            " const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));"
            " const m = decode(bytes.buffer);"
            " for (const k of ['data', 'samples']) if (m[k]) m[k] = [...m[k]];"
            " return m; })"
        )
        got = await page.evaluate(f"{decode}({json.dumps(base64.b64encode(video).decode())})")
        assert got == {
            "kind": "frame", "epoch": 3, "seq": 70_000, "pts": 2**33 + 5, "index": 11, "count": 12,
            "codec": "jpeg", "key": True, "idle": False, "data": list(b"jpeg"),
        }  # fmt: skip
        coded = encode_video(VideoMessage(b"h264", 3, 7, 11, 12, 5, "h264", False), 2)
        got = await page.evaluate(f"{decode}({json.dumps(base64.b64encode(coded).decode())})")
        assert (got["codec"], got["key"], bytes(got["data"])) == ("h264", False, b"h264")
        got = await page.evaluate(f"{decode}({json.dumps(base64.b64encode(audio).decode())})")
        assert got == {
            "kind": "audio", "epoch": 1, "seq": 2, "pts": 3, "position": 2**40, "pictures": False,
            "samples": [0.5, -1], "own": 2,
        }  # fmt: skip

        tone = """(async (rate, hertz) => {
            const { Resampler } = await import('/client/resampler.js');
            const resampler = new Resampler(rate, 16000), out = [];
            const at = (n) => Math.sin(2 * Math.PI * hertz * n / rate);
            for (let n = 0; n + 128 <= rate; n += 128)
                out.push(...resampler.process(Float32Array.from({ length: 128 }, (_, i) => at(n + i))));
            return out;
        })"""
        for rate in (16000, 44100, 48000, 96000):
            speech = np.array(await page.evaluate(f"{tone}({rate}, 1000)"))
            assert len(speech) == pytest.approx(16000, abs=150)
            level = np.sqrt(2 * np.mean(speech[1000:-1000] ** 2))
            assert level == pytest.approx(1, abs=0.01), rate
        for rate, hertz in ((44100, 9500), (48000, 9500), (48000, 15000)):
            alias = np.array(await page.evaluate(f"{tone}({rate}, {hertz})"))
            assert 20 * math.log10(np.sqrt(2 * np.mean(alias[1000:-1000] ** 2))) < -60, (rate, hertz)


async def test_the_page_waits_for_the_stages(speech: Path) -> None:
    with running(dead_after=1) as run:
        run.does.warm = ("audio_worker", "encoder_worker")
        while run.get("/readyz")[0] == 200:
            await asyncio.sleep(0.05)
        async with Chromium() as browser:
            page = await browser.open(run.url("/"))
            await page.until("document.querySelector('#state').textContent === 'Loading the face model…'")
            assert await page.evaluate("document.querySelector('#start').disabled")
            run.stages.behaviour = FakeBehaviour()
            await page.until("window.echomimic.state === 'idle'")


async def test_every_face_has_a_card_with_the_name_that_people_gave_it(tmp_path: Path) -> None:
    long = "somebody with a name of more than a hundred characters " * 2
    for number, name in enumerate(("anna", "Anna", "张三", "李四", "محمد", long.strip())):
        Image.new("RGB", (64, 64), (40 * number, 0, 0)).save(tmp_path / f"{name}.png")
    Image.new("RGB", (64, 64)).save(tmp_path / "李四.jpg")
    with running(portraits=tmp_path, avatar_dir=tmp_path) as run:
        catalogue = json.loads(run.get("/avatars.json")[1])
        assert list(catalogue["names"]["avatars"]) == catalogue["avatars"]
        async with opened(run) as page:
            cards = "[...document.querySelectorAll('#avatars label')]"
            shown = await page.evaluate(f"{cards}.map((card) => card.querySelector('b').textContent)")
            assert shown == list(catalogue["names"]["avatars"].values())
            assert set(shown) == {"anna", "Anna", "张三", "李四.png", "李四.jpg", "محمد", long.strip()}
            await page.until(f"{cards}.every((card) => card.querySelector('img').naturalWidth === 256)")
            # A long name makes no card wider than the others, and is whole in its tooltip.
            widths = await page.evaluate(f"{cards}.map((card) => card.getBoundingClientRect().width)")
            assert max(widths) - min(widths) < 1
            assert long.strip() in await page.evaluate(
                f"{cards}.map((card) => card.querySelector('b').title)"
            )
            for number, name in enumerate(catalogue["avatars"]):
                await page.evaluate(f"{cards}[{number}].click()")
                await page.until(f"document.querySelector('#portrait').src.endsWith('avatars/{name}.png')")
                alt = await page.evaluate("document.querySelector('#portrait').alt")
                assert alt == f"{catalogue['names']['avatars'][name]}, at rest"
            assert page.problems == []
