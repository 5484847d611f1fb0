"""The door of a running gateway: who is let in, by which Host, Origin, path and proxy, on real sockets."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.gateway.conftest import Running, running
from tests.gateway.raw_http import UPGRADE, RawReply, exchange

pytestmark = pytest.mark.process

ALLOWED, EMBEDDER, STRANGER = "https://app.example", "https://blog.example", "https://evil.example"
#: An address of the machine that is trusted as a proxy, and one that is not.
PROXY, OTHER = "127.0.0.2", "127.0.0.3"


@pytest.fixture(scope="module")
def behind() -> Iterator[Running]:
    """A gateway behind a proxy, with every exception that a flag can make."""
    with running(
        root_path="/face",
        trusted_proxies=(PROXY,),
        allowed_hosts=("face.example",),
        allowed_origins=(ALLOWED,),
        embed_origins=(EMBEDDER,),
        max_sessions=1,
    ) as run:
        yield run


def let_in(reply: RawReply) -> bool:
    return reply.status in (101, 200)


def upgrade(run: Running, *headers: tuple[str, str], target: str = "/ws", host: str = "") -> RawReply:
    return exchange(run.settings.port, target, [*UPGRADE, *headers], host=host)


def told(run: Running, query: str = "", host: str = "", *headers: tuple[str, str]) -> dict[str, object]:
    reply = exchange(run.settings.port, f"/door.json{query}", headers, host=host)
    assert reply.status == 200 and reply.headers["Access-Control-Allow-Origin"] == "*"
    answer: dict[str, object] = json.loads(reply.text)
    return answer


# ------------------------------------------------------------------ rebinding

HOSTILE_HOSTS = [
    "evil.example", "localhost.evil.example", "0x7f.1", "127.1", "2130706433", "0177.0.0.1", "127.0.0.1.",
    "user@localhost", "localhost@evil.example", "localhost:99999", "[::1", "::1", "0.0.0.0", "10.0.0.1",
    "localhost, evil.example", "evil.example#localhost", "[fe80::1%25eth0]",
]  # fmt: skip


@pytest.mark.parametrize("host", HOSTILE_HOSTS)
def test_a_hostile_host_gets_a_sentence_and_no_page(gateway: Running, host: str) -> None:
    for path in ("/", "/app.js", "/avatars.json", "/metrics", "/healthz", "/missing"):
        reply = exchange(gateway.settings.port, path, host=host)
        assert reply.status in (400, 421) and reply.text.endswith(".\n") and len(reply.text) < 300
    page_of_it = upgrade(gateway, ("Origin", f"http://{host}"), host=host)
    assert page_of_it.status in (400, 421)


@pytest.mark.parametrize("hosts", [(), ("localhost", "evil.example"), ("localhost", "localhost")])
def test_there_is_one_host(gateway: Running, hosts: tuple[str, ...]) -> None:
    headers = [("Host", host) for host in hosts]
    assert exchange(gateway.settings.port, "/", headers, host=None).status == 400
    assert exchange(gateway.settings.port, "/ws", [*UPGRADE, *headers], host=None).status == 400


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:1", "[::1]:8080", "LOCALHOST.", "127.9.9.9"])
def test_loopback_names_reach_the_page(gateway: Running, host: str) -> None:
    assert "<title>" in exchange(gateway.settings.port, host=host).text


def test_the_log_names_the_host_and_the_flag_once(gateway: Running) -> None:
    for _ in range(50):
        exchange(gateway.settings.port, host="rebind.example:81")
    lines = [line for line in gateway.log().splitlines() if "rebind.example" in line]
    assert len(lines) == 1 and "WARNING" in lines[0]
    assert "Host rebind.example:81" in lines[0] and "--allowed-hosts rebind.example" in lines[0]


def test_a_client_writes_no_lines_into_the_log() -> None:
    with running() as run:
        for number in range(300):
            exchange(run.settings.port, host=f"h{number}.example")
            upgrade(run, ("Origin", f"http://\x1b[31m{number}\x85WARNING forged" + "x" * 5000))
        log = run.log()
    lines = [line for line in log.splitlines() if "refused" in line]
    assert 2 <= len(lines) <= 10 and max(map(len, lines)) < 500
    assert "\x1b" not in log and "\x85" not in log


# ------------------------------------------------------------------ cross-site websockets

FOREIGN_ORIGINS = [
    STRANGER, "null", "http://localhost.evil.example", "http://127.0.0.1", "https://127.0.0.1",
    "http://127.0.0.1@evil.example", "file://", "", "http://127.0.0.1:1", "HTTP://EVIL.EXAMPLE",
]  # fmt: skip


@pytest.mark.parametrize("origin", FOREIGN_ORIGINS)
def test_a_page_of_another_site_may_not_connect_and_is_told_why(gateway: Running, origin: str) -> None:
    reply = upgrade(gateway, ("Origin", origin))
    assert reply.status == 403 and "may not connect" in reply.text
    answer = told(gateway, "", "", ("Origin", origin))
    assert answer == {"open": False, "code": "origin", "message": reply.text.strip()}
    if origin:
        assert told(gateway, f"?origin={quote(origin, safe='')}")["code"] == "origin"


def test_its_own_page_may_connect_and_is_told_so(gateway: Running) -> None:
    own = f"http://127.0.0.1:{gateway.settings.port}"
    assert upgrade(gateway, ("Origin", own)).status == 101
    assert told(gateway, f"?origin={own}") == {"open": True, "code": "", "message": ""}
    assert upgrade(gateway, ("Origin", own), ("Origin", own)).status == 403
    assert upgrade(gateway).status == 101


def test_the_door_answers_every_host(gateway: Running) -> None:
    answer = told(gateway, "?origin=http://rebound.example", "rebound.example")
    assert answer["code"] == "host" and "--allowed-hosts rebound.example" in str(answer["message"])


def test_allowed_sites_may_connect_and_read(behind: Running) -> None:
    assert upgrade(behind, ("Origin", ALLOWED)).status == 101
    assert upgrade(behind, ("Origin", EMBEDDER)).status == 403
    assert told(behind, f"?origin={ALLOWED}")["open"]
    port = behind.settings.port
    shared = exchange(port, "/avatars.json", [("Origin", ALLOWED)])
    assert shared.headers["Access-Control-Allow-Origin"] == ALLOWED and shared.headers["Vary"] == "Origin"
    for origin in (STRANGER, EMBEDDER, "null"):
        assert (
            "Access-Control-Allow-Origin" not in exchange(port, "/avatars.json", [("Origin", origin)]).headers
        )


def test_a_full_house_is_told(behind: Running) -> None:
    held = []
    try:
        for _ in range(behind.settings.most_sessions + 64):
            sock = socket.create_connection(("127.0.0.1", behind.settings.port), 5)
            held.append(sock)
            lines = "".join(f"{name}: {value}\r\n" for name, value in [("Host", "localhost"), *UPGRADE])
            # Version 2, so that each waits for its first message.
            sock.sendall(
                f"GET /ws HTTP/1.1\r\n{lines}Sec-WebSocket-Protocol: echomimic-live.v2\r\n\r\n".encode()
            )
            assert sock.recv(12).startswith(b"HTTP/1.1 101")
        assert upgrade(behind).status == 503
        assert told(behind)["code"] == "busy"
    finally:
        for sock in held:
            sock.close()


# ------------------------------------------------------------------ frames


def test_no_page_may_hold_it_in_a_frame(gateway: Running) -> None:
    for path, host in (("/", ""), ("/app.js", ""), ("/missing", ""), ("/healthz", ""), ("/", "evil.example")):
        headers = exchange(gateway.settings.port, path, host=host).headers
        assert headers["X-Frame-Options"] == "DENY"
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]


def test_named_sites_may_hold_it_in_a_frame(behind: Running) -> None:
    headers = exchange(behind.settings.port).headers
    assert "X-Frame-Options" not in headers
    assert f"frame-ancestors 'self' {EMBEDDER}" in headers["Content-Security-Policy"]
    assert STRANGER not in headers["Content-Security-Policy"]


# ------------------------------------------------------------------ prefix


@pytest.mark.parametrize(
    "path", ["/", "/app.js", "/healthz", "/readyz", "/metrics", "/avatars.json", "/door.json"]
)
def test_every_address_is_answered_below_the_prefix_and_without(behind: Running, path: str) -> None:
    port = behind.settings.port
    assert exchange(port, f"/face{path}").status == exchange(port, path).status == 200


def test_the_websocket_is_below_the_prefix_too(behind: Running) -> None:
    for target in ("/face/ws", "/face/", "/ws", "/"):
        assert upgrade(behind, target=target).status == 101
    assert upgrade(behind, target="/face").status == 404


def test_the_prefix_leads_to_its_slash(behind: Running) -> None:
    reply = exchange(behind.settings.port, "/face?token=a")
    assert reply.status == 308 and reply.headers["Location"] == "/face/?token=a"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(min_codepoint=1, max_codepoint=126, exclude_characters="\n\r "), max_size=30))
def test_any_text_behind_the_prefix_is_answered(behind: Running, text: str) -> None:
    """It never leads to another site, and never to a fault."""
    for target in (f"/face{text}", f"/face?{text}", f"/face/?{text}", f"/door.json?origin={text}"):
        reply = exchange(behind.settings.port, target)
        assert reply.status in (200, 308, 404)
        where = reply.headers.get("Location", "/face/")
        assert where == "/face/" or where.startswith("/face/?")


@pytest.mark.parametrize(
    "path",
    [
        "/face/../app.js", "/face/../../etc/passwd", "//face/app.js", "/face//app.js", "//app.js",
        "/face/%2e%2e/app.js", "/face%2fapp.js", "/%66ace/app.js", "/face/app%2ejs", "/facex/app.js",
        "/face\\app.js", "/face/face/app.js", "/face/./app.js", "/face/;/app.js", "/face/app.js/",
        "/face/avatars/..%2f..%2fapp.png", "//evil.example/face", "/face/avatars/%2e%2e%2fada.png",
    ],
)  # fmt: skip
def test_no_spelling_leads_around_the_prefix(behind: Running, path: str) -> None:
    reply = exchange(behind.settings.port, path)
    assert reply.status == 404 and "Location" not in reply.headers
    assert not let_in(upgrade(behind, target=path.replace("app.js", "ws")))


# ------------------------------------------------------------------ proxies

FORWARDED = [
    ("X-Forwarded-For", "198.51.100.7"), ("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "face.example"),
]  # fmt: skip


@pytest.mark.parametrize("host", ["face.example", "127.0.0.1:8080"])
@pytest.mark.parametrize(
    "headers", [FORWARDED, [("Forwarded", "for=198.51.100.7;proto=https;host=face.example")]]
)
def test_a_trusted_proxy_tells_scheme_and_host(
    behind: Running, host: str, headers: list[tuple[str, str]]
) -> None:
    """Whether it keeps the Host or writes its own."""
    port = behind.settings.port
    for origin, status in (("https://face.example", 101), ("http://face.example", 403), (STRANGER, 403)):
        sent = [*UPGRADE, *headers, ("Origin", origin)]
        assert exchange(port, "/face/ws", sent, host=host, source=PROXY).status == status
    rewritten = exchange(port, "/", [*headers, ("X-Forwarded-Host", "evil.example")], host=host, source=PROXY)
    assert rewritten.status == (200 if headers is not FORWARDED else 421)


@pytest.mark.parametrize("host", ["127.0.0.1:8080"])
def test_a_stranger_that_plays_proxy_is_ignored(behind: Running, host: str) -> None:
    sent = [*UPGRADE, *FORWARDED, ("Origin", "https://face.example")]
    reply = exchange(behind.settings.port, "/ws", sent, host=host, source=OTHER)
    assert reply.status == 403
    assert f"--trusted-proxies {OTHER} believes" in behind.log()
    evil = exchange(behind.settings.port, "/", FORWARDED, host="evil.example", source=OTHER)
    assert evil.status == 421
    chosen = [("X-Forwarded-Host", "localhost"), ("Forwarded", "host=localhost")]
    assert exchange(behind.settings.port, "/", chosen, host="evil.example", source=PROXY).status == 421


def test_headers_that_contradict_each_other_are_refused(behind: Running) -> None:
    sent = [*FORWARDED, ("Forwarded", "for=9.9.9.9")]
    assert exchange(behind.settings.port, "/", sent, source=PROXY).status == 400
    assert exchange(behind.settings.port, "/", sent, source=OTHER).status == 200


# ------------------------------------------------------------------ methods


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "POST", "get", "X"])
def test_other_methods_are_told_the_allowed_ones(gateway: Running, method: str) -> None:
    for headers in ((), UPGRADE):
        reply = exchange(gateway.settings.port, "/ws" if headers else "/", headers, method=method)
        assert reply.status == 405 and reply.headers["Allow"] == ("GET" if headers else "GET, HEAD, OPTIONS")


@pytest.mark.parametrize(
    ("headers", "body"),
    [([("Content-Length", "5")], b"a=b&c"), ([("Transfer-Encoding", "chunked")], b"1\r\na\r\n0\r\n\r\n")],
)
def test_a_body_is_answered(gateway: Running, headers: list[tuple[str, str]], body: bytes) -> None:
    reply = exchange(gateway.settings.port, "/", headers, method="POST", body=body)
    assert reply.status == 413 and "no request body" in reply.text


@pytest.mark.parametrize("method", ["\x16\x03\x01\r\n", "GET  ", "GET / HTTP/2.0\r\n", "GET\xff\r\n"])
def test_bytes_that_are_no_request_are_answered(gateway: Running, method: str) -> None:
    assert exchange(gateway.settings.port, method=method).status == 400


def test_pages_ask_before_they_send_a_token(behind: Running) -> None:
    asked = [("Access-Control-Request-Method", "GET"), ("Access-Control-Request-Headers", "authorization")]
    port = behind.settings.port
    reply = exchange(port, "/avatars.json", [("Origin", ALLOWED), *asked], method="OPTIONS")
    assert reply.status == 204 and reply.headers["Access-Control-Allow-Origin"] == ALLOWED
    assert "Authorization" in reply.headers["Access-Control-Allow-Headers"]
    assert "GET" in reply.headers["Access-Control-Allow-Methods"]
    minting = exchange(port, "/tokens", [("Origin", ALLOWED), *asked], method="OPTIONS")
    assert "POST" in minting.headers["Access-Control-Allow-Methods"] and "POST" in minting.headers["Allow"]
    refused = exchange(port, "/avatars.json", [("Origin", STRANGER), *asked], method="OPTIONS")
    assert not any(name.startswith("Access-Control") for name in refused.headers)


def test_refusals_are_counted() -> None:
    with running() as run:
        for _ in range(3):
            exchange(run.settings.port, host="evil.example")
        upgrade(run, ("Origin", STRANGER))
        metrics = run.get("/metrics")[1]
    assert 'echomimic_refused_total{code="host"} 3.0' in metrics
    assert 'echomimic_refused_total{code="origin"} 1.0' in metrics
