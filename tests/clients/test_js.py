"""The client for JavaScript: the README's programs in Node.js and in Chromium, and sessions that are cut."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.node_programs import HAS_SOCKET, PACKAGE, installed, run_node
from tests.clients.relay import relay_to
from tests.clients.test_readme import write_speech
from tests.gateway.clients import noise
from tests.gateway.conftest import Running, running
from tests.helpers.chromium import Chromium, find_chromium
from tests.helpers.lip_sync import bursts
from tests.helpers.other_site import OtherSite, other_site

pytestmark = [pytest.mark.process, pytest.mark.timing]
needs_node = pytest.mark.skipif(not HAS_SOCKET, reason="needs Node.js 20.10 (a websocket of its own)")


@pytest.fixture(scope="module")
def site() -> Iterator[OtherSite]:
    with other_site() as served:
        yield served


@pytest.fixture(scope="module")
def gateway(site: OtherSite) -> Iterator[Running]:
    with running(max_sessions=4, idle_flush=1.0, allowed_origins=site.origin) as run:
        yield run


def programs(language: str) -> list[str]:
    text = (PACKAGE / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.S)


@needs_node
def test_the_program_of_the_readme_gets_a_picture_for_every_moment(gateway: Running, tmp_path: Path) -> None:
    program = programs("js")[0]
    lines = [line for line in program.splitlines() if line.strip(" }\n") and "import" not in line]
    assert len(lines) <= 10
    write_speech(tmp_path / "speech.wav", noise(2.2))
    printed = run_node(installed(tmp_path), program, gateway.url(), str(tmp_path / "speech.wav"))
    times = [float(line.split(" s: ")[0]) for line in printed]
    assert times == pytest.approx([number / 24 for number in range(5 * 12)], abs=0.001)


@pytest.mark.browser
@pytest.mark.skipif(find_chromium() is None, reason="needs Chromium (apt install chromium)")
async def test_the_page_of_the_readme_speaks_at_another_site(gateway: Running, site: OtherSite) -> None:
    (body,) = programs("html")
    address = site.page("speaks", body.replace("https://your-server/", gateway.url("/")))
    async with Chromium() as browser:
        page = await browser.open(address)
        await page.click("#speak")
        colours = (
            "new Set(document.querySelector('#face').getContext('2d').getImageData(0, 0, 256, 256).data).size"
        )
        await page.until(f"{colours} > 20")
        assert page.problems == []


INTERRUPTED = """
import { connect } from "echomimic-live-client";
const texts = [];
const face = await connect(process.argv[2], { onText: ({ type }) => texts.push(type) });
face.push(new Float32Array(30 * 48000).fill(0.1), 48000);
const frames = [];
for await (const frame of face.frames()) {
  frames.push(frame);
  if (frames.length === 20) break;
}
const began = performance.now();
const { epoch, position } = await face.interrupt();
const took = performance.now() - began;
face.push(new Int16Array(16000).fill(3000));
face.finish();
const after = [];
for await (const frame of face.frames()) after.push(frame);
let heard = 0;
for await (const sound of face.sounds()) heard += sound.samples.length;
console.log(JSON.stringify({
  took, epoch, position, heard, texts, first: after[0].position, count: after.length,
  epochs: [...new Set(after.map((frame) => frame.epoch))], later: after[0].time > frames.at(-1).time,
}));
face.close();
"""


@needs_node
def test_an_interruption_drops_what_waits_and_goes_on(gateway: Running, tmp_path: Path) -> None:
    (line,) = run_node(installed(tmp_path), INTERRUPTED, gateway.url())
    told = json.loads(line)
    assert told["took"] < 300 and told["epochs"] == [told["epoch"]] == [1], told
    assert told["count"] == 24 and told["heard"] == 16000 and told["later"], told
    assert told["first"] == told["position"] < 12 * 16000, told
    assert {"interrupted", "speech_started"} <= set(told["texts"])


CODED = """
import { connect } from "echomimic-live-client";
const face = await connect(process.argv[2], { video: ["h264"] });
face.push(Float32Array.from({ length: 16000 }, (_, n) => 0.3 * Math.sin(n / 9)));
face.finish();
for await (const { codec, key, pts, time, data } of face.frames()) {
  console.log(JSON.stringify({ codec, key, pts, time, data: Buffer.from(data).toString("base64") }));
}
face.close();
"""


@needs_node
def test_h264_comes_as_access_units_with_their_times(gateway: Running, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    if "libx264" not in av.codecs_available:
        pytest.skip("this PyAV has no x264")
    frames = [json.loads(line) for line in run_node(installed(tmp_path), CODED, gateway.url())]
    assert {frame["codec"] for frame in frames} == {"h264"}
    assert [frame["key"] for frame in frames] == [number % 12 == 0 for number in range(24)]
    assert [frame["pts"] for frame in frames] == [number * 16000 // 24 for number in range(24)]
    assert [frame["time"] for frame in frames] == pytest.approx([f["pts"] / 16000 for f in frames])
    decoder = av.CodecContext.create("h264", "r")
    shown = [picture for f in frames for picture in decoder.decode(av.Packet(base64.b64decode(f["data"])))]
    shown += decoder.decode(None)
    assert [(picture.width, picture.height) for picture in shown] == [(256, 256)] * 24


DECODED = """
<script type="module">
  import { Pictures, connect, knownCodecs } from "SERVER/client/index.js";
  const told = { codecs: new Set(), sizes: [] };
  const face = await connect("SERVER/", { video: await knownCodecs() });
  const pictures = new Pictures();
  face.push(new Float32Array(16000).fill(0.1));
  face.finish();
  for await (const frame of face.frames()) {
    told.codecs.add(frame.codec);
    const bitmap = await pictures.decode(frame);
    told.sizes.push(bitmap?.width ?? 0);
    bitmap?.close();
  }
  window.told = { sizes: told.sizes, codecs: [...told.codecs] };
