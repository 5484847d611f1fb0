"""The list of attacks on a gateway beyond loopback's trust, each tried over real sockets.

    python -m pytest tests/gateway/test_door_security.py -s

prints each attack and its result. docs/security.md has the list of the last release. The gateway believes
the forwarded addresses of this machine, so that each test comes from an address of its own.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import pytest
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from gateway.door.credentials import SUBPROTOCOL_PREFIX
from gateway.door.throttle import CYCLE
from gateway.door.token_file import new_token
from protocol.process.settings import ROOT
from protocol.wire.browser import SUBPROTOCOL_V2
from scripts.run.managed import ManagedRun
from tests.gateway.clients import Client, noise
from tests.gateway.conftest import Running, running
from tests.gateway.visits import TRICKS, Visit, carry_everywhere, guess, last_text, let_in, new_visit
from tests.helpers.tokens import TokenBox

pytestmark = pytest.mark.process

#: What was tried, and what happened.
ROWS: list[tuple[str, str]] = []


@pytest.fixture(scope="module", autouse=True)
def the_list() -> Iterator[None]:
    """Print the list at the end."""
    yield
    width = max((len(tried) for tried, _ in ROWS), default=0)
    print("\n\n" + "\n".join(f"{tried.ljust(width)}  {happened}" for tried, happened in ROWS))


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> TokenBox:
    return TokenBox(tmp_path_factory.mktemp("tokens"))


@pytest.fixture(scope="module")
def gateway(box: TokenBox) -> Iterator[Running]:
    with running(
        portraits=ROOT / "demo/bundled/avatars",
        token_file=box.path,
        trusted_proxies=("127.0.0.1",),
        max_sessions=8,
        idle_flush=1.0,
        log_level="DEBUG",
    ) as run:
        yield run


@pytest.fixture
def visit(gateway: Running) -> Visit:
    return new_visit(gateway)


@pytest.fixture
def told() -> Callable[[str, str], None]:
    """Puts a line into the list."""
    return lambda tried, happened: ROWS.append((tried, happened))


Told = Callable[[str, str], None]
GUARDED = (
    "/avatars.json",
    "/avatars/amara.png",
    "/poses/calm.svg",
    "/poses/live/calm.svg",
    "/metrics",
    "/tokens",
)


# ---- tokens that do not open


def test_no_token(visit: Visit, told: Told) -> None:
    for path in GUARDED:
        status, text, headers = visit.ask(path)
        assert status == 401 and "token is needed" in text, path
        assert headers["www-authenticate"].startswith("Bearer")
    assert visit.code(None) == "token_missing" and visit.upgrade("/") == 401
    for path in ("/", "/app.js", "/healthz"):
        assert visit.ask(path)[0] == 200, path
    status, text, _ = visit.ask("/readyz")
    assert status == 200 and json.loads(text) == {"ready": True}
    told(
        "no token",
        f"401 at {', '.join(GUARDED)} and the websocket; page, /healthz and a bare /readyz are open",
    )


def test_wrong_tokens(gateway: Running, box: TokenBox, told: Told) -> None:
    good = box.add("wrong-tokens")
    wrong = [
        "",
        "x",
        good[:-1],
        good + "A",
        good.swapcase(),
        new_token(),
        "a.b.c",
        "é" * 9,
        "A" * 9000,
        "null",
        "*",
    ]
    for token in wrong:
        visit = new_visit(gateway)
        assert visit.code(token) == "token_wrong", token
        assert (
            visit.ask("/avatars.json", Authorization=f"Bearer {token}".encode().decode("latin-1"))[0] == 401
        )
    told(
        f"{len(wrong)} wrong tokens (cut, longer, other case, another's, not ASCII, 9,000 letters)",
        "each 401 token_wrong",
    )


def test_expired_tokens(visit: Visit, box: TokenBox, told: Told) -> None:
    now = int(time.time())
    program = box.add("expired", "session", "metrics", expires=now - 1)
    assert visit.code(program) == "token_expired"
    box.add("expired-browser")
    assert visit.code(box.signed("expired-browser", iat=now - 600, exp=now - 1)) == "token_expired"
    told("expired program's token, expired browser's token", "401 token_expired")


def test_a_token_that_is_not_valid_yet(visit: Visit, box: TokenBox, told: Told) -> None:
    now = int(time.time())
    box.add("early")
    for claims in ({"iat": now + 300, "exp": now + 900}, {"nbf": now + 300}):
        assert visit.code(box.signed("early", **claims)) == "token_expired"
    told("browser's token of the future (iat, nbf)", "401 token_expired")


def test_forged_signatures(gateway: Running, box: TokenBox, told: Told) -> None:
    box.add("forged")
    for trick, token in box.forged("forged").items():
        assert new_visit(gateway).code(token) == "token_wrong", trick
        told(f"browser's token: {trick}", "401 token_wrong")


OTHER_CLAIMS: dict[str, dict[str, Any]] = {
    "another audience": {"aud": "metrics"},
    "no audience": {"aud": None},
    "another issuer": {"iss": "another-server"},
    "more scopes": {"scope": "session mint metrics admin"},
    "valid for a year": {"exp": int(time.time()) + 365 * 86400},
    "no expiry": {"exp": None},
}


@pytest.mark.parametrize("what", OTHER_CLAIMS)
def test_claims_of_another_kind(visit: Visit, box: TokenBox, told: Told, what: str) -> None:
    name = f"claims-{what.replace(' ', '-')}"
    box.add(name)
    assert visit.code(box.signed(name, **OTHER_CLAIMS[what])) == "token_wrong"
    told(f"browser's token with a right signature and {what}", "401 token_wrong")


def test_another_scope(visit: Visit, box: TokenBox, told: Told) -> None:
    tokens = {scope: box.add(f"only-{scope}", scope) for scope in ("session", "mint", "metrics", "admin")}
    tokens["browser"] = box.signed("only-mint")
    opens = {
        "session": ["/avatars.json"],
        "mint": ["/tokens"],
        "metrics": ["/metrics"],
        "admin": [],
        "browser": ["/avatars.json"],
    }
    for scope, token in tokens.items():
        for path in ("/avatars.json", "/tokens", "/metrics"):
            status = visit.ask(path, Authorization=f"Bearer {token}")[0]
            assert status == (200 if path in opens[scope] else 403), (scope, path)
        assert visit.code(token) == ("" if scope in ("session", "browser") else "token_scope")
    told("each scope at the others' addresses; a browser's token at /metrics and /tokens", "403 token_scope")


# ---- tokens that open, and stop opening


async def test_three_ways_to_carry_a_token(gateway: Running, visit: Visit, box: TokenBox, told: Told) -> None:
    program = box.add("three-ways")
    for token in (program, box.signed("three-ways")):
        offered = [Subprotocol(SUBPROTOCOL_V2), Subprotocol(SUBPROTOCOL_PREFIX + token)]
        url, bearer = gateway.url("/ws", "ws"), {"Authorization": f"Bearer {token}"}
        ways = {
            "header": connect(url, subprotocols=offered[:1], additional_headers=bearer),
            "subprotocol": connect(url, subprotocols=offered),
            "query": connect(f"{url}?token={quote(token)}", subprotocols=offered[:1]),
        }
        for way, connecting in ways.items():
            async with connecting as ws:
                assert ws.subprotocol == SUBPROTOCOL_V2 and ws.response is not None, way
                assert token not in str(ws.response.headers)
                await ws.send(json.dumps({"type": "hello"}))
                assert json.loads(await ws.recv())["type"] == "ready", way
        # Version 1 has no subprotocol: the token stands alone there.
        async with connect(url, subprotocols=offered[1:]) as ws:
            assert ws.subprotocol is None
    assert visit.code(None, "/ws?token=a", Authorization=f"Bearer {program}") == ""
    told("both kinds of token by header, subprotocol and query", "let in; the answer never names the token")


@pytest.mark.parametrize("way", ["revoked", "program revoked", "rotated", "deleted", "expired"])
async def test_a_session_ends_with_its_token(visit: Visit, box: TokenBox, told: Told, way: str) -> None:
    name = f"ends-{way.replace(' ', '-')}"
    limits = {"expires": int(time.time()) + 3} if way == "expired" else {}
    program, other = box.add(name, "session", "mint", **limits), box.add(f"{name}-other")
    token = program if way in ("revoked", "deleted", "expired") else box.signed(name)
    async with visit.connect(token) as ws, visit.connect(other) as bystander:
        clients = Client(ws, 2), Client(bystander, 2)
        for client in clients:
            await client.ws.send(json.dumps({"type": "hello"}))
            await client.until(lambda c: c.texts)
        began = time.monotonic()
        if way in ("revoked", "program revoked"):
            box.revoke(name)
        elif way == "rotated":
            box.rotate()
        elif way == "deleted":
            book = box.book
            box.put(type(book)(book.key, tuple(t for t in book.tokens if t.name != name), book.retired))
        code, reason = await clients[0].closed()
        took = time.monotonic() - began
        assert code == 1008 and reason.startswith("token_expired" if way == "expired" else "token_revoked")
        assert clients[0].text("error")["code"] in ("token_revoked", "token_expired")
        assert way == "expired" or took < 2.5
        assert visit.code(token) in ("token_revoked", "token_expired", "token_wrong")
        await asyncio.sleep(0.3)
        assert bystander.close_code is None, "another token's session goes on"
    told(
        f"a token {way} while its session runs",
        f"closed after {took:.1f} s with {reason.partition(':')[0]}; others go on",
    )


async def test_limits_of_sessions_avatars_and_time(visit: Visit, box: TokenBox, told: Told) -> None:
    program = box.add("limits", "session", "mint", sessions=2, avatars=("kenji", "leo"))
    minted = json.loads(
        visit.ask("/tokens?avatars=leo&session_seconds=1", "POST", Authorization=f"Bearer {program}")[1]
    )

    async def first_text(token: str, **hello: str) -> dict[str, Any]:
        ws = await visit.connect(token)
        opened.append(ws)
        await ws.send(json.dumps({"type": "hello", **hello}))
        text: dict[str, Any] = json.loads(await ws.recv())
        return text

    opened: list[Any] = []
    assert (await first_text(program))["avatar"] == "kenji", "the first one that it may use"
    assert (await first_text(minted["token"]))["avatar"] == "leo"
    assert (await first_text(minted["token"]))["code"] == "busy", "a browser's token has one session"
    assert (await first_text(program))["code"] == "busy", "its browsers' sessions count for the program's two"
    ended = await asyncio.wait_for(last_text(opened[1]), 5)
    assert ended["code"] == "token_expired"
    for _ in range(50):  # its place is free a moment after its last word
        answer = await first_text(program, avatar="amara")
        if answer["code"] != "busy":
            break
        await asyncio.sleep(0.05)
    assert answer["code"] == "forbidden"
    assert (await first_text(minted["token"], avatar="kenji"))["code"] == "forbidden"
    for ws in opened:
        await ws.close()
    told("more sessions than the token has", "closed with busy")
    told("another avatar than the token's, by hello", "closed with forbidden")
    told("a session longer than the token's session_seconds", "closed with token_expired")


def test_limits_of_pictures_and_minting(visit: Visit, box: TokenBox, told: Told) -> None:
    program = box.add("pictures", "session", "mint", sessions=2, avatars=("kenji", "leo"))
    bearer = {"Authorization": f"Bearer {program}"}
    assert visit.ask("/avatars/leo.png", **bearer)[0] == visit.ask("/poses/calm.svg", **bearer)[0] == 200
    assert json.loads(visit.ask("/avatars.json", **bearer)[1])["avatars"] == ["kenji", "leo"]
    for name in ("amara.png", "%61mara.png", "./amara.png", "../avatars/amara.png"):
        assert visit.ask(f"/avatars/{name}", **bearer)[0] == 404, name
    for wish in ("ttl=0", "ttl=86401", "sessions=3", "avatars=amara", "scope=admin", "ttl=1e9", "avatars="):
        assert visit.ask(f"/tokens?{wish}", "POST", **bearer)[0] == 400, wish
    assert visit.ask(f"/tokens?token={program}", "POST")[0] == 400, "its token belongs into the header"
    told("another avatar than the token's, by picture", "404")
    told("a browser's token beyond the program's limits, or by a token in the address", "400")


# ---- other ways around


def test_a_right_token_opens_no_other_rule(visit: Visit, box: TokenBox, told: Told) -> None:
    bearer = {"Authorization": f"Bearer {box.add('rules', 'session', 'metrics')}"}
    assert visit.ask("/metrics", Host="evil.example", **bearer)[0] == 421
    assert visit.upgrade(Host="evil.example", **bearer) == 421
    assert visit.upgrade(Origin="https://evil.example", **bearer) == 403
    assert visit.upgrade(Origin="null", **bearer) == 403
    headers = visit.ask("/", **bearer)[2]
    assert (
        "frame-ancestors 'none'" in headers["content-security-policy"]
        and headers["x-frame-options"] == "DENY"
    )
    assert 'echomimic_refused_total{code="host"} ' in visit.ask("/metrics", **bearer)[1]
    told("DNS rebinding with a right token (Host evil.example)", "421")
    told("cross-site websocket with a right token (Origin evil.example, null)", "403")
    told("clickjacking: the page in another site's frame", "frame-ancestors 'none', X-Frame-Options DENY")


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS", "PUT", "TRACE", "get"])
def test_path_tricks_get_nothing(gateway: Running, told: Told, method: str) -> None:
    statuses: Counter[int] = Counter()
    host = f"127.0.0.1:{gateway.settings.port}"
    for trick in TRICKS:
        # Bad tokens would make the address slow, and its answers would hide a hole.
        visit = new_visit(gateway)
        answer = visit.raw(
            f"{method} {trick} HTTP/1.1\r\nHost: {host}\r\nX-Forwarded-For: {visit.address}\r\n\r\n".encode()
        )
        for secret in (b"echomimic_", b'"avatars":', b"\x89PNG", b'"token":'):
            assert secret not in answer.partition(b"\r\n\r\n")[2], (method, trick)
        statuses[int(answer[9:12])] += 1
    told(
        f"{len(TRICKS)} path tricks without a token, {method}",
        ", ".join(f"{n}× {s}" for s, n in sorted(statuses.items())),
    )


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timing
@pytest.mark.timeout(240)
async def test_ten_thousand_guesses(gateway: Running, visit: Visit, box: TokenBox, told: Told) -> None:
    token, process = box.add("bystander"), psutil.Process(gateway.process.pid)
    statuses: Counter[int] = Counter()
    async with visit.connect(token) as ws:
        client = Client(ws, 2)
        await ws.send(json.dumps({"type": "hello"}))
        await client.until(lambda c: c.texts)
        speaking = asyncio.create_task(client.speak(noise(150.0)))
        await client.until(lambda c: len(c.frames) > 12)
        before, frames, began = process.memory_info().rss, len(client.frames), time.monotonic()
        await asyncio.gather(*(guess(gateway, visit.address, 10_000 // 20, statuses) for _ in range(20)))
        took, grown = time.monotonic() - began, process.memory_info().rss - before
        came = len(client.frames) - frames
        # A right token of the same address, while others guess on.
        guessing = asyncio.create_task(guess(gateway, visit.address, 100_000, statuses))
        waited = await asyncio.wait_for(let_in(visit, token), 3 * CYCLE)
        guessing.cancel()
        speaking.cancel()
        await client.until(lambda c: c.audio)
        status = client.text("status")
        assert status["frames_lost"] == 0 and status["frames_dropped"] == 0, status
    assert set(statuses) == {401, 429} and statuses[401] < statuses[429]
    assert grown < 20 << 20 and came >= 0.6 * 24 * took
    assert waited <= CYCLE + 1
    told(
        f"10,000 guesses in {took:.1f} s ({10_000 / took:.0f} a second) from one address, by header",
        f"{statuses[401]}× 401, {statuses[429]}× 429; memory +{grown / 2**20:.1f} MiB",
    )
    told("a session beside the guesses", f"{came / took:.1f} frames a second, none lost")
    told("a right token of the guesser's address, while it guesses on", f"let in after {waited:.1f} s")


@pytest.mark.long
@pytest.mark.slow
async def test_secrets_are_in_no_log_and_no_process_list(box: TokenBox, told: Told) -> None:
    program = box.add("whole-run", "session", "mint", "metrics")
    browser = box.signed("whole-run")
    percent = "".join(f"%{ord(letter):02x}" for letter in program)
    secrets = {program, program[4:], browser, browser.rpartition(".")[2], percent, box.book.key.secret.hex()}
    flags = ("--passthrough", "--token-file", str(box.path), "--log-level", "DEBUG")
    with ManagedRun(*flags, timeout=100) as run:
        await carry_everywhere(run.port, program, browser, percent)
        pids = [run.process.pid, *run.pids()]
        for pid in pids:
            for name in ("cmdline", "environ"):
                seen = Path(f"/proc/{pid}/{name}").read_bytes().decode(errors="replace")
                assert seen and not [secret for secret in secrets if secret in seen], (pid, name)
        log, console = run.log(), run.console()
    assert "< GET /ws?\u2026 HTTP/1.1" in log, "the library's own debug log is in it"
    assert len(pids) >= 5
    for secret in secrets:
        assert secret not in log and secret not in console
    told(
        f"a whole run of {len(pids)} processes with --log-level DEBUG; tokens in headers, subprotocols,"
        " queries (also as %XX) and in requests that cannot be read",
        f"in none of {len(log.splitlines())} log lines, no command line, no environment",
    )
