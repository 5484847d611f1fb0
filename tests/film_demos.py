"""The films in `docs/media`, made anew: `python -m tests.film_demos [agent avatar obs]`.

Each is a real run of the bundled model, seen in headless Chromium. The voice agent's models are stand-ins.
Needs chromium, espeak-ng and PyAV. The sound is the page's and, with the agent, the person's too.
`tests/gateway/test_film.py` measures how far apart sound and pictures are.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
import wave
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from demo.factory.evaluate.material import HeldOut
from protocol.process.settings import ROOT
from scripts.run.managed import ManagedRun
from tests.examples.test_voice_agent import agent, models
from tests.gateway.test_page_avatars import CHOOSE, CROP, PREVIEW, at, press
from tests.helpers.chromium import Chromium
from tests.helpers.film import Camera, Film

SAMPLE = ROOT / "demo/factory/evaluate/sample"
QUESTION = "Hello! Can you tell me what you are?"
INTERRUPTION = "Wait, wait, please stop."


def spoken(words: str) -> np.ndarray:
    """int16 at 22,050 Hz."""
    out = subprocess.run(
        ["espeak-ng", "--stdout", "--stdin"], input=words.encode(), capture_output=True, check=True
    ).stdout
    return np.frombuffer(out[44 : len(out) // 2 * 2], np.int16)


def microphone(folder: Path, *parts: str | float) -> Path:
    """A WAV of sentences and of pauses in seconds, which is played once."""
    quiet = np.random.default_rng(0).integers(-8, 9, 22050 * 60, np.int16)
    sound = [spoken(part) if isinstance(part, str) else quiet[: int(part * 22050)] for part in parts]
    path = folder / "microphone.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(22050)
        file.writeframes(np.concatenate(sound).tobytes())
    return path


async def film_agent(folder: Path) -> Film:
    """Somebody asks the voice agent, and speaks over its answer."""
    sound = microphone(folder, 4.0, QUESTION, 9.0, INTERRUPTION, 12.0)
    with (
        models() as (api, _),
        ManagedRun("--voice-engine", "espeak-ng") as run,
        agent(run.url, api) as address,
    ):
        async with Chromium(microphone=f"{sound}%noloop") as browser:
            page = await browser.open("about:blank")
            await page.size(640, 640)
            camera = Camera(page)
            await camera.listen()
            await page.go(address.replace("ws://", "http://"))
            await camera.start()
            await page.click("button")
            await asyncio.sleep(26)
            return await camera.stop()


async def film_avatar(folder: Path) -> Film:
    """A figure that the model has never seen is brought to the page, tried, kept and used."""
    material = HeldOut(SAMPLE / "identities.npz", SAMPLE / "speech.npz", 1, 256, torch.device("cpu"))
    pictures, _ = material.write(folder)
    figure = next(path for path in sorted(pictures.iterdir()) if path.suffix == ".png")
    sound = microphone(folder, 1.0, "This is the face that I drew. " * 4)
    with ManagedRun("--own-avatar-dir", str(folder / "own")) as run:
        async with Chromium(microphone=sound) as browser:
            page = await browser.open("about:blank")
            await page.size(900, 760)
            camera = Camera(page)
            await camera.listen()
            await page.go(run.url)
            await page.until("window.echomimic?.state === 'idle'", 30)
            await page.evaluate("document.querySelector('#sound').click()")  # as with headphones
            await camera.start()
            await asyncio.sleep(1)
            await page.click("#own-open")
            await at(page, CHOOSE)
            await asyncio.sleep(1)
            await page.choose_file("#own-file", figure)
            await at(page, CROP)
            await asyncio.sleep(1.5)
            await press(page, "Try it")
            await at(page, PREVIEW)
            await asyncio.sleep(2)
            await press(page, "Keep")
            await page.until("document.querySelector('#avatars input[value^=own-]')?.checked === true")
            await page.click("#start")
            await page.until("window.echomimic.stats?.shown > 20", 30)
            await page.evaluate("window.scrollTo(0, 0)")
            await asyncio.sleep(8)
            return await camera.stop()


def scene(face: Image.Image) -> Image.Image:
    """The face as a browser source in a scene of OBS: over a background, with a title."""
    back = Image.new("RGB", (854, 480))
    pen = ImageDraw.Draw(back)
    for row in range(480):
        pen.line((0, row, 854, row), fill=(24 + row // 12, 32 + row // 16, 64 + row // 6))
    pen.rectangle((40, 40, 480, 360), fill=(16, 20, 32), outline=(120, 140, 200), width=2)
    pen.text((60, 60), "> echomimic-live", fill=(160, 220, 160))
    pen.rectangle((40, 400, 480, 440), fill=(180, 40, 60))
    pen.text((60, 412), "LIVE   a browser source: /embed?mic", fill="white")
    source = face.convert("RGBA").resize((320, 320))
    back.paste(source, (510, 80), source)
    return back


async def film_obs(folder: Path) -> Film:
    """What OBS shows: the browser source with its transparency, composed into a scene."""
    sound = microphone(folder, 1.0, "Good evening, and welcome to the stream. " * 4)
    with ManagedRun() as run:
        async with Chromium(microphone=sound) as browser:
            page = await browser.open("about:blank")
            await page.size(512, 512)
            clear = {"r": 0, "g": 0, "b": 0, "a": 0}
            await page.command("Emulation.setDefaultBackgroundColorOverride", color=clear)
            camera = Camera(page, scene, transparent=True)
            await camera.listen()
            await page.go(f"{run.url}/embed?mic&muted=0")
            await page.until("window.echomimic?.stats?.shown > 6", 30)
            await camera.start()
            await asyncio.sleep(10)
            return await camera.stop()


FILMS: dict[str, Callable[[Path], Coroutine[Any, Any, Film]]] = {
    "agent": film_agent,
    "avatar": film_avatar,
    "obs": film_obs,
}
#: The sounds of each film. Where the face says what its person says, its own voice is enough.
HEARD = {"agent": ("played", "microphone"), "avatar": ("played",), "obs": ("played",)}


def main() -> int:
    """Film what is asked for. Returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("films", nargs="*", choices=[*FILMS, []], default=list(FILMS))
    parser.add_argument("--out", type=Path, default=ROOT / "docs/media")
    args = parser.parse_args()
    for name in args.films or FILMS:
        with tempfile.TemporaryDirectory() as folder:
            film = asyncio.run(FILMS[name](Path(folder)))
        film.write(args.out / f"demo-{name}.mp4", HEARD[name])
    return 0


if __name__ == "__main__":
    sys.exit(main())
