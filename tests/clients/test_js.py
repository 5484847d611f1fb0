"""The client for JavaScript: the README's programs in Node.js and in Chromium, and sessions that are cut."""

from __future__ import annotations

import asyncio
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
    (program,) = programs("js")
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
