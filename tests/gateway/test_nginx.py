"""The shipped nginx example before a real gateway: HTTPS, a path of another site, and the websocket.

The configuration is `deploy/nginx.conf` itself. Only its ports and files are replaced, and in some tests a
line that its comments say may be otherwise.
"""

from __future__ import annotations

import http.client
import re
import socket
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin, Subprotocol

from protocol.process.settings import ROOT
from protocol.wire.browser import SUBPROTOCOL_V2
from tests.gateway.clients import Client, noise
from tests.gateway.conftest import Running, free_port, running
from tests.helpers.certificates import Pair, make_pair, spki_hash
from tests.helpers.chromium import Chromium, find_chromium
from tests.helpers.nginx import Nginx, find_nginx, running_nginx
from tests.helpers.ports import listening

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(find_nginx() is None, reason="needs nginx (apt install nginx)"),
]

NAMES = ("face.example", "www.example")
HOST_LINE = "    proxy_set_header Host              $http_host;\n"
PREFIX_KEPT = "The gateway takes both.\n        proxy_pass http://127.0.0.1:8080;\n"
#: What the comments of the example say may be otherwise, as its text → other text.
VARIANTS: dict[str, dict[str, str]] = {
    "as shipped": {},
    # nginx then sends 127.0.0.1 and the gateway's port, and the browser's Host is in X-Forwarded-Host alone.
    "Host rewritten": {HOST_LINE: ""},
    "prefix stripped": {PREFIX_KEPT: PREFIX_KEPT.replace("8080;", "8080/;")},
}
SITES = {"face.example": "", "www.example": "/face"}


@pytest.fixture(scope="module")
def pair() -> Pair:
    return make_pair(names=NAMES)


@pytest.fixture(scope="module")
def gateways() -> Iterator[dict[str, Running]]:
    """A gateway for each site of the example, with the flags that the example names."""
    portraits = ROOT / "demo/bundled/avatars"
    common: dict[str, Any] = {
        "trusted_proxies": ("127.0.0.1",),
        "max_sessions": 3,
        "idle_flush": 1.0,
        "portraits": portraits,
    }
    with running(allowed_hosts=("face.example",), **common) as root:
        with running(allowed_hosts=("www.example",), root_path="/face", **common) as below:
            yield {"face.example": root, "www.example": below}


@contextmanager
def proxy(
    tmp_path: Path, pair: Pair, gateway: Running, changes: Mapping[str, str] | None = None
) -> Iterator[Nginx]:
    pair.write(tmp_path)
    ports = (free_port(), free_port())
    with running_nginx(tmp_path, gateway.settings.port, ports, changes) as nginx:
        yield nginx


def trust(pair: Pair) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=pair.certificate.decode())


def get(nginx: Nginx, pair: Pair, site: str, path: str) -> tuple[int, str]:
    """Status, and the body or where a redirect leads."""
    with socket.create_connection(("127.0.0.1", nginx.https_port), timeout=5) as plain:
        with trust(pair).wrap_socket(plain, server_hostname=site) as secure:
            connection = http.client.HTTPConnection(site, nginx.https_port)
            connection.sock = secure
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.headers.get("Location") or answer.read().decode()


@asynccontextmanager
async def session(nginx: Nginx, pair: Pair, site: str, origin: str | None = None) -> AsyncIterator[Client]:
    """A session as the page of the site opens it."""
    own = f"https://{site}:{nginx.https_port}"
    async with connect(
        f"wss://{site}:{nginx.https_port}{SITES[site]}/ws",
        host="127.0.0.1",
        port=nginx.https_port,
        ssl=trust(pair),
        origin=Origin(origin or own),
        subprotocols=[Subprotocol(SUBPROTOCOL_V2)],
    ) as ws:
        await ws.send('{"type": "hello"}')
        client = Client(ws, 2)
        await client.until(lambda c: c.texts)
        yield client


@pytest.mark.parametrize(
    ("site", "variant"),
    [
        ("face.example", "as shipped"),
        ("face.example", "Host rewritten"),
        ("www.example", "as shipped"),
        ("www.example", "Host rewritten"),
        ("www.example", "prefix stripped"),
    ],
)
async def test_page_and_session_go_through(
    gateways: dict[str, Running], pair: Pair, tmp_path: Path, site: str, variant: str
) -> None:
    prefix = SITES[site]
    with proxy(tmp_path, pair, gateways[site], VARIANTS[variant]) as nginx:
        assert get(nginx, pair, site, f"{prefix}/healthz") == (200, "ok\n")
        status, page = get(nginx, pair, site, f"{prefix}/")
        assert status == 200 and "<title>" in page
        for file in re.findall(r'(?:src|href)="([^":]+)"', page):
            assert not file.startswith("/"), f"{file} would leave the prefix"
            assert get(nginx, pair, site, f"{prefix}/{file}")[0] == 200
        async with session(nginx, pair, site) as client:
            await client.speak(noise(1.0))
            await client.until(lambda c: len(c.frames) == 24)
        with pytest.raises(InvalidStatus, match="403"):
            async with session(nginx, pair, site, origin="https://evil.example"):
                pass
        assert get(nginx, pair, site, f"{prefix}/healthz?token=secret-word")[0] == 200
        assert "secret-word" not in nginx.logs() and "/healthz" in nginx.logs()
        # beside nginx, which faces the network, nothing of the run does
        assert listening(gateways[site].process.pid) == {("127.0.0.1", gateways[site].settings.port)}


async def test_a_rewritten_host_needs_a_trusted_proxy(pair: Pair, tmp_path: Path) -> None:
    """Whoever can reach the gateway's port could otherwise forward a host of its choice."""
    with running(allowed_hosts=("face.example",)) as run:
        with proxy(tmp_path, pair, run, VARIANTS["Host rewritten"]) as nginx:
            with pytest.raises(InvalidStatus, match="403"):
                async with session(nginx, pair, "face.example"):
                    pass


def test_plain_http_and_the_bare_prefix_are_redirected(
    gateways: dict[str, Running], pair: Pair, tmp_path: Path
) -> None:
    with proxy(tmp_path, pair, gateways["www.example"]) as nginx:
        assert get(nginx, pair, "www.example", "/face")[0] == 308
        connection = http.client.HTTPConnection("127.0.0.1", nginx.http_port, timeout=5)
        connection.request("GET", "/face/?x=1", headers={"Host": "www.example"})
        answer = connection.getresponse()
        assert (answer.status, answer.headers["Location"]) == (308, "https://www.example/face/?x=1")
        connection.close()


@pytest.mark.browser
@pytest.mark.skipif(find_chromium() is None, reason="needs Chromium (apt install chromium)")
@pytest.mark.parametrize("site", SITES)
async def test_a_browser_holds_a_session(
    gateways: dict[str, Running], pair: Pair, tmp_path: Path, site: str
) -> None:
    flags = (
        "--host-resolver-rules=MAP *.example 127.0.0.1",
        f"--ignore-certificate-errors-spki-list={spki_hash(pair.certificate)}",
    )
    with proxy(tmp_path, pair, gateways[site]) as nginx:
        async with Chromium(flags=flags) as browser:
            page = await browser.open(f"https://{site}:{nginx.https_port}{SITES[site]}/")
            assert await page.evaluate("isSecureContext && !!navigator.mediaDevices")
            await page.until("window.echomimic?.state === 'idle'")
            await page.click("#start")
            await page.until("window.echomimic.stats?.shown > 24")
            assert page.problems == []
