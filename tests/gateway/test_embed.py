"""The face in pages of other sites, in headless Chromium: <echomimic-face>, a frame, a browser source."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from protocol.process.settings import ROOT, load_settings
from scripts.fake_stages.workers import FakeBehaviour
from scripts.talk.sound import read_sound, synthetic_voice, write_wav
from tests.gateway.conftest import Running, running
from tests.helpers.chromium import Chromium, Page, find_chromium
from tests.helpers.other_site import OtherSite, other_site
from tests.helpers.ports import listening

pytestmark = [
    pytest.mark.process,
    pytest.mark.browser,
    pytest.mark.skipif(find_chromium() is None, reason="needs Chromium (apt install chromium)"),
]

#: Counts a component's events, and speaks the site's recording.
SCRIPT = """<script>
window.got = {}; window.last = {};
const kinds = ["ready", "speechstart", "speechend", "frame", "tap", "error"];
const count = (kind, detail) => { got[kind] = (got[kind] ?? 0) + 1; last[kind] = detail; };
window.face = document.querySelector("echomimic-face");
for (const kind of face ? kinds : []) face.addEventListener(kind, (event) => count(kind, event.detail));
async function decoded() {
  const context = new OfflineAudioContext(1, 48000, 48000);
  return context.decodeAudioData(await (await fetch("speech.wav")).arrayBuffer());
}
</script>"""
#: Chromium as people have it: no sound before a page was clicked.
STRICT = ("--autoplay-policy=document-user-activation-required",)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OtherSite]:
    recording = load_settings([]).shared_dir / "data/audio/news.wav"
    path = tmp_path_factory.mktemp("sound") / "speech.wav"
    write_wav(path, read_sound(recording) if recording.is_file() else synthetic_voice(4.2))
    with other_site() as served:
        served.files["/speech.wav"] = path.read_bytes()
        yield served


@pytest.fixture(scope="module")
def gateway(site: OtherSite) -> Iterator[Running]:
    portraits = ROOT / "demo/bundled/avatars"
    with running(portraits=portraits, max_sessions=6, embed_origins=site.origin) as run:
        yield run


def with_component(run: Running, attributes: str = "") -> str:
    """A page's body that holds the component."""
    return (
        "<style>body { margin: 0; background: rgb(10, 20, 200) }</style>"
        f'<script type="module" src="{run.url("/echomimic-face.js")}"></script>'
        f"<echomimic-face {attributes}></echomimic-face>{SCRIPT}"
    )