</script>
"""

STREAMED = """
<button id="speak">Speak</button><video id="held" autoplay muted playsinline></video>
<script type="module">
  import { show } from "SERVER/client/index.js";
  const told = (window.told = { sound: [], mouth: [] });
  // The times at which a track begins to be loud, or to have an open mouth.
  async function follow(track, test, times) {
    const { readable } = new MediaStreamTrackProcessor({ track });
    let before = false;
    for await (const piece of readable) {
      const now = test(piece);
      if (now && !before) times.push(performance.now());
      before = now;
      piece.close();
    }
  }
  const pen = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  function isOpen(picture) {
    pen.drawImage(picture, 128, 164, 1, 1, 0, 0, 1, 1);
    return pen.getImageData(0, 0, 1, 1).data[1] < 130;
  }
  function isLoud(piece) {
    const samples = new Float32Array(piece.numberOfFrames);
    piece.copyTo(samples, { planeIndex: 0, format: "f32-planar" });
    return samples.some((sample) => sample > 0.1);
  }
  document.querySelector("#speak").onclick = async () => {
    const face = await show(null, "SERVER/", { video: [] });
    document.querySelector("#held").srcObject = face.stream;
    follow(face.stream.getAudioTracks()[0], isLoud, told.sound);
    follow(face.stream.getVideoTracks()[0], isOpen, told.mouth);
    face.push(new Float32Array(BURSTS), 16000);
  };
</script>
"""


@pytest.mark.browser
@pytest.mark.skipif(find_chromium() is None, reason="needs Chromium (apt install chromium)")
async def test_a_page_decodes_what_its_browser_can(gateway: Running, site: OtherSite) -> None:
    address = site.page("decodes", DECODED.replace("SERVER/", gateway.url("/")))
    async with Chromium() as browser:
        page = await browser.open(address)
        told = await page.until("window.told")
        assert page.problems == []
    assert told["sizes"] == [256] * 24 and told["codecs"] in (["h264"], ["vp8"]), told


@pytest.mark.browser
@pytest.mark.skipif(find_chromium() is None, reason="needs Chromium (apt install chromium)")
async def test_a_stream_has_pictures_and_sound_in_step(gateway: Running, site: OtherSite) -> None:
    body = STREAMED.replace("SERVER/", gateway.url("/")).replace("BURSTS", json.dumps(bursts().tolist()))
    async with Chromium() as browser:
        page = await browser.open(site.page("streams", body))
        await page.click("#speak")
        told = await page.until("told.sound.length > 2 && told.mouth.length > 2 && told")
        held = await page.evaluate("[held.videoWidth, held.srcObject.getTracks().map(({ kind }) => kind)]")
        assert page.problems == []
    late = [mouth - sound for sound, mouth in zip(told["sound"], told["mouth"], strict=True)]
    print(f"pictures after the sound in milliseconds: {[round(value) for value in late]}")
    assert max(map(abs, late)) < 80
    assert held[0] == 256 and sorted(held[1]) == ["audio", "video"]


LOST = """
import { connect } from "echomimic-live-client";
const face = await connect(process.argv[2]);
face.push(Float32Array.from({ length: 4 * 16000 }, (_, n) => Math.sin(n)));
face.finish();
const frames = [];
for await (const frame of face.frames()) {
  frames.push(frame);
  if (frames.length === 24) console.log("24 frames");
}
const sounds = [];
for await (const sound of face.sounds()) sounds.push(...sound.samples);
const exact = sounds.every((sample, n) => sample === Math.fround(Math.sin(n)));
console.log(JSON.stringify({
  reconnects: face.reconnects, exact, heard: sounds.length, times: frames.map(({ time }) => time),
}));
face.close();
"""


@needs_node
@pytest.mark.long
async def test_a_connection_that_is_cut_loses_nothing(gateway: Running, tmp_path: Path) -> None:
    async with relay_to(gateway.settings.port) as relay:

        async def cut() -> None:
            await asyncio.sleep(1.6)
            relay.cut()

        task = asyncio.create_task(cut())
        lines = await asyncio.to_thread(run_node, installed(tmp_path), LOST, relay.url)
        await task
    told = json.loads(lines[-1])
    assert told["reconnects"] == 1 and told["exact"] and told["heard"] == 64000, told
    assert told["times"] == pytest.approx([number / 24 for number in range(8 * 12)], abs=0.001)


REFUSED = """
import { connect, ClientError } from "echomimic-live-client";
for (const [address, options] of [["http://127.0.0.1:9/", {}], [process.argv[2], { avatar: "nobody" }]]) {
  try {
    await connect(address, options);
  } catch (error) {
    console.log(error instanceof ClientError, error.code);
  }
}
"""


@needs_node
def test_a_program_learns_why_it_is_not_let_in(gateway: Running, tmp_path: Path) -> None:
    assert run_node(installed(tmp_path), REFUSED, gateway.url()) == ["true lost", "true bad_option"]


def test_the_package_has_the_project_s_version() -> None:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no reader of TOML")
    whole = tomllib.loads((PACKAGE / "../../pyproject.toml").read_text(encoding="utf-8"))
    package = json.loads((PACKAGE / "package.json").read_text(encoding="utf-8"))
    assert package["version"] == whole["project"]["version"] and "dependencies" not in package
