"""Films of a page are in step: a drawn face whose mouth opens with bursts of a tone is filmed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.gateway.conftest import running
from tests.helpers.chromium import Chromium, find_chromium
from tests.helpers.film import Camera
from tests.helpers.lip_sync import bursts, offsets
from tests.helpers.other_site import other_site

av = pytest.importorskip("av")
pytestmark = [
    pytest.mark.long,
    pytest.mark.process,
    pytest.mark.browser,
    pytest.mark.timing,
    pytest.mark.skipif(find_chromium() is None, reason="needs Chromium (apt install chromium)"),
    pytest.mark.skipif("libx264" not in av.codecs_available, reason="this PyAV has no x264"),
]
PAGE = """
<body style="margin: 0"><canvas id="face" width="256" height="256" style="display: block"></canvas>
<script type="module">
  import { show } from "SERVER/client/index.js";
  const face = (window.face = await show(document.querySelector("#face"), "SERVER/", { video: [] }));
  window.speak = () => {
    face.push(new Float32Array(BURSTS), 16000);
    face.flush();
  };
</script>
"""


async def test_a_film_is_in_step(tmp_path: Path) -> None:
    with other_site() as site, running(max_sessions=2, allowed_origins=site.origin) as run:
        body = PAGE.replace("SERVER/", run.url("/")).replace("BURSTS", json.dumps(bursts().tolist()))
        async with Chromium() as browser:
            page = await browser.open("about:blank")
            await page.size(256, 256)
            camera = Camera(page)
            await camera.listen()
            await page.go(site.page("film", body))
            await page.until("window.face?.stats.shown > 5")  # it breathes
            await camera.start()
            await page.evaluate("window.speak()")
            await page.until("window.face.session.drained(0) && window.face.stats.answered > 40000")
            film = await camera.stop()
    path = tmp_path / "film.mp4"
    film.write(path)
    late = offsets(path.read_bytes())
    print(f"pictures after the sound in milliseconds: {[round(1000 * value) for value in late]}")
    assert max(map(abs, late)) < 0.08