async def picture(page: Page) -> np.ndarray:
    """The page's pixels, (height, width, 4)."""
    shot = await page.command("Page.captureScreenshot", format="png")
    return np.array(Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGBA"))


async def portrait_shown(page: Page) -> None:
    """Wait until the face at rest is on the screen."""
    await page.until("document.querySelector('#portrait').naturalWidth > 100 && !portrait.hidden")
    await page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


async def test_the_component_speaks_in_a_page_of_another_site(gateway: Running, site: OtherSite) -> None:
    assert listening(gateway.process.pid) == {("127.0.0.1", gateway.settings.port)}
    # The strictest policy of the holding page that still names the server.
    server = gateway.url("").rstrip("/")
    policy = f"default-src 'self'; script-src 'self' 'unsafe-inline' {server}; frame-src {server}"
    site.headers["Content-Security-Policy"] = f"{policy}; style-src 'unsafe-inline'"
    async with Chromium() as browser:
        page = await browser.open(
            site.page("component", with_component(gateway, 'avatar="maya" pose="talk"'))
        )
        await page.size(400, 400)
        await page.until("got.ready")
        assert "maya" in await page.evaluate("last.ready.avatars")
        frame = await browser.frame("/embed")
        await portrait_shown(frame)
        at_rest = await picture(page)
        seconds = await page.evaluate(
            "decoded().then((sound) => (face.speak(sound), face.flush(), sound.duration))"
        )
        await page.until("got.speechstart && got.frame > 30")
        assert await frame.evaluate("window.echomimic.audible")
        assert not np.array_equal(await picture(page), at_rest), "the face moves"
        stats = await frame.evaluate("JSON.parse(JSON.stringify(window.echomimic.stats))")
        assert abs(stats["offsetMs"]) < 40, stats
        await page.until("got.speechend", seconds + 10)
        assert await page.evaluate("got.frame") >= 0.8 * 24 * seconds
        said = np.concatenate([pcm.samples for pcm in list(gateway.stages.audio.received)[-400:]])
        assert len(said) >= 16000 * seconds and np.sqrt(np.mean(said**2)) > 0.01

        # Samples at another rate, and silence at once.
        voice = "Float32Array.from({ length: 10 * 24000 }, (_, n) => 0.3 * Math.sin(n / 20))"
        before = await page.evaluate(f"(face.speak({voice}, 24000), got.speechstart)")
        await page.until(f"got.speechstart > {before}")
        ended = await page.evaluate("(face.stop(), got.speechend)")
        await page.until(f"got.speechend > {ended}", 2)
        frames = await page.evaluate("got.frame")
        await asyncio.sleep(0.5)
        assert await page.evaluate("got.frame") <= frames + 1

        # A stream, such as that of a call: the holding page reads it with the server's worklet.
        stream = """decoded().then((sound) => {
            const context = new AudioContext(), to = context.createMediaStreamDestination();
            const node = new AudioBufferSourceNode(context, { buffer: sound });
            node.connect(to); node.start(); face.speak(to.stream); return true; })"""
        before = await page.evaluate("got.speechstart")
        assert await page.evaluate(stream)
        await page.until(f"got.speechstart > {before} && got.frame > {frames + 24}")
        await page.evaluate("(face.setAttribute('avatar', 'omar'), face.stop())")

        # Mistakes are told, and nothing else happens.
        await page.evaluate("(face.speak(Float32Array.of(NaN), 16000), face.speak(new Float32Array(9), 1))")
        await page.until("got.error === 2 && last.error.code === 'bad_audio'")
        assert page.problems == [] and frame.problems == []
    site.headers.clear()


async def test_a_bare_frame_speaks_and_only_its_parent_is_heard(gateway: Running, site: OtherSite) -> None:
    address = gateway.url("/embed?avatar=leo&fit=cover&background=%2300ff00")
    body = f"""<iframe id="f" src="{address}" allow="autoplay" width="300" height="200"></iframe>
        {SCRIPT}<script>
        const server = {gateway.url("")!r};
        const frame = document.querySelector("#f");
        addEventListener("message", (event) => {{
          if (event.source === frame.contentWindow) count(event.data.echomimic, event.data);
        }});
        const send = (message) => frame.contentWindow.postMessage(message, server);
        frame.addEventListener("load", () => send({{ echomimic: "hello" }}));
        </script>"""
    async with Chromium() as browser:
        page = await browser.open(site.page("frame", body))
        await page.until("got.ready")
        frame = await browser.frame("/embed")
        # A window that is not the parent says the same: here a frame beside it.
        message = "{ echomimic: 'speak', samples: new Float32Array(16000), rate: 16000 }"
        other = f"<script>parent.frames[0].postMessage({message}, '*')</script>"
        beside = f"Object.assign(document.createElement('iframe'), {{ srcdoc: {json.dumps(other)} }})"
        await page.evaluate(f"void document.body.append({beside})")
        await asyncio.sleep(0.5)
        assert await frame.evaluate("window.echomimic.state") == "idle"
        speak = "{ echomimic: 'speak', samples: sound.getChannelData(0), rate: 48000 }"
        await page.evaluate(f"decoded().then((sound) => send({speak}))")
        await page.until("got.frame > 12 && got.speechstart === 1")
        assert await frame.evaluate("window.echomimic.state") == "live"
        assert page.problems == [] and frame.problems == []


async def test_a_site_that_is_not_named_is_shown_nothing(gateway: Running) -> None:
    with other_site() as stranger:
        async with Chromium() as browser:
            page = await browser.open(stranger.page("component", with_component(gateway)))
            await page.size(320, 320)
            await page.until("got.error", 12)
            told = await page.evaluate("last.error")
            assert told["code"] == "no_answer" and f"{stranger.origin} in --embed-origins" in told["text"]
            assert any("frame-ancestors" in problem for problem in page.problems), page.problems
            assert await page.evaluate("got.ready === undefined && got.frame === undefined")
            # The whole page is not held either: a click on a hidden Start would open the microphone.
            framed = f'<iframe src="{gateway.url("/")}" style="width: 300px; height: 300px"></iframe>'
            whole = await browser.open(stranger.page("whole", framed))
            assert any("frame-ancestors" in problem for problem in whole.problems), whole.problems


async def test_without_a_click_the_face_speaks_silently_and_a_tap_gives_the_sound(
    gateway: Running, site: OtherSite
) -> None:
    async with Chromium(flags=STRICT) as browser:
        page = await browser.open(site.page("tap", with_component(gateway)))
        page.gesture = False  # an agent speaks, and no hand of a person is in it
        await page.size(400, 400)
        await page.until("got.ready")
        frame = await browser.frame("/embed")
        frame.gesture = False
        await page.evaluate("decoded().then((sound) => (face.speak(sound), true))")
        await page.until("got.tap && got.frame > 12")
        assert not await frame.evaluate("window.echomimic.audible")
        tap = "document.querySelector('#tap')"
        assert await frame.evaluate(f"!{tap}.hidden && {tap}.textContent") == "Tap for sound"
        await page.click("echomimic-face")
        await frame.until(f"window.echomimic.audible && {tap}.hidden")
        frames = await page.evaluate("got.frame")
        await page.until(f"got.frame > {frames + 12}")
        assert abs(await frame.evaluate("window.echomimic.stats.offsetMs")) < 40


async def test_posted_speech_goes_out_at_the_pace_of_speaking(gateway: Running) -> None:
    """On a clock of the test's: two rates, a pause, a hidden page's slow ticks, a lost connection."""
    script = """(async () => {
        const { PacedSpeech } = await import("/client/paced-speech.js");
        let now = 1000, sent = 0, flushed = 0;
        performance.now = () => now;
        const speech = new PacedSpeech(), tone = (n) => new Float32Array(n).fill(0.1), log = [];
        speech.onChunk = (samples) => { sent += samples.length; };
        speech.onFlush = () => { flushed += 1; };
        await speech.begin();
        clearInterval(speech.timer);
        const go = (milliseconds, step) => {
          for (const end = now + milliseconds; now < end; ) { now += step; speech.tick(); }
          log.push([sent, flushed]);
        };
        for (let n = 0; n < 48; n += 1) speech.add(tone(1001), 24000);  // 2 s
        go(1000, 20);                                    // real time and what is ahead of it
        go(2000, 20);                                    // all of it
        speech.flush();
        go(20, 20);
        go(5000, 20);                                    // a pause
        speech.add(tone(64000), 16000);                  // 4 s
        go(2000, 1000);                                  // a hidden page
        speech.pause();
        go(1000, 20);
        speech.resume();
        go(500, 20);
        return log;
    })()"""
    async with Chromium() as browser:
        page = await browser.open(gateway.url("/embed"))
        log = await page.evaluate(script)
    rate, piece = 16000, 1600
    sent = [entry[0] for entry in log]
    assert 1.2 * rate <= sent[0] <= 1.2 * rate + piece
    assert 2 * rate - 100 <= sent[1] <= 2.01 * rate, "the resampler holds a few samples back"
    assert [entry[1] for entry in log] == [0, 0, 1, 1, 1, 1, 1]
    assert sent[3] == sent[2]
    assert 2.2 * rate <= sent[4] - sent[3] <= 2.2 * rate + piece, "slow ticks make up for what they missed"
    assert sent[5] == sent[4], "nothing goes out while the connection is lost"
    assert 0.3 * rate <= sent[6] - sent[5] <= 0.7 * rate + piece, "and no heap of it afterwards"


async def test_a_browser_source_is_transparent_around_the_face(
    gateway: Running, site: OtherSite, tmp_path: Path
) -> None:
    """As OBS has it: the page alone, no parent, no gesture, sound allowed, a transparent canvas behind it.

    The label that says that the face is generated is off, since it lies beside the picture.
    """
    microphone = tmp_path / "microphone.wav"
    microphone.write_bytes(site.files["/speech.wav"])
    async with Chromium(microphone=microphone) as browser:
        page = await browser.open("about:blank")
        await page.size(480, 270)
        await page.command(
            "Emulation.setDefaultBackgroundColorOverride", color={"r": 0, "g": 0, "b": 0, "a": 0}
        )
        await page.go(gateway.url("/embed?avatar=kenji&mic=1&label=0"))
        await page.until("window.echomimic.stats?.shown > 24")
        # By loudspeakers the microphone would hear the face.
        assert not await page.evaluate("window.echomimic.audible || window.echomimic.heard")
        seen = await picture(page)
        assert seen.shape == (270, 480, 4)
        assert (seen[:, :100, 3] == 0).all() and (seen[:, -100:, 3] == 0).all(), "transparent at the sides"
        assert (seen[:, 110:370, 3] == 255).all(), "the picture itself is opaque"
        # A session that the server gives up is followed by another: nobody presses a button here.
        gateway.does.fatal = True
        await page.until("!document.querySelector('#error').hidden && window.echomimic.stats === null")
        gateway.stages.behaviour = FakeBehaviour()
        await page.until("window.echomimic.stats?.shown > 6 && document.querySelector('#error').hidden")
        await page.go(gateway.url("/embed?mic&muted=0"))
        await page.until("window.echomimic.stats?.shown > 6")
        assert await page.evaluate("window.echomimic.audible && window.echomimic.heard")
        await page.go(gateway.url("/embed?background=%2300ff00&muted"))
        await portrait_shown(page)
        seen = await picture(page)
        assert (seen[:, :100] == (0, 255, 0, 255)).all()
        await page.go(gateway.url("/embed?background=url(x)&fit=cover"))
        await portrait_shown(page)
        assert (await picture(page))[..., 3].min() == 255, "the face fills all"
        assert page.problems == []
